"""A network of the benchmark's own, with other hosts in it: nothing of the machine's is seen."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.rivals import run
from orlop.sys.mount import MNT_DETACH, unmount
from orlop.sys.process import CLONE_NEWNET, setns, unshare


@contextmanager
def own_network() -> Iterator[None]:
    """This thread, and threads and processes that it starts, are in a new network meanwhile."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        unshare(CLONE_NEWNET)
        try:
            run(["ip", "link", "set", "lo", "up"])
            yield
        finally:
            setns(home, CLONE_NEWNET)
    finally:
        os.close(home)


@contextmanager
def namespaces(folder: Path, count: int) -> Iterator[list[str]]:
    """Pinned network namespaces, as runtimes make them for their containers."""
    with ExitStack() as stack:
        paths = [folder / f"ns{number}" for number in range(count)]
        for path in paths:
            path.touch()
            run(["unshare", f"--net={path}", "true"])
            stack.callback(unmount, path, MNT_DETACH)
        yield list(map(str, paths))


@contextmanager
def neighbour(here: str, there: str) -> Iterator[str]:
    """Another host on a cable; the path of its network namespace. Addresses are with prefixes."""
    command = ["unshare", "--net", "sh", "-c", "ip link set lo up; echo; exec sleep infinity"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            ns = f"/proc/{process.pid}/ns/net"
            inside = ["nsenter", f"--net={ns}"]
            run(["ip", "link", "add", "wire", "type", "veth", "peer", "name", "eth0",
                 "netns", str(process.pid)])  # fmt: skip
            for prefix, name, address in (([], "wire", here), (inside, "eth0", there)):
                run([*prefix, "ip", "addr", "add", address, "dev", name])
                run([*prefix, "ip", "link", "set", name, "up"])
            yield ns
        finally:
            process.kill()

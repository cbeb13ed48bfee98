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
def host() -> Iterator[list[str]]:
    """Another host, as a network namespace; what a command line begins with to be there."""
    command = ["unshare", "--net", "sh", "-c", "ip link set lo up; echo; exec sleep infinity"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield ["nsenter", f"--net=/proc/{process.pid}/ns/net"]
        finally:
            process.kill()


def connect(one: list[str], other: list[str], addresses: tuple[str, str]) -> None:
    """Lay a cable from one host to another, at whose ends are the addresses, with prefixes."""
    pid = other[1].split("/")[2]
    run([*one, "ip", "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", pid])
    for inside, address in zip((one, other), addresses, strict=True):
        run([*inside, "ip", "addr", "add", address, "dev", "wire"])
        run([*inside, "ip", "link", "set", "wire", "up"])

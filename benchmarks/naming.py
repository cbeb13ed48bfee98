"""Names of containers: ours asked at a network's gateway, dnsmasq at another address of the host.

Both know one name, and are asked for it by the same program, in the network of a container.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.attaching import private_orlopd
from benchmarks.docker_engine import save
from benchmarks.measure import Result, medians
from benchmarks.netlab import host
from benchmarks.rivals import NAMESPACE, await_, folder, run
from benchmarks.stage import Stage

_GATEWAY, _DNSMASQ = "10.88.0.1", "10.99.0.1"
_SECONDS = 1.0
_CLIENT = """
import socket, sys, time
server, window, limit = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
query = bytes(2) + bytes.fromhex("01000001000000000000") + b"\\x03web\\0\\0\\x01\\0\\x01"
with socket.socket(type=socket.SOCK_DGRAM) as asking:
    asking.connect((server, 53))
    asking.settimeout(2)
    count, begin = 0, time.perf_counter()
    for _ in range(window):
        asking.send(query)
    while time.perf_counter() < begin + limit:
        answer = asking.recv(512)
        assert answer[3] & 15 == 0 and answer[7] == 1
        count += 1
        asking.send(query)
print(count / (time.perf_counter() - begin))
"""


def bench_names(stage: Stage) -> list[Result]:
    """Queries in a second, one after the other and 32 at once, and their processor time."""
    rounds = 3 if stage.quick else 7
    with _servers(stage) as (client, ours, theirs):

        def rate(server: str, window: int) -> float:
            asking = [*client, sys.executable, "-c", _CLIENT, server, str(window), str(_SECONDS)]
            return float(run(asking))

        found = []
        for what, window in (("one at a time", 1), ("32 at once", 32)):
            before = [_cpu(ours), _cpu(theirs)]
            rates = medians(
                lambda window=window: rate(_GATEWAY, window),  # type: ignore[misc]
                lambda window=window: rate(_DNSMASQ, window),  # type: ignore[misc]
                rounds,
            )
            found.append(Result.of(f"names, {what}: orlop-dns / dnsmasq", rates, "/s"))
            used = [
                1e6 * (_cpu(pid) - spent) / (each * _SECONDS * (rounds + 1))
                for pid, spent, each in zip((ours, theirs), before, rates, strict=True)
            ]
            found.append(Result.of("  processor time of each", used, "µs"))
        return found


@contextmanager
def _servers(stage: Stage) -> Iterator[tuple[list[str], int, int]]:
    """What a client's command line begins with, and the processes that answer."""
    with ExitStack() as stack:
        path = stack.enter_context(folder("names"))
        server = stack.enter_context(host())
        connection = stack.enter_context(private_orlopd(path, server))
        save(stage.small, path / "busybox.tar")
        orlop = [str(Path(sys.executable).parent / "orlop"), "-a", connection.address,
                 "-n", NAMESPACE]  # fmt: skip
        run([*orlop, "load", "-i", str(path / "busybox.tar")])
        run([*orlop, "run", "-d", "--name", "web", "busybox", "sleep", "10000"])
        stack.callback(run, [*orlop, "rm", "-f", "web"])
        (web,) = json.loads(run([*orlop, "inspect", "web"]))
        client = ["nsenter", f"--net=/proc/{web['State']['Pid']}/ns/net"]
        run([*server, "ip", "addr", "add", f"{_DNSMASQ}/32", "dev", "lo"])
        theirs = stack.enter_context(_dnsmasq(server))
        run([*client, sys.executable, "-c", _CLIENT, _GATEWAY, "1", "0.1"])
        yield client, _process("orlop-dns", server), theirs


@contextmanager
def _dnsmasq(server: Sequence[str]) -> Iterator[int]:
    command = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file",
               "--user=root", "--no-resolv", "--no-hosts", "--bind-interfaces",
               f"--listen-address={_DNSMASQ}", "--host-record=web,10.88.0.2"]  # fmt: skip
    with subprocess.Popen([*server, *command]) as process:
        try:
            await_(lambda: f"{_DNSMASQ}:53 " in run([*server, "ss", "-lun"]), "dnsmasq")
            yield process.pid
        finally:
            process.kill()


def _process(name: str, server: Sequence[str]) -> int:
    """The one of that name in a host's network."""
    there = Path(server[1].partition("=")[2]).stat().st_ino
    for each in Path("/proc").glob("[0-9]*"):
        try:
            named = (each / "comm").read_text().strip() == name
            if named and (each / "ns/net").stat().st_ino == there:
                return int(each.name)
        except OSError:
            continue
    raise RuntimeError(f"no {name}")


def _cpu(pid: int) -> float:
    """Seconds of processor time of one process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

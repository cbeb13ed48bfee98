"""Pulls and pushes: orlop by its own command or library, containerd by ctr, both by ctr as well."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from pathlib import Path

from benchmarks import rivals
from benchmarks.link import long_way
from benchmarks.measure import Result, in_turns
from benchmarks.rivals import Rival, run
from orlop.client import Connection
from orlop.client.push import push_image

_numbers = count()
ROUND_TRIP, RATE = 0.05, 12.5e6


def _ctr_pull(rival: Rival, image: str) -> Callable[[], object]:
    return lambda: rival.run_ctr(
        "-n", f"round{next(_numbers)}", "images", "pull", "--plain-http", image
    )


def _orlop_pull(ours: Rival, image: str) -> Callable[[], object]:
    orlop = str(Path(sys.executable).parent / "orlop")
    return lambda: run([orlop, "-a", ours.address, "-n", f"round{next(_numbers)}", "pull", "-q",
                        image])  # fmt: skip


def bench_pull(ours: Rival, theirs: Rival, what: str, image: str, rounds: int) -> list[Result]:
    """Pull and unpack, into stores that have nothing of it."""
    clean = _cleaner(ours, theirs)
    return [
        in_turns(f"{what}: orlop pull", _orlop_pull(ours, image), _ctr_pull(theirs, image),
                 rounds=rounds, budget=0.33, between=clean),
        in_turns(f"{what}: ctr images pull", _ctr_pull(ours, image), _ctr_pull(theirs, image),
                 rounds=rounds, budget=1.0, between=clean),
    ]  # fmt: skip


def bench_again(ours: Rival, theirs: Rival, image: str, rounds: int) -> list[Result]:
    """Pull what is there already."""
    orlop = str(Path(sys.executable).parent / "orlop")
    again = [orlop, "-a", ours.address, "-n", rivals.NAMESPACE, "pull", "-q", image]
    theirs_again = theirs.ctr("images", "pull", "--plain-http", image)
    result = in_turns(
        "pull again: orlop pull", lambda: run(again), lambda: run(theirs_again), rounds=rounds,
        budget=1.0,
    )  # fmt: skip
    _cleaner(ours, theirs)()
    return [result]


def bench_link(ours: Rival, theirs: Rival, host: str, image: str, rounds: int) -> list[Result]:
    """Pull over a link of 50 ms and 100 Mbit/s."""
    with long_way(host, delay=ROUND_TRIP, rate=RATE) as far:
        name = f"{far}/{image.partition('/')[2]}"
        return [
            in_turns("pull, 50 ms 100 Mbit/s: orlop pull", _orlop_pull(ours, name),
                     _ctr_pull(theirs, name), rounds=rounds, warm_up=0, budget=1.0,
                     between=_cleaner(ours, theirs)),
        ]  # fmt: skip


def bench_push(ours: Rival, theirs: Rival, image: str, rounds: int) -> list[Result]:
    """Push to a registry that is empty, each time another."""
    for rival in (ours, theirs):
        rival.run_ctr("images", "pull", "--plain-http", image)
    with ExitStack() as stack, Connection(ours.address, rivals.NAMESPACE) as connection:
        target = stack.enter_context(rivals.registry())

        def another() -> None:
            nonlocal target
            stack.close()
            target = stack.enter_context(rivals.registry())

        result = in_turns(
            "push, large image",
            lambda: push_image(connection, image, f"{target}/bench/pushed:1"),
            lambda: theirs.run_ctr(
                "images", "push", "--plain-http", f"{target}/bench/pushed:1", image
            ),
            rounds=rounds, budget=0.6, between=another,
        )  # fmt: skip
    _cleaner(ours, theirs)()
    return [result]


def bench_pull_memory(image: str) -> list[Result]:
    """What the resident memory of a new daemon grows by at most in a pull."""
    figures = []
    for daemon, pull in ((rivals.orlopd, _orlop_pull), (rivals.containerd, _ctr_pull)):
        with daemon() as rival:
            pid = rival.process.pid
            before = _status(pid, "VmRSS")
            pull(rival, image)()
            figures.append((_status(pid, "VmHWM") - before) / 1024)
            empty_all(rival)
    return [Result("daemon's memory in a pull, above idle", figures[0], figures[1], "MB", 1.0)]


def _status(pid: int, key: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1])
    raise RuntimeError(f"no {key} of {pid}")


def _cleaner(*rivals: Rival) -> Callable[[], object]:
    return lambda: empty_all(*rivals)


def empty_all(*rivals: Rival) -> None:
    """Remove every image, snapshot and blob, so that the next pull does all the work again."""
    for rival in rivals:
        _empty(rival)


def _empty(rival: Rival) -> None:
    for namespace in rival.run_ctr("namespaces", "ls", "-q").split():
        at = ("-n", namespace)
        for name in rival.run_ctr(*at, "images", "ls", "-q").split():
            rival.run_ctr(*at, "images", "rm", "--sync", name)
        while names := _snapshots(rival, namespace):
            for name in names:
                _run_quietly(rival.ctr(*at, "snapshots", "rm", name))
        for digest in rival.run_ctr(*at, "content", "ls", "-q").split():
            _run_quietly(rival.ctr(*at, "content", "rm", digest))


def _snapshots(rival: Rival, namespace: str) -> list[str]:
    lines = rival.run_ctr("-n", namespace, "snapshots", "ls").splitlines()[1:]
    return [line.split()[0] for line in lines]


def _run_quietly(command: list[str]) -> None:
    try:
        run(command)
    except RuntimeError:
        pass  # the collector was faster, or a child is still there: the next round sees

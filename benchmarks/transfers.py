"""Pulls and pushes: orlop by its own command or library, containerd by ctr, both by ctr as well."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from itertools import count

from benchmarks import meter, rivals
from benchmarks.link import long_way
from benchmarks.measure import Result, at_most, in_turns
from benchmarks.rivals import Rival, orlop, run
from benchmarks.stage import Stage
from orlop.client import Connection
from orlop.client.push import push_image

_numbers = count()
ROUND_TRIP, RATE = 0.05, 12.5e6


def _ctr_pull(rival: Rival, image: str) -> Callable[[], object]:
    return lambda: rival.run_ctr(
        "-n", f"round{next(_numbers)}", "images", "pull", "--plain-http", image
    )


def _orlop_pull(ours: Rival, image: str) -> Callable[[], object]:
    return lambda: run(orlop(ours, "-n", f"round{next(_numbers)}", "pull", "-q", image))


def bench_small(stage: Stage) -> list[Result]:
    """A small image."""
    return _bench_pull(stage, "pull, small image", stage.small, rounds=7)


def bench_layers(stage: Stage) -> list[Result]:
    """Many layers."""
    return _bench_pull(stage, "pull, 30 layers", stage.layered, rounds=5)


def bench_large(stage: Stage) -> list[Result]:
    """Many bytes in many files; and what that takes of the daemon's memory."""
    return [
        *_bench_pull(stage, "pull, large image", stage.large, rounds=3),
        *_bench_pull_memory(stage.large),
    ]


def _bench_pull(stage: Stage, what: str, image: str, rounds: int) -> list[Result]:
    """Pull and unpack, into stores that have nothing of it."""
    clean = _cleaner(*stage.rivals)
    return [
        in_turns(f"{what}: orlop pull", _orlop_pull(stage.ours, image),
                 _ctr_pull(stage.theirs, image), rounds=rounds, budget=at_most(0.33),
                 between=clean),
        in_turns(f"{what}: ctr images pull", _ctr_pull(stage.ours, image),
                 _ctr_pull(stage.theirs, image), rounds=rounds, budget=at_most(1), between=clean),
    ]  # fmt: skip


def bench_again(stage: Stage) -> list[Result]:
    """Pull what is there already."""
    again = orlop(stage.ours, "pull", "-q", stage.layered)
    theirs_again = stage.theirs.ctr("images", "pull", "--plain-http", stage.layered)
    result = in_turns(
        "pull again: orlop pull", lambda: run(again), lambda: run(theirs_again), rounds=7,
        budget=at_most(1),
    )  # fmt: skip
    empty_all(*stage.rivals)
    return [result]


def bench_link(stage: Stage) -> list[Result]:
    """Pull over a link of 50 ms and 100 Mbit/s."""
    with long_way(stage.host, delay=ROUND_TRIP, rate=RATE) as far:
        name = f"{far}/{stage.layered.partition('/')[2]}"
        return [
            in_turns("pull, 50 ms 100 Mbit/s: orlop pull", _orlop_pull(stage.ours, name),
                     _ctr_pull(stage.theirs, name), rounds=3, warm_up=0, budget=at_most(1),
                     between=_cleaner(*stage.rivals)),
        ]  # fmt: skip


def bench_push(stage: Stage) -> list[Result]:
    """Push to a registry that is empty, each time another."""
    image = stage.large
    for rival in stage.rivals:
        rival.run_ctr("images", "pull", "--plain-http", image)
    with ExitStack() as stack, Connection(stage.ours.address, rivals.NAMESPACE) as connection:
        target = stack.enter_context(rivals.registry())

        def another() -> None:
            nonlocal target
            stack.close()
            target = stack.enter_context(rivals.registry())

        results = stage.compare(
            "push, large image",
            lambda: push_image(connection, image, f"{target}/bench/pushed:1"),
            lambda: stage.theirs.run_ctr(
                "images", "push", "--plain-http", f"{target}/bench/pushed:1", image
            ),
            rounds=3, budget=at_most(0.6), between=another,
        )  # fmt: skip
    empty_all(*stage.rivals)
    return results


def _bench_pull_memory(image: str) -> list[Result]:
    """What the resident memory of a new daemon grows by at most in a pull."""
    figures = []
    for daemon, pull in ((rivals.orlopd, _orlop_pull), (rivals.containerd, _ctr_pull)):
        with daemon() as rival:
            pid = rival.process.pid
            before = meter.resident(pid)
            pull(rival, image)()
            figures.append(meter.resident(pid, "VmHWM") - before)
            empty_all(rival)
    return [Result.of("daemon's memory in a pull, above idle", figures, "MB", at_most(1))]


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
                run_quietly(rival.ctr(*at, "snapshots", "rm", name))
        for digest in rival.run_ctr(*at, "content", "ls", "-q").split():
            run_quietly(rival.ctr(*at, "content", "rm", digest))


def _snapshots(rival: Rival, namespace: str) -> list[str]:
    lines = rival.run_ctr("-n", namespace, "snapshots", "ls").splitlines()[1:]
    return [line.split()[0] for line in lines]


def run_quietly(command: list[str]) -> None:
    try:
        run(command)
    except RuntimeError:
        pass  # the collector was faster, or a child is still there: the next round sees

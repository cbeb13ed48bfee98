"""Unpacking what is in the content store already, for each snapshotter."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.measure import Result, at_most, in_turns
from benchmarks.rivals import NAMESPACE, Rival
from benchmarks.stage import Stage
from benchmarks.transfers import run_quietly
from orlop.client import Connection
from orlop.client.pull import pull_image

_BUDGETS = {"overlayfs": 0.33, "erofs": 0.12, "native": 2.0}
_COPIES = "native"  # every layer with all that is below it: minutes, and hardly apart
_THEIRS = "overlayfs"


def bench_unpack(stage: Stage) -> list[Result]:
    """The large image, by orlop's library and by ctr on both."""
    ours, theirs, image = stage.ours, stage.theirs, stage.large
    for rival in stage.rivals:
        rival.run_ctr("content", "fetch", "--plain-http", image)
    digest = theirs.run_ctr("images", "ls").splitlines()[1].split()[2]

    def clean() -> None:
        for snapshotter in _BUDGETS:
            _drop(ours, snapshotter)
        _drop(theirs, _THEIRS)

    def by_ctr(rival: Rival, snapshotter: str) -> Callable[[], object]:
        command = ("snapshots", "--snapshotter", snapshotter, "unpack", digest)
        return lambda: rival.run_ctr(*command)

    def by_orlop(snapshotter: str) -> Callable[[], object]:
        def unpack() -> None:
            with Connection(ours.address, NAMESPACE) as connection:
                pull_image(connection, image, snapshotter=snapshotter, plain_http=True)

        return unpack

    results = []
    for snapshotter, budget in _BUDGETS.items():
        for how, action in (
            ("orlop", by_orlop(snapshotter)),
            ("ctr on both", by_ctr(ours, snapshotter)),
        ):
            results.append(
                in_turns(
                    f"unpack, large image, {snapshotter}, {how}",
                    action,
                    by_ctr(theirs, _THEIRS),
                    rounds=1 if stage.quick or snapshotter == _COPIES else 3,
                    budget=at_most(budget),
                    between=clean,
                )
            )
    clean()
    return results


def _drop(rival: Rival, snapshotter: str) -> None:
    """Remove all snapshots, children first, and leave the content."""
    at = ("snapshots", "--snapshotter", snapshotter)
    lines = [line.split() for line in rival.run_ctr(*at, "ls").splitlines()[1:]]
    parents = {words[0]: words[1] if len(words) > 2 else "" for words in lines}
    while parents:
        for name in set(parents) - set(parents.values()):
            run_quietly(rival.ctr(*at, "rm", name))  # or it was garbage
            del parents[name]

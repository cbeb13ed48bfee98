"""The command line of the storm: `python -m tests.storm --rounds 500`."""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from orlop.errors import ResourceExhausted
from tests.storm import points
from tests.storm.judging import judge
from tests.storm.work import Ledger, Rooms, Work

# What the sweep must come by, however the code is arranged: where storage can be torn.
_NAMED = {
    "the name of a blob": r"content\.files\.publish .*os\.link",
    "the row of a blob": r"content\.store\._record committed",
    "the row of a blob that was taken over": r"content\.store\._take committed",
    "the seal of a blob": r"content\.files\.seal .*os\.chmod",
    "the row of an image": r"images\.store\.create committed",
    "the commit of a snapshot": r"snapshots\.store\._?commit\w* committed",
    "the end of a snapshot": r"snapshots\.driver\.trash .*os\.rename",
    "what a collection has looked at": r"gc\.collector\.run DELETE",
    "what a collection deletes": r"content\.files\.doom .*os\.rename",
}
_STEPS = 12
_FAILED = 100  # exit status; below it, how often the disk was full
_ROOT_LIFE = 40  # rounds
_PATIENCE = 8  # rounds until a step is taken again: what is done is up to chance


def named(steps: Sequence[str]) -> list[str]:
    """The steps at which storage can be torn; LookupError where one is not among `steps`."""
    found = []
    for what, pattern in _NAMED.items():
        matching = [step for step in steps if re.fullmatch(pattern, step)]
        if not matching:
            raise LookupError(f"the work does not come by {what}, {pattern}: {steps}")
        found.append(matching[0])
    return found


class Storm:
    """Rounds of work and death on a store below `folder`; the ledgers are in another."""

    def __init__(self, folder: Path, ledgers: Path, seed: int) -> None:
        self._folder = folder
        self._ledgers = ledgers
        self._random = random.Random(seed)
        self._round = 0
        self.kills = 0
        self._renew()

    def _renew(self) -> None:
        self._root = self._folder / f"root-{self._round}"
        self._ledger = self._ledgers / f"ledger-{self._round}"
        Ledger(self._ledger)

    def names(self) -> list[str]:
        """The steps that work takes when nothing happens, in order, each once."""
        path = self._ledgers / "steps"
        with path.open("w") as file:
            self._work(lambda name: print(name, file=file))
        return list(dict.fromkeys(path.read_text().splitlines()))

    def kill_at(self, name: str) -> bool:
        """Die before a step; whether it came to that, at last."""
        return any(self._kill(lambda step: step == name) for _ in range(_PATIENCE))

    def kill_anywhere(self, steps: int) -> bool:
        """Die before any of about so many steps, or at any moment."""
        if self._random.random() < 0.3:
            return self._kill(lambda step: False, self._random.uniform(0.02, 0.3))
        left = self._random.randint(1, steps)

        def due(step: str) -> bool:
            nonlocal left
            left -= 1
            return left == 0

        return self._kill(due)

    def fill(self, free: int, *, files: bool = False) -> int:
        """Work while the disk has room for so many bytes, or files; how often that was too little.

        It must be said in so many words, and be all that happens.
        """
        disk = os.statvfs(self._folder)
        filler = self._folder / "filler"
        filler.mkdir()
        if files:
            for number in range(disk.f_favail - 1 - free):
                (filler / str(number)).touch()
        else:
            room = disk.f_bavail * disk.f_frsize - free
            with (filler / "large").open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, max(room, 1))
        try:
            status = self._work(lambda step: None, scarce=True)
        finally:
            shutil.rmtree(filler)
        assert os.WIFEXITED(status) and os.WEXITSTATUS(status) != _FAILED, f"{free} bytes free"
        self._judge()
        return os.WEXITSTATUS(status)

    def _kill(self, due: Callable[[str], bool], after: float = 0) -> bool:
        def react(step: str) -> None:
            if due(step):
                os.kill(os.getpid(), signal.SIGKILL)

        status = self._work(react, after)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        assert killed or status == 0, f"round {self._round} failed by itself"
        self.kills += killed
        self._judge()
        return killed

    def _judge(self) -> None:
        status = _forked(lambda: judge(self._root, self._ledger))
        assert status == 0, f"round {self._round}: {self._root} is not as promised"
        if self._round % _ROOT_LIFE == 0:
            shutil.rmtree(self._root)
            self._renew()

    def _work(self, react: points.React, after: float = 0, *, scarce: bool = False) -> int:
        self._round += 1
        seed = self._round

        def work() -> int:
            with ExitStack() as closing:
                try:
                    rooms = Rooms(self._root, closing)
                except ResourceExhausted:
                    return 1
                points.watch(react)
                work = Work(rooms, Ledger(self._ledger), seed)
                work.run(_STEPS)
                others = [e for e in work.failures if not isinstance(e, ResourceExhausted)]
                assert not others and (scarce or not work.failures), work.failures
                return min(len(work.failures), _FAILED - 1)

        return _forked(work, after)


def _forked(do: Callable[[], int | None], kill_after: float = 0) -> int:
    """Do it in a process of its own; how that ended, with what it returns as status."""
    pid = os.fork()
    if pid == 0:
        try:
            status = do() or 0
        except BaseException:  # noqa: BLE001 - nothing may come out of here
            traceback.print_exc()
            status = _FAILED
        os._exit(status)
    if kill_after:
        time.sleep(kill_after)
        os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.storm")
    parser.add_argument("--rounds", type=int, default=500, help="beyond one for each step")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    shm = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="orlop-storm-", dir=shm) as folder:
        storm = Storm(Path(folder), Path(folder), args.seed)
        names = storm.names()
        named(names)
        passed = [name for name in names if not storm.kill_at(name)]
        for _ in range(args.rounds):
            storm.kill_anywhere(10 * len(names))
    print(f"{len(names)} steps, {len(passed)} of them not taken again; killed {storm.kills} times")
    return 0


if __name__ == "__main__":
    sys.exit(main())

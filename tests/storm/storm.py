"""Rounds of work and death."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from orlop.errors import ResourceExhausted, Unavailable
from orlop.sys.mount import unmount_all
from tests.storm import points
from tests.storm.judging import judge, loops_below, read
from tests.storm.layers import LOOP
from tests.storm.neighbour import Neighbour
from tests.storm.rooms import PROXY, Rooms
from tests.storm.work import Ledger, Work

_STEPS = 18
_FAILED = 100  # exit status; below it, how often the disk was full
_ROOT_LIFE = 40  # rounds
_PATIENCE = 8  # rounds until a step is taken again: what is done is up to chance
_LOOKS = 4  # rounds, of which each does other things
_LONGEST = 0.6  # seconds until a death that waits for no step

Due = Callable[[str], bool]


def _nothing(step: str) -> None:
    del step


class Storm:
    """Rounds of work and death on a store below `folder`; what must outlive them is in another.

    With the snapshotter `PROXY`, a neighbour has a root of its own there. With `cut`, which cuts
    the power of the disk, it is the whole machine that dies.
    """

    def __init__(
        self,
        folder: Path,
        ledgers: Path,
        seed: int,
        snapshotters: Sequence[str],
        cut: Callable[[], None] | None = None,
    ) -> None:
        self._cut = cut
        self._folder = folder
        self._ledgers = ledgers
        self._random = random.Random(seed)
        self._seed = seed
        self._snapshotters = tuple(snapshotters)
        self._address = ledgers / "neighbour.sock"
        self._target = ledgers / "target"
        self._target.mkdir(exist_ok=True)
        self._round = 0
        self.kills = 0
        self._steps = 0  # in a round in which nothing happened
        self._renew()

    def _renew(self) -> None:
        self._root = self._folder / f"root-{self._round}"
        self._beside = self._folder / f"neighbour-{self._round}"
        self._ledger = self._ledgers / f"ledger-{self._round}"
        Ledger(self._ledger)

    def close(self) -> None:
        """Unmount what a failure has left."""
        for folder in (self._target, *self._folder.iterdir()):
            unmount_all(folder)

    def names(self) -> list[str]:
        """The steps that work takes when nothing happens, in order, each once."""
        return self._names(self._work)

    def names_beside(self) -> list[str]:
        """Those of the neighbour."""
        return self._names(lambda react: self._work(_nothing, beside=react))

    def _names(self, work: Callable[[points.React], int]) -> list[str]:
        path = self._ledgers / "steps"
        taken: list[str] = []
        for _ in range(_LOOKS):
            with path.open("w", buffering=1) as file:
                status = work(lambda name: print(name, file=file))
            assert status == 0, f"{self._where()} failed by itself"
            taken += path.read_text().splitlines()
        self._steps = max(self._steps, len(taken) // _LOOKS)
        return list(dict.fromkeys(taken))

    def kill_at(self, name: str) -> bool:
        """Die before a step; whether it came to that, at last."""
        return any(self._kill(lambda step: step == name) for _ in range(_PATIENCE))

    def kill_beside_at(self, name: str) -> bool:
        """Have the neighbour die before a step."""
        return any(self._kill_beside(lambda step: step == name) for _ in range(_PATIENCE))

    def kill_anywhere(self) -> bool:
        """Die before any step, or at any moment; or have the neighbour die."""
        if self._random.random() < 0.3:
            return self._kill(lambda step: False, self._random.uniform(0.02, _LONGEST))
        beside = PROXY in self._snapshotters and self._random.random() < 0.3
        left = self._random.randint(1, self._steps // 8 if beside else self._steps)

        def due(step: str) -> bool:
            nonlocal left
            left -= 1
            return left == 0

        return self._kill_beside(due) if beside else self._kill(due)

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
            _fill(filler / "large", disk.f_bavail * disk.f_frsize, free)
        try:
            status = self._work(_nothing, excused=(ResourceExhausted,))
        finally:
            shutil.rmtree(filler)
        assert os.WIFEXITED(status) and os.WEXITSTATUS(status) != _FAILED, f"{free} bytes free"
        self._judge()
        return os.WEXITSTATUS(status)

    def _kill(self, due: Due, after: float = 0) -> bool:
        status = self._work(_deadly(due), after)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        assert killed or status == 0, f"{self._where()} failed by itself"
        self.kills += killed
        if killed and self._cut is not None:
            self._cut()
            self._forget_fleeting()
        self._judge()
        return killed

    def _forget_fleeting(self) -> None:
        """No machine has mounts when it starts; and a write that is going on is not synced."""
        ledger = Ledger(self._ledger)
        for kind, *key in read(self._ledger):
            if kind in ("mount", "write"):
                ledger.tell("drop", kind, *key)
        for path in loops_below(self._ledgers):
            if Path(path).name.startswith(LOOP):
                subprocess.run(["losetup", "--detach", _device_of(path)], check=True)

    def _kill_beside(self, due: Due) -> bool:
        kills = self.kills
        status = self._work(_nothing, beside=_deadly(due), excused=(Unavailable,))
        assert os.WIFEXITED(status) and os.WEXITSTATUS(status) != _FAILED, self._where()
        self._judge()
        return self.kills > kills

    def _where(self) -> str:
        return f"seed {self._seed}, round {self._round}"

    def _judge(self) -> None:
        with self._neighbour():
            status = _forked(lambda: judge(self._root, self._opened, self._ledger, self._target))
        assert status == 0, f"{self._where()}: {self._root} is not as promised"
        if self._round % _ROOT_LIFE == 0:
            shutil.rmtree(self._root)
            shutil.rmtree(self._beside, ignore_errors=True)
            self._renew()

    def _work(
        self,
        react: points.React,
        after: float = 0,
        *,
        beside: points.React = _nothing,
        excused: tuple[type[Exception], ...] = (),
    ) -> int:
        self._round += 1
        seed = self._seed * 10_000 + self._round

        def work() -> int:
            points.watch(react)
            try:
                with self._opened() as rooms:
                    work = Work(
                        rooms,
                        Ledger(self._ledger),
                        self._target,
                        seed,
                        synced=self._cut is not None,
                    )
                    work.run(_STEPS)
            except ResourceExhausted:
                if ResourceExhausted in excused:
                    return 1
                raise
            others = [each for each in work.failures if not isinstance(each, excused)]
            assert not others, others
            return min(len(work.failures), _FAILED - 1)

        with self._neighbour(beside):
            status = _forked(work, after)
        unmount_all(self._target)  # what its clients had
        return status

    @contextmanager
    def _opened(self) -> Iterator[Rooms]:
        with ExitStack() as closing:
            yield Rooms(self._root, closing, self._snapshotters, self._address)

    @contextmanager
    def _neighbour(self, react: points.React = _nothing) -> Iterator[None]:
        if PROXY not in self._snapshotters:
            yield
            return
        with Neighbour(self._beside, self._address, react) as neighbour:
            yield
        self.kills += neighbour.killed


def _device_of(file: str) -> str:
    """The loop device that shows a file."""
    found = subprocess.run(
        ["losetup", "--noheadings", "--output", "NAME", "--associated", file],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return found.stdout.strip()


def _fill(path: Path, room: int, free: int) -> None:
    """Make a file that leaves so much; what a disk says that there is may not all be for files."""
    with path.open("wb", buffering=0) as file:
        while room > 0:
            try:
                os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), room)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                room //= 2
        file.truncate(max(file.seek(0, os.SEEK_END) - free, 0))


def _deadly(due: Due) -> points.React:
    def react(step: str) -> None:
        if due(step):
            os.kill(os.getpid(), signal.SIGKILL)

    return react


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

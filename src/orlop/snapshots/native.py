"""The native driver: a snapshot is a full copy of its parent; it works on every filesystem."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from orlop.errors import Internal, OrlopError, ResourceExhausted, Unavailable
from orlop.snapshots.driver import Driver
from orlop.snapshots.quota import UNLIMITED, Limits
from orlop.sys.mount import Mount
from orlop.sys.program import Program

_FULL = (errno.ENOSPC, errno.EDQUOT)
# cp keeps hard links, devices, xattrs and holes, and shares blocks where it can; it ends with us.
_COPY = ("setpriv", "--pdeathsig", "KILL", "cp", "-aT", "--reflink=auto")
_LONGEST = 24 * 3600.0
_STOPPED = "the daemon stops, and with it the copy of a snapshot"


class NativeDriver(Driver):
    """Folders `snapshots/<number>`, shown by bind mounts."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._lock = threading.Lock()
        self._copies: set[Program] = set()
        self._stopped = False
        # A copy of a daemon that was killed may be about to end: it must not write any more.
        with self._copying(fcntl.LOCK_EX):
            pass

    @contextmanager
    def _copying(self, kind: int) -> Iterator[int]:
        """A lock that is held as long as somebody has its descriptor."""
        fd = os.open(self.root / "copying", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, kind)
            yield fd
        finally:
            os.close(fd)

    def create(
        self,
        number: int,
        parents: Sequence[int],
        *,
        read_only: bool,
        limits: Limits = UNLIMITED,
    ) -> None:
        folder = self.folder(number)
        if read_only and parents:
            folder.mkdir(mode=0o755)  # a view shows the parent itself
            return
        folder.mkdir(mode=0o755)
        folder.chmod(0o755)
        if any(limits) and not read_only:
            self._quota.start(number, [str(folder)])  # before the copy, which must belong to it
        if parents:
            self._copy(parents[0], folder)
        if any(limits) and not read_only:
            self._quota.limit(number, limits)

    def _copy(self, parent: int, folder: Path) -> None:
        with self._copying(fcntl.LOCK_SH) as lock:
            with self._lock:
                if self._stopped:
                    raise Unavailable(_STOPPED)
                program = Program(
                    [*_COPY, str(self.folder(parent)), str(folder)],
                    b"",
                    env={**os.environ, "LC_ALL": "C"},
                    fds=(lock,),
                )
                self._copies.add(program)
            try:
                copy = program.result(_LONGEST)
            except OrlopError as error:
                raise type(error)(f"copy of snapshot {parent}: {error.message}") from None
            finally:
                with self._lock:
                    self._copies.discard(program)
        if copy.code:
            if self._stopped:
                raise Unavailable(_STOPPED)
            said = copy.stderr.decode(errors="replace").strip()
            full = any(os.strerror(each) in said for each in _FULL)
            failure = ResourceExhausted if full else Internal
            raise failure(f"copy of snapshot {parent}: {said or f'cp ended by {copy.code}'}")

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            copies = list(self._copies)
        for program in copies:
            program.kill()

    def content(self, number: int) -> Path:
        return self.folder(number)

    def mounts(self, number: int, parents: Sequence[int], *, read_only: bool) -> list[Mount]:
        shown = parents[0] if read_only and parents else number
        access = "ro" if read_only else "rw"
        return [Mount("bind", str(self.folder(shown)), options=("rbind", access))]

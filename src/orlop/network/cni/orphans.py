"""Plugins that outlive who has started them: a daemon is killed, and they work on to their end."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from pathlib import Path

_PAUSE = 0.05


class Orphans:
    """Tells whether plugins still run that an earlier owner of the file `path` has started.

    Each of them inherits `fd`, and with it a lock that ends with the last of them.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._before = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            self._before = -1
        path.unlink(missing_ok=True)
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self.fd, fcntl.LOCK_SH)

    def await_end(self, seconds: float) -> bool:
        """Wait until none of them runs any more; whether that is so within the time."""
        end = time.monotonic() + seconds
        while self._run():
            if time.monotonic() > end:
                return False
            time.sleep(_PAUSE)
        return True

    def _run(self) -> bool:
        with self._lock:
            if self._before < 0:
                return False
            try:
                fcntl.flock(self._before, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            os.close(self._before)
            self._before = -1
            return False

    def close(self) -> None:
        """Who waits does so no longer."""
        with self._lock:
            for fd in (self._before, self.fd):
                if fd >= 0:
                    os.close(fd)
            self._before = self.fd = -1

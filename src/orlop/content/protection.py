"""Blobs whose bytes the kernel proves: fs-verity, where it is wanted and possible."""

from __future__ import annotations

import errno
import logging
import time
from pathlib import Path

from orlop.sys import verity

_IMPOSSIBLE = (errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS)
_TRIES, _PAUSE = 50, 0.01  # seconds

_log = logging.getLogger(__name__)


class Protection:
    """Protects committed blobs as well as can be: it is no failure that one is not."""

    def __init__(self, *, wanted: bool = False) -> None:
        self._wanted = wanted

    def apply(self, path: Path) -> None:
        """Protect a blob that nobody has open to write; where that is impossible, try no more."""
        if not self._wanted:
            return
        try:
            _protect(path)
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOENT):
                return  # it is so already, or has gone
            self._wanted = error.errno not in _IMPOSSIBLE
            what = "blob" if self._wanted else "this filesystem cannot: no blob"
            _log.warning('%s is protected by fs-verity: "%s": %s', what, path, error.strerror)


def _protect(path: Path) -> None:
    """A program that is just being started has the descriptor of who wrote it for a moment."""
    for left in reversed(range(_TRIES)):
        try:
            verity.protect(path)
        except OSError as error:
            if error.errno != errno.ETXTBSY or not left:
                raise
            time.sleep(_PAUSE)
        else:
            return

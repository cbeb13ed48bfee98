"""libc by ctypes: call a function, raise OSError with errno and the paths it was about."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import Any

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.syscall.restype = ctypes.c_long
_M_ARENA_MAX = -8  # malloc.h


def call(name: str, *args: Any, about: str | None = None, about2: str | None = None) -> int:
    """Call the libc function `name`; raises OSError (errno, text, `about`, `about2`) on -1."""
    result = int(getattr(_LIBC, name)(*args))
    if result == -1:
        raise_errno(about, about2)
    return result


def bind(name: str, *types: Any) -> Callable[..., int]:
    """The libc function `name` with its argument types: quicker, and takes plain numbers."""
    function: Callable[..., int] = _LIBC[name]
    function.argtypes = types  # type: ignore[attr-defined]
    return function


def syscall(number: int, *args: Any, about: str | None = None) -> int:
    """Make system call `number`; raises OSError on -1."""
    result = int(_LIBC.syscall(ctypes.c_long(number), *args))
    if result == -1:
        raise_errno(about)
    return result


def raise_errno(about: str | None = None, about2: str | None = None) -> None:
    """Raise OSError for the errno that the last call left."""
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), about, None, about2)


def limit_arenas(count: int) -> None:
    """Let malloc keep at most `count` arenas, not eight for each core; before there are threads."""
    _LIBC.mallopt(_M_ARENA_MAX, count)


def path(value: str | os.PathLike[str]) -> bytes:
    """A path as the kernel takes it."""
    return os.fsencode(value)

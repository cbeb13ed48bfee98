"""The kernel's errors in words: the operation, the namespace, and the errno."""

from __future__ import annotations

import errno
import os

from orlop import errors
from orlop.network.operations import place

_CLASSES: dict[int, type[errors.OrlopError]] = {
    errno.EEXIST: errors.AlreadyExists,
    errno.EADDRINUSE: errors.AlreadyExists,
    errno.ENOENT: errors.NotFound,
    errno.ENODEV: errors.NotFound,
    errno.ENXIO: errors.NotFound,
    errno.ESRCH: errors.NotFound,
    errno.EADDRNOTAVAIL: errors.NotFound,
    errno.EPERM: errors.PermissionDenied,
    errno.EACCES: errors.PermissionDenied,
    errno.EINVAL: errors.InvalidArgument,
    errno.ERANGE: errors.InvalidArgument,
    errno.EOPNOTSUPP: errors.Unimplemented,
    errno.EAFNOSUPPORT: errors.Unimplemented,
    errno.ENOMEM: errors.ResourceExhausted,
    errno.ENOBUFS: errors.ResourceExhausted,
    errno.ENOSPC: errors.ResourceExhausted,
}


def error(about: str, ns: str, number: int, detail: str = "") -> errors.OrlopError:
    """What the kernel refused: `about` in the namespace `ns`, with errno `number`."""
    name = errno.errorcode.get(number, str(number))
    reason = os.strerror(number).lower()
    if detail and detail.lower() != reason:
        reason = f"{detail.rstrip('.')}: {reason}"
    return _CLASSES.get(number, errors.FailedPrecondition)(
        f"{about} in {place(ns)}: {reason} ({name})"
    )

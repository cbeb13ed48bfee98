"""Named network namespaces: each is pinned by a bind mount of its file in a folder."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from orlop.errors import AlreadyExists, FailedPrecondition, NotFound
from orlop.network.kernel import Kernel
from orlop.rpc.context import validate_identifier
from orlop.sys.mount import MNT_DETACH, UMOUNT_NOFOLLOW, unmount


class PinnedNamespaces:
    """The namespaces pinned below `folder`, by containerd namespace; they outlive the daemon.

    A pin that a crash has left half-made, a file with nothing mounted on it, does not count.
    """

    def __init__(self, folder: Path, kernel: Kernel) -> None:
        self.folder = folder
        self._kernel = kernel
        self._creating = threading.Lock()

    def create(self, namespace: str, name: str) -> Path:
        """Make one with nothing but lo, which is up; where it is pinned. Raises AlreadyExists."""
        path = self.folder / namespace / name
        with self._creating:
            self.check_free(namespace, name)
            _touch(path)
            try:
                self._kernel.pin(str(path))
            except BaseException:
                self._discard(path)  # the worker may have died behind it
                raise
        return path

    def check_free(self, namespace: str, name: str) -> None:
        """Raise AlreadyExists if there is one of that name; InvalidArgument if none can be."""
        validate_identifier("network namespace", name)
        if is_pinned(self.folder / namespace / name):
            raise AlreadyExists(f'network namespace "{name}"')

    def _discard(self, path: Path) -> None:
        if is_pinned(path):
            unmount(path, MNT_DETACH | UMOUNT_NOFOLLOW)
        path.unlink(missing_ok=True)
        with suppress(OSError):  # others are in there
            path.parent.rmdir()

    def reap(self) -> None:
        """Remove the files that a crash has left without a namespace."""
        for path in self._files():
            if not is_pinned(path):
                self._discard(path)

    def path(self, namespace: str, name: str) -> Path:
        """Where it is pinned; raises NotFound."""
        validate_identifier("network namespace", name)
        path = self.folder / namespace / name
        if not is_pinned(path):
            raise NotFound(f'network namespace "{name}"')
        return path

    def namespaces(self) -> list[str]:
        """The containerd namespaces in which some are pinned."""
        return sorted({path.parent.name for path in self._files()})

    def names(self, namespace: str) -> list[str]:
        return sorted(path.name for path in self._pins(namespace))

    def delete(self, namespace: str, name: str) -> None:
        """Take the pin away: the namespace ends with its last process. Raises NotFound."""
        path = self.path(namespace, name)
        try:
            self._discard(path)
        except OSError as error:
            raise FailedPrecondition(f'network namespace "{name}": {error}') from error

    def _pins(self, namespace: str) -> Iterator[Path]:
        validate_identifier("namespace", namespace)
        yield from filter(is_pinned, _entries(self.folder / namespace))

    def _files(self) -> Iterator[Path]:
        for folder in _entries(self.folder):
            yield from _entries(folder)


def _entries(folder: Path) -> Iterator[Path]:
    """None of one that has gone, with the last of its namespaces."""
    with suppress(FileNotFoundError, NotADirectoryError):
        yield from folder.iterdir()


def of_process(pid: int) -> str:
    """The path of the network namespace of a process."""
    return f"/proc/{pid}/ns/net"


def _touch(path: Path) -> None:
    while True:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            os.close(os.open(path, os.O_CREAT | os.O_RDONLY | os.O_CLOEXEC, 0o600))
        except FileNotFoundError:  # the last of the others has just taken the folder along
            continue
        return


def is_pinned(path: Path) -> bool:
    """Whether something is mounted on the file: then it is of another file system."""
    try:
        return path.lstat().st_dev != path.parent.lstat().st_dev
    except FileNotFoundError:
        return False

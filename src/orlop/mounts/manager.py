"""Activations: made whole or not at all, kept while something refers to them, found again."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from orlop.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    OrlopError,
    ResourceExhausted,
    Unimplemented,
)
from orlop.metadata import clock
from orlop.metadata.sweeping import Dead, Key
from orlop.mounts import handlers
from orlop.mounts.model import Activation, Active
from orlop.mounts.store import MountStore, Record
from orlop.mounts.transforms import Transforms
from orlop.sys.mount import Mount, mount_points

_log = logging.getLogger(__name__)

OF_CONTAINER = "containerd.io/gc.bref.container"
"""Label of an activation: it stays as long as the container of that name."""
_MOST = 255
_NAME_MAX = 4096


class MountManager:
    """The activations of all namespaces; each has a folder of its number in `folder`.

    What transforms create must be below one of `roots`. Usable from any thread.
    """

    def __init__(self, store: MountStore, folder: Path, roots: Sequence[Path]) -> None:
        self._making: set[int] = set()
        self._store = store
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder.resolve()  # as the table of mounts has it
        self._transforms = Transforms(roots)

    def reap(self) -> None:
        """Forget what a start of the machine, or the end of a daemon, has left half; at start."""
        whole, mounted = set(), set(mount_points(self._folder))
        for record in self._store.everything():
            if record.made is not None and all(
                handlers.is_there(Path(each.mount_point), mounted) for each in record.made.active
            ):
                whole.add(str(record.number))
                continue
            _log.info("namespace=%s mount=%s has gone", record.namespace, record.name)
            self._store.drop(record)
        for entry in self._folder.iterdir():
            if entry.name not in whole:
                self._clear_up(entry)

    # Activate

    def needed(self, mounts: Sequence[Mount]) -> bool:
        """Whether any of the mounts must be made here."""
        return self._first_left(mounts, temporary=False) is not None

    def activate(
        self,
        namespace: str,
        name: str,
        mounts: Sequence[Mount],
        own_labels: Mapping[str, str] | None = None,
        *,
        temporary: bool = False,
        lease: str = "",
    ) -> Activation:
        """Make those mounts that mount(2) alone cannot, and all before them, or all if `temporary`.

        What is left has templates filled in; of a temporary activation that is one bind mount.
        It stays while the lease, a label `containerd.io/gc.bref.*` or another reference keeps it.

        Raises Unimplemented when nothing is to be made here, AlreadyExists, InvalidArgument for
        options that make no sense, FailedPrecondition when a mount fails; nothing is left then.
        """
        if not 0 < len(name) <= _NAME_MAX:
            raise InvalidArgument(f"a mount's name has 1 to {_NAME_MAX} characters")
        if len(mounts) > _MOST:
            raise InvalidArgument(f'mount "{name}": {len(mounts)} mounts are more than {_MOST}')
        first_left = self._first_left(mounts, temporary=temporary)
        if first_left is None:
            raise Unimplemented(f'mount "{name}" needs nothing but mount(2)')
        # Noted in the same transaction: who finds the record knows.
        number = self._store.begin(namespace, name, own_labels or {}, lease, self._making.add)
        folder = self._folder / str(number)
        try:
            self._make_folder(name, folder)
            made = self._make(folder, mounts, first_left, temporary=temporary)
            made = Activation(name, made.active, made.system, dict(own_labels or {}))
            self._store.finish(number, made)
        except BaseException:
            self._clear_up(folder)
            self._store.drop(Record(number, namespace, name, None))
            raise
        finally:
            self._making.discard(number)
        return made

    def _is_being_made(self, record: Record) -> bool:
        """Rather than left so, by an activation that could not even be undone in the records."""
        return record.made is None and record.number in self._making

    @staticmethod
    def _make_folder(name: str, folder: Path) -> None:
        try:
            folder.mkdir(mode=0o700)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise ResourceExhausted(
                f'mount "{name}": no space left for "{folder}"; free some or enlarge the disk'
            ) from error

    def _first_left(self, mounts: Sequence[Mount], *, temporary: bool) -> int | None:
        """The first mount that is left to the caller; None when all of them are."""
        if temporary and mounts:
            return len(mounts)
        found = None
        for at, mount in enumerate(mounts):
            transforms, kind = self._transforms.split(mount.type)
            if kind in handlers.HANDLED:
                found = at + 1
            elif transforms:
                found = at
        return found

    def _make(
        self, folder: Path, mounts: Sequence[Mount], first_left: int, *, temporary: bool
    ) -> Activation:
        active: list[Active] = []
        for at, mount in enumerate(mounts[:first_left]):
            ready = self._transformed(mount, active)
            point = folder / str(at)
            handlers.make(ready, point)
            active.append(Active(ready, str(point), clock.now()))
        left = [self._transformed(mount, active) for mount in mounts[first_left:]]
        if temporary:
            left.append(Mount("bind", active[-1].mount_point, options=("rbind",)))
        return Activation("", tuple(active), tuple(left))

    def _transformed(self, mount: Mount, active: Sequence[Active]) -> Mount:
        transforms, kind = self._transforms.split(mount.type)
        for transform in transforms:
            mount = transform(mount, active)
        return mount._replace(type=kind)

    # The end

    def deactivate(self, namespace: str, name: str) -> None:
        """Unmount what an activation has made; who still uses the files can go on to.

        Raises NotFound, and FailedPrecondition while it is being made, or for what stays mounted.
        """
        record = self._store.get(namespace, name)
        if self._is_being_made(record):
            raise FailedPrecondition(f'mount "{name}" is being made')
        try:
            self._unmake(self._folder / str(record.number))
        except OSError as error:
            raise FailedPrecondition(f'mount "{name}" stays: {error}') from error
        self._store.drop(record)

    def collect(self, keys: Iterable[Key], dead: Dead) -> int:
        """Deactivate what nothing keeps; how many."""
        taken = self._store.take_dead(keys, dead, self._is_being_made)
        for record in taken:
            self._clear_up(self._folder / str(record.number))
        return len(taken)

    def _clear_up(self, folder: Path) -> None:
        """What stays is for the next `reap`."""
        try:
            self._unmake(folder)
        except OSError as error:
            _log.warning("mounts in %s stay: %s", folder, error)

    @staticmethod
    def _unmake(folder: Path) -> None:
        """Unmount all in an activation's folder, last made first; nothing there is no error."""
        with suppress(FileNotFoundError):
            points = [entry for entry in folder.iterdir() if entry.name.isdecimal()]
            for point in sorted(points, key=lambda each: int(each.name), reverse=True):
                handlers.undo(point)
            for rest in folder.iterdir():
                rest.unlink()
            folder.rmdir()

    # Of containers

    def activate_for(self, namespace: str, container: str, mounts: Sequence[Mount]) -> list[Mount]:
        """The mounts of a container's root filesystem, as its shim is to make them.

        An activation of the container's name that a client has made is used as it is.
        """
        if not self.needed(mounts):
            return list(mounts)
        try:
            known = self.info(namespace, container)
        except NotFound:
            pass
        else:
            if known.labels.get(OF_CONTAINER) != container:
                return list(known.system)
            self.release(namespace, container)  # an earlier task's, which did not come to be
        made = self.activate(namespace, container, mounts, {OF_CONTAINER: container})
        return list(made.system)

    def release(self, namespace: str, container: str) -> None:
        """Deactivate what was activated for a container; there may be nothing."""
        try:
            found = self.info(namespace, container)
            if found.labels.get(OF_CONTAINER) == container:
                self.deactivate(namespace, container)
        except NotFound:
            return
        except OrlopError as error:
            _log.warning("namespace=%s container=%s mounts stay: %s", namespace, container, error)

    # Find

    def info(self, namespace: str, name: str) -> Activation:
        """One activation; raises NotFound."""
        made = self._store.get(namespace, name).made
        if made is None:
            raise NotFound(f'mount "{name}" is being made')
        return made

    def list(self, namespace: str, wanted: Iterable[str] = ()) -> list[Activation]:
        """Those that any of the filters `wanted` match, by name; they see `name` and `labels`."""
        return self._store.list(namespace, wanted)

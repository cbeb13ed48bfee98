"""What a process does with the snapshots of one snapshotter, and with mounts of them."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import secrets
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask

from orlop.diff.apply import Limits, start_index
from orlop.fork.client import ForkServer
from orlop.snapshots import Kind
from orlop.snapshots.snapshotter import Extraction, Snapshotter
from orlop.sys.mount import MNT_DETACH, Mount, mount_all, unmount
from tests.layer_fixture import layer, member
from tests.storm.rooms import PROXY, Rooms
from tests.tree import describe

_LITTLE, _FEW = 256 * 1024, 20  # bytes, inodes
LOOP = "loop-"
"""What files of loop mounts begin with."""
ROOTED = {"containerd.io/gc.root": "here"}


class Layers:
    """Random things done to one snapshotter; it mounts at `target`. See `Work` for the rest."""

    def __init__(
        self,
        rooms: Rooms,
        snapshotter: str,
        target: Path,
        tell: Callable[..., None],
        chance: random.Random,
        name: Callable[[str], str],
        namespace: Callable[[], str],
        synced: bool,
    ) -> None:
        self._synced = synced
        self._rooms = rooms
        self._store: Snapshotter = rooms.snapshotters[snapshotter]
        self._target = target
        self._tell = tell
        self._random = chance
        self._name = name
        self._namespace = namespace

    def things(self) -> list[Callable[[], None]]:
        """What can be done, a call each."""
        things = [self._snapshot, self._mount, self._unmount, self._drop, self._forget]
        return [*things, self._extraction] if self._store.rebase else things

    def _snapshot(self) -> None:
        store, namespace = self._store, self._namespace()
        key, name = self._name("active"), self._name("snapshot")
        parent = self._any_committed(namespace)
        mounts = store.prepare(namespace, key, parent)
        digest = self._change(mounts, name)
        self._sync()
        store.commit(namespace, name, key, ROOTED)
        self._tell("snapshot", store.name, namespace, name, parent, digest)

    def _any_committed(self, namespace: str) -> str:
        listed = self._store.list(namespace)
        committed = [each.name for each in listed if each.kind is Kind.COMMITTED]
        return self._random.choice(committed) if committed and self._random.random() < 0.8 else ""

    def _change(self, mounts: Sequence[Mount], name: str) -> str:
        """Write, replace and delete some files; what there is then."""
        with mounted(mounts, self._target):
            folder = self._target / f"folder-{self._random.randint(1, 3)}"
            folder.mkdir(exist_ok=True)
            (folder / name).write_bytes(self._random.randbytes(self._random.randint(0, 9000)))
            os.link(folder / name, folder / f"{name}-again")
            os.setxattr(folder / name, "user.name", name.encode())
            changed = self._target / "file"
            changed.write_text(name)
            changed.chmod(self._random.choice([0o600, 0o4755]))
            (self._target / f"to-{name}").symlink_to(f"{folder.name}/{name}")
            old = sorted(path for path in folder.iterdir() if path.name != name)
            self._random.choice(old).unlink()
            os.utime(folder, (1, 1_500_000_000))
            return digest_of(self._target)

    def _extraction(self) -> None:
        store, namespace, name = self._store, self._namespace(), self._name("snapshot")
        extraction = store.extraction(namespace)
        try:
            _unpack(extraction, name, self._rooms.forks)
        except BaseException:
            extraction.discard()
            raise
        if self._random.random() < 0.3:
            extraction.discard()
            return
        self._sync()
        extraction.commit(name, "", ROOTED)
        digest = look(store, namespace, name, self._target)
        self._tell("snapshot", store.name, namespace, name, "", digest)

    def _sync(self) -> None:
        if self._synced:
            self._store.sync()

    def _drop(self) -> None:
        """Remove one that no other stands on."""
        namespace = self._namespace()
        listed = self._store.list(namespace)
        parents = {each.parent for each in listed}
        if leaves := [each.name for each in listed if each.name not in parents]:
            name = self._random.choice(leaves)
            self._tell("drop", "snapshot", self._store.name, namespace, name)
            self._store.remove(namespace, name)

    def _forget(self) -> None:
        """From now on one may be collected."""
        namespace = self._namespace()
        if listed := self._store.list(namespace):
            info = self._random.choice(listed)
            self._tell("drop", "snapshot", self._store.name, namespace, info.name)
            bare = type(info)(info.name, info.parent, info.kind, 0, 0, {})
            self._store.update(namespace, bare, FieldMask(paths=["labels"]))

    # Mounts by the daemon, held by a lease

    def _mount(self) -> None:
        namespace, name = self._namespace(), self._name("mount")
        lease = self._rooms.leases.create(namespace, name).id
        parent = self._any_committed(namespace)
        mounts = self._store.view(namespace, name, parent, {}, lease)
        self._rooms.mounts.activate(namespace, name, mounts, {}, temporary=True, lease=lease)
        self._tell("mount", namespace, name, "view")
        if self._store.name == PROXY:
            return
        image = Path(tempfile.mkstemp(prefix=LOOP, dir=self._target.parent)[1])
        image.write_bytes(bytes(1 << 16))
        loop = Mount("loop", str(image), options=("ro",))
        self._rooms.mounts.activate(namespace, f"{name}-loop", [loop], lease=lease)
        self._tell("mount", namespace, f"{name}-loop", "loop")

    def _unmount(self) -> None:
        namespace = self._namespace()
        if active := self._rooms.mounts.list(namespace):
            name = self._random.choice(active).name
            self._tell("drop", "mount", namespace, name)
            self._rooms.mounts.deactivate(namespace, name)


def _unpack(extraction: Extraction, name: str, forks: ForkServer) -> None:
    if not extraction.image:
        (extraction.path / "file").write_text(name)
        return
    with tempfile.TemporaryFile() as tar:
        tar.write(layer(member("file", name.encode())))
        tar.flush()
        tar.seek(0)
        with start_index(forks, tar.fileno(), extraction.path, limits=Limits()) as indexing:
            indexing.result()


@contextmanager
def mounted(mounts: Sequence[Mount], target: Path) -> Iterator[None]:
    try:
        mount_all(mounts, target)
    except OSError as error:  # it is this client that mounts, by whatever code
        raise OSError(error.errno, error.strerror, error.filename) from None
    try:
        yield
    except OSError as error:
        if error.errno == errno.EROFS and _is_full(target):
            # An overlay without room for its work folder is mounted all the same, to be read.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), error.filename) from None
        raise
    finally:
        unmount(target, MNT_DETACH)


def _is_full(target: Path) -> bool:
    left = os.statvfs(target)
    return left.f_bavail * left.f_frsize < _LITTLE or left.f_ffree < _FEW


def look(store: Snapshotter, namespace: str, name: str, target: Path) -> str:
    """What a committed snapshot shows."""
    key = f"look-{secrets.token_hex(8)}"
    with mounted(store.view(namespace, key, name), target):
        found = digest_of(target)
    store.remove(namespace, key)
    return found


def digest_of(folder: Path) -> str:
    """Of all files, with what `describe` tells of them."""
    told: dict[str, Any] = describe(folder)
    return hashlib.sha256(repr(sorted(told.items())).encode()).hexdigest()

"""Bundles: the folder of a running container, where shim and runtime find its spec.

`<state>/io.containerd.runtime.v2.task/<namespace>/<id>` holds

    config.json        the spec, byte for byte as the client sent it
    rootfs/            where the shim mounts the root filesystem
    work               a link to the container's folder below the daemon's root
    log                a fifo: the shim's log
    bootstrap.json     where the shim listens
    shim-binary-path   the shim's binary, or `orlop` for the shim built in
    shm/               where the memory of the container is mounted whose IPC it shares, if it does
    sandbox            the sandbox that the container is in, if it is in one

and what the shim leaves there. The layout is containerd's, which shims and tools know.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from orlop.errors import AlreadyExists, InvalidArgument, NotFound
from orlop.rpc.context import validate_identifier
from orlop.runtime.model import Endpoint
from orlop.sys.mount import unmount_all
from orlop.sys.removal import remove_tree

_log = logging.getLogger(__name__)

FOLDER = "io.containerd.runtime.v2.task"
MEMORY = "shm"
GROUPS = ("io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id")
"""Annotations of a spec whose value names the containers that share a shim."""


class Bundle:
    """One container's folder, `path`, and its working folder below the root, `work`.

    What is renamed and cannot be removed for now is added to `left`.
    """

    def __init__(self, path: Path, work: Path, left: list[Path]) -> None:
        self._left = left
        self.path = path
        self.work = work
        self.id = path.name
        self.namespace = path.parent.name

    @property
    def endpoint(self) -> Endpoint:
        """Where the container's shim listens; NotFound if that was never written."""
        try:
            facts = json.loads((self.path / "bootstrap.json").read_bytes())
            return Endpoint(int(facts["version"]), facts["address"], facts["protocol"])
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, TypeError) as error:
            raise NotFound(f'shim of "{self.id}": bootstrap.json is damaged ({error})') from None
        try:
            # All that shims before containerd 1.7 leave.
            return Endpoint(2, (self.path / "address").read_text().strip())
        except FileNotFoundError:
            raise NotFound(f'shim of "{self.id}"') from None

    @endpoint.setter
    def endpoint(self, value: Endpoint) -> None:
        facts = {"version": value.version, "address": value.address, "protocol": value.protocol}
        _write(self.path / "bootstrap.json", json.dumps(facts).encode())

    @property
    def shim(self) -> str | None:
        """The path of the shim's binary, or the mark of the built-in one; None if unknown."""
        try:
            return (self.path / "shim-binary-path").read_text()
        except FileNotFoundError:
            return None

    @shim.setter
    def shim(self, value: str) -> None:
        _write(self.path / "shim-binary-path", value.encode())

    def group(self) -> str:
        """The group of containers that share a shim, or "" for a container of its own."""
        text = (self.path / "config.json").read_bytes()
        if not any(name.encode() in text for name in GROUPS):
            return ""
        annotations = json.loads(text).get("annotations") or {}
        return next((annotations[name] for name in GROUPS if annotations.get(name)), "")

    @property
    def sandbox(self) -> str:
        """The sandbox that the container is in, or "" for one that is in none."""
        try:
            return (self.path / "sandbox").read_text()
        except FileNotFoundError:
            return ""

    @sandbox.setter
    def sandbox(self, value: str) -> None:
        _write(self.path / "sandbox", value.encode())

    def shares_shim(self) -> bool:
        """Whether its shim may serve others as well."""
        return bool(self.sandbox or self.group())

    def delete(self) -> None:
        """Unmount the root filesystem and remove both folders; idempotent.

        Renamed first, to a name that is no container's: a crash halfway leaves no half a bundle.
        Raises OSError, leaving everything, if what is mounted in there cannot be unmounted.
        """
        for name in ("rootfs", MEMORY):
            _remove_mount_point(self.path / name)
        hidden = self.path.with_name(f".{self.id}-{time.monotonic_ns()}")
        try:
            self.path.rename(hidden)
        except FileNotFoundError:
            pass
        else:
            _discard(hidden, self._left)
        _is_removed(self.work)


class Bundles:
    """The bundles below a state and a root folder."""

    def __init__(self, state: Path, root: Path, folder: str = FOLDER) -> None:
        self._state = state / folder
        self._root = root / folder
        self._left: list[Path] = []
        for each in (self._state, self._root):
            each.mkdir(mode=0o711, exist_ok=True)

    @property
    def folder(self) -> Path:
        """Where they are, as NAMESPACE/ID."""
        return self._state

    def create(self, namespace: str, id: str, spec: bytes) -> Bundle:
        """Make a container's bundle around its spec.

        Raises InvalidArgument for a bad id or a spec that is not a JSON object, and AlreadyExists.
        """
        validate_identifier("container", id)
        owner = _root_group(id, spec)
        for _ in range(len(self._left)):
            with suppress(IndexError):  # another thread is at it
                _discard(self._left.pop(0), self._left)
        bundle = self._bundle(namespace, id)
        for parent in (bundle.path.parent, bundle.work.parent):
            parent.mkdir(mode=0o711, exist_ok=True)
        try:
            bundle.path.mkdir(mode=0o700)
        except FileExistsError:
            raise AlreadyExists(f'bundle "{bundle.path}"') from None
        try:
            self._fill(bundle, spec, owner)
        except BaseException:
            bundle.delete()
            raise
        return bundle

    def _fill(self, bundle: Bundle, spec: bytes, owner: int) -> None:
        path = bundle.path
        if owner:
            # The container's root must be able to come through to its root filesystem.
            os.chown(path, -1, owner)
            path.chmod(0o710)
        _is_removed(bundle.work)
        bundle.work.mkdir(mode=0o711)
        (path / "work").symlink_to(bundle.work)
        (path / "rootfs").mkdir(mode=0o711)
        _write(path / "config.json", spec)
        os.mkfifo(path / "log", 0o700)

    def all(self) -> list[Bundle]:
        """Every bundle, of every namespace, after removing what crashes left: at start only."""
        found = []
        for namespace in _folders(self._state):
            for path in _folders(namespace):
                if path.name.startswith("."):
                    unmount_all(path)
                    _is_removed(path)
                else:
                    found.append(self._bundle(namespace.name, path.name))
        known = {bundle.work for bundle in found}
        for namespace in _folders(self._root):
            for work in _folders(namespace):
                if work not in known:
                    _is_removed(work)
        return found

    def _bundle(self, namespace: str, id: str) -> Bundle:
        return Bundle(self._state / namespace / id, self._root / namespace / id, self._left)


def _discard(folder: Path, left: list[Path]) -> None:
    if not _is_removed(folder):
        left.append(folder)


def _is_removed(folder: Path) -> bool:
    """Remove a folder, but never what is mounted in it: that stays, and so does the folder."""
    try:
        remove_tree(folder)
    except FileNotFoundError:
        pass  # another thread was quicker
    except OSError as error:
        _log.warning('"%s" stays: %s', folder, error)
        return False
    return True


def _folders(path: Path) -> Iterator[Path]:
    return (entry for entry in sorted(path.iterdir()) if entry.is_dir())


def _write(path: Path, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)


def _remove_mount_point(path: Path) -> None:
    """Remove a folder that may be mounted on, never what is mounted there."""
    try:
        path.rmdir()  # succeeds only on an empty folder with nothing mounted
    except FileNotFoundError:
        return
    except OSError:
        unmount_all(path)


def _root_group(id: str, spec: bytes) -> int:
    """The host's group id of a user-namespaced container's group 0; 0 without such a namespace."""
    try:
        document: Any = json.loads(spec)
        if not isinstance(document, dict):
            raise TypeError("it is not a JSON object")
        if b"gidMappings" not in spec:
            return 0
        for mapping in (document.get("linux") or {}).get("gidMappings") or ():
            start = mapping.get("containerID", 0)
            if start == 0 and mapping.get("size", 0) > 0:
                return int(mapping.get("hostID", 0))
    except (ValueError, TypeError, AttributeError) as error:
        raise InvalidArgument(f'spec of container "{id}" does not parse: {error}') from None
    return 0

"""Checkpoints of tasks: made by their shims, kept as content, and given to shims again."""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path
from typing import Protocol, TypeVar

from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError

from orlop.errors import InvalidArgument
from orlop.oci.descriptor import Descriptor
from orlop.rpc import CallContext
from orlop.rpc.convert import any_type, pack
from orlop.runtime.bundle import Bundle
from orlop.runtime.model import ContainerLookup
from orlop.runtime.task import Task
from orlop.wire.runc_pb2 import CheckpointOptions, Options

M = TypeVar("M", CheckpointOptions, Options)

IMAGES = "application/vnd.containerd.container.criu.checkpoint.criu.tar"
CONFIG = "application/vnd.containerd.container.checkpoint.config.v1+proto"


class Folders(Protocol):
    """Keeps folders and documents as content."""

    def save(self, folder: Path, media_type: str, ctx: CallContext) -> Descriptor: ...
    def put(self, data: bytes, media_type: str, ctx: CallContext) -> Descriptor: ...
    def load(self, wanted: Descriptor, folder: Path, ctx: CallContext) -> None: ...


_NETWORK = "network"


class Checkpoints:
    """Makes checkpoints, and finds the images that a task is to be restored from."""

    def __init__(self, containers: ContainerLookup, folders: Folders) -> None:
        self._containers = containers
        self._folders = folders

    def make(self, ctx: CallContext, task: Task, options: Any) -> list[Descriptor]:
        """The images of a task's processes, and its container's spec, as content.

        None where the options name a folder for the images: they stay there. Raises what the shim
        and its runtime refuse with; then the task goes on, and nothing is left.
        """
        path = _image_path(options)
        if path:
            if not path.startswith("/"):
                raise InvalidArgument(f'image path "{path}" is not an absolute path')
            task.checkpoint(ctx, path, options)
            return []
        container = self._containers.get(task.namespace, task.id)
        images = task.bundle.work / f"checkpoint-{secrets.token_hex(6)}"
        images.mkdir(mode=0o700)
        try:
            task.checkpoint(ctx, str(images), options)
            saved = self._folders.save(images, IMAGES, ctx)
        finally:
            shutil.rmtree(images, ignore_errors=True)
        spec = (container.spec or Any()).SerializeToString()
        return [saved, self._folders.put(spec, CONFIG, ctx)]

    def find(
        self, ctx: CallContext, bundle: Bundle, wanted: Descriptor | None, options: Any | None
    ) -> str:
        """The folder of the images that a new task is made from, "" for a fresh one.

        A folder in the runtime's options comes before a checkpoint in the content store, which is
        unpacked in the bundle and goes with it.
        """
        if path := _restore_path(options):
            return path
        if wanted is None:
            return ""
        if wanted.media_type != IMAGES:
            raise InvalidArgument(f'checkpoint of unsupported type "{wanted.media_type}"')
        images = bundle.work / "restore"
        images.mkdir(mode=0o700)
        self._folders.load(wanted, images, ctx)
        return str(images)


def without_network(packed: Any) -> Any:
    """The options of a checkpoint with nothing of its network namespace; InvalidArgument for
    another runtime's."""
    if packed.type_url and any_type(packed) != CheckpointOptions.DESCRIPTOR.full_name:
        raise InvalidArgument(f'checkpoint options of type "{packed.type_url}"')
    options = _parsed(packed, CheckpointOptions())
    if _NETWORK not in options.empty_namespaces:
        options.empty_namespaces.append(_NETWORK)
    return pack(options)


def _image_path(packed: Any) -> str:
    return _parsed(packed, CheckpointOptions()).image_path


def _restore_path(packed: Any | None) -> str:
    return "" if packed is None else _parsed(packed, Options()).criu_image_path


def _parsed(packed: Any, options: M) -> M:
    """The options if they are of that type; another runtime's have no folder that we know."""
    if any_type(packed) == options.DESCRIPTOR.full_name:
        try:
            options.ParseFromString(packed.value)
        except DecodeError:
            raise InvalidArgument(f"options of type {packed.type_url} do not parse") from None
    return options

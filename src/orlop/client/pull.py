"""Pull an image through the daemon's transfer service, with progress and credentials."""

from __future__ import annotations

import os
import queue
import secrets
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from google.protobuf.any_pb2 import Any as AnyMessage

from orlop.client.connection import Connection
from orlop.client.images import DEFAULT_SNAPSHOTTER
from orlop.errors import OrlopError
from orlop.oci import platform as platforms
from orlop.rpc.convert import pack
from orlop.wire import transfer_types_pb2 as types
from orlop.wire.services import streaming_pb2, transfer_pb2
from orlop.wire.types_pb2 import Platform


@dataclass(frozen=True, slots=True)
class Progress:
    """What the daemon says of one object: `name` is its ingest ref or empty for the pull itself."""

    event: str
    name: str
    done: int
    total: int


def pull_image(
    connection: Connection,
    name: str,
    *,
    platform: str = "",
    snapshotter: str = "",
    unpack: bool = True,
    plain_http: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> None:
    """Pull the image `name`, a full reference, and unpack it for `platform` (default: this host's).

    Raises what the daemon answers, such as NotFound for an unknown image or platform.
    """
    wanted = platforms.parse(platform) if platform else platforms.host()
    target = Platform(os=wanted.os, architecture=wanted.architecture, variant=wanted.variant)
    source = types.OCIRegistry(
        reference=name,
        resolver=types.RegistryResolver(default_scheme="http" if plain_http else ""),
    )
    destination = types.ImageStore(name=name, platforms=[target])
    if unpack:
        destination.unpacks.add(platform=target, snapshotter=snapshotter or DEFAULT_SNAPSHOTTER)
    options = transfer_pb2.TransferOptions()
    listener = ProgressStream(connection, on_progress) if on_progress else None
    if listener:
        options.progress_stream = listener.id
    try:
        connection.transfer.transfer(
            transfer_pb2.TransferRequest(
                source=pack(source), destination=pack(destination), options=options
            )
        )
    finally:
        if listener:
            listener.close()


class ProgressStream:
    """Progress on a named stream beside a call, read in a thread of its own."""

    def __init__(self, connection: Connection, on_progress: Callable[[Progress], None]) -> None:
        self.id = f"orlop-{os.getpid()}-{secrets.token_hex(4)}"
        self._on_progress = on_progress
        self._outgoing: queue.SimpleQueue[AnyMessage | None] = queue.SimpleQueue()
        self._outgoing.put(pack(streaming_pb2.StreamInit(id=self.id)))
        self._incoming = connection.streaming.stream(self._requests())
        next(self._incoming)  # the daemon knows the stream from here on
        self._thread = threading.Thread(target=self._read, name="orlop-progress", daemon=True)
        self._thread.start()

    def _requests(self) -> Iterator[AnyMessage]:
        while (message := self._outgoing.get()) is not None:
            yield message

    def _read(self) -> None:
        try:
            for message in self._incoming:
                self._tell(types.Progress.FromString(message.value))
        except OrlopError:
            pass  # the stream ends with the call, which tells how that went

    def _tell(self, message: types.Progress) -> None:
        self._on_progress(Progress(message.event, message.name, message.progress, message.total))

    def close(self) -> None:
        self._outgoing.put(None)
        self._thread.join(timeout=1)

"""Push an image through the daemon's transfer service."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from orlop.client.connection import Connection
from orlop.client.pull import Progress, ProgressStream
from orlop.oci import platform as platforms
from orlop.rpc.convert import pack
from orlop.wire import transfer_types_pb2 as types
from orlop.wire.services import transfer_pb2
from orlop.wire.types_pb2 import Platform


def push_image(
    connection: Connection,
    name: str,
    target: str = "",
    *,
    platform_names: Sequence[str] = (),
    plain_http: bool = False,
    auth_stream: str = "",
    on_progress: Callable[[Progress], None] | None = None,
) -> None:
    """Push the image `name` to the reference `target`, "" for the same.

    All platforms go, and must be here, unless some are named; a single one becomes a plain image.
    `auth_stream` is a stream on which the daemon may ask for credentials. Raises what the daemon
    answers, such as NotFound for an unknown image or one that is not here in full.
    """
    wanted = [platforms.parse(each) for each in platform_names]
    source = types.ImageStore(
        name=name,
        platforms=[
            Platform(os=each.os, architecture=each.architecture, variant=each.variant)
            for each in wanted
        ],
    )
    destination = types.OCIRegistry(
        reference=target or name,
        resolver=types.RegistryResolver(
            default_scheme="http" if plain_http else "", auth_stream=auth_stream
        ),
    )
    listener = ProgressStream(connection, on_progress) if on_progress else None
    options = transfer_pb2.TransferOptions(progress_stream=listener.id if listener else "")
    try:
        connection.transfer.transfer(
            transfer_pb2.TransferRequest(
                source=pack(source), destination=pack(destination), options=options
            )
        )
    finally:
        if listener:
            listener.close()

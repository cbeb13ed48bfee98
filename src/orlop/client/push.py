"""Push an image through the daemon's transfer service."""

from __future__ import annotations

from collections.abc import Sequence

from orlop.client.auth import Answer
from orlop.client.connection import Connection
from orlop.client.transfers import OnProgress, transfer, wire_platform
from orlop.wire import transfer_types_pb2 as types


def push_image(
    connection: Connection,
    name: str,
    target: str = "",
    *,
    platform_names: Sequence[str] = (),
    plain_http: bool = False,
    hosts_dir: str = "",
    answer: Answer | None = None,
    on_progress: OnProgress | None = None,
) -> None:
    """Push the image `name` to the reference `target`, "" for the same.

    All platforms go, and must be here, unless some are named; a single one becomes a plain image.
    `answer` gives credentials, see `orlop.client.auth`. Raises what the daemon answers, such as
    NotFound for an unknown image or one that is not here in full.
    """
    source = types.ImageStore(name=name, platforms=[wire_platform(each) for each in platform_names])
    destination = types.OCIRegistry(
        reference=target or name,
        resolver=types.RegistryResolver(
            default_scheme="http" if plain_http else "", host_dir=hosts_dir
        ),
    )
    transfer(connection, source, destination, answer=answer, on_progress=on_progress)

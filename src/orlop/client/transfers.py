"""A transfer with the streams that it needs beside it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from google.protobuf.message import Message

from orlop.client import images
from orlop.client.auth import Answer, AuthStream
from orlop.client.connection import Connection
from orlop.client.streams import Progress, ProgressStream
from orlop.errors import OrlopError
from orlop.oci import platform_rules
from orlop.rpc.convert import pack
from orlop.wire import transfer_types_pb2 as types
from orlop.wire.services import transfer_pb2
from orlop.wire.types_pb2 import Platform

OnProgress = Callable[[Progress], None]


def wire_platform(name: str = "") -> Platform:
    """`os/architecture[/variant]`, or "" for this machine."""
    if not name:
        found: platform_rules.Platform = platform_rules.here()
    else:
        from orlop.oci import platform

        found = platform.parse(name)
    return Platform(os=found.os, architecture=found.architecture, variant=found.variant)


def transfer(
    connection: Connection,
    source: Message,
    destination: Message,
    *,
    answer: Answer | None = None,
    on_progress: OnProgress | None = None,
) -> None:
    """Do it; the registry among the two gets its credentials from `answer`.

    Raises what the daemon answers, or why there was no answer to a question for credentials.
    """
    options = transfer_pb2.TransferOptions()
    with ExitStack() as stack:
        asked = None
        for end in (source, destination):
            if answer is not None and isinstance(end, types.OCIRegistry):
                asked = stack.enter_context(AuthStream(connection, answer))
                end.resolver.auth_stream = asked.id
        if on_progress is not None:
            listener = stack.enter_context(ProgressStream(connection, on_progress))
            options.progress_stream = listener.id
        try:
            connection.transfer.transfer(
                transfer_pb2.TransferRequest(
                    source=pack(source), destination=pack(destination), options=options
                )
            )
        except OrlopError as error:
            if asked is not None and asked.error is not None:
                raise asked.error from error
            raise


def tag(connection: Connection, name: str, other: str) -> None:
    """Let `other` name the image `name` too, whatever it named before. Raises NotFound."""
    labels = images.get(connection, name).labels
    transfer(connection, types.ImageStore(name=name), types.ImageStore(name=other, labels=labels))

"""Pull an image through the daemon's transfer service."""

from __future__ import annotations

from collections.abc import Sequence

from orlop.client.auth import Answer
from orlop.client.connection import Connection
from orlop.client.transfers import OnProgress, transfer, wire_platform
from orlop.wire import transfer_types_pb2 as types


def pull_image(
    connection: Connection,
    name: str,
    *,
    platform: str = "",
    platform_names: Sequence[str] = (),
    all_platforms: bool = False,
    snapshotter: str = "",
    unpack: bool = True,
    plain_http: bool = False,
    hosts_dir: str = "",
    answer: Answer | None = None,
    on_progress: OnProgress | None = None,
) -> None:
    """Pull the image `name`, a full reference, for some platforms, and unpack it for those.

    `platform` and `platform_names` say which (default: this machine's); with `all_platforms` all
    come, and it is unpacked for this machine's. `hosts_dir` is a folder of `hosts.toml` files to be
    used instead of the daemon's. `answer` gives credentials, see `orlop.client.auth`.

    Raises what the daemon answers, such as NotFound for an unknown image or platform.
    """
    wanted = [wire_platform(each) for each in (*platform_names, *filter(None, [platform]))]
    wanted = wanted or [wire_platform()]
    source = types.OCIRegistry(
        reference=name,
        resolver=types.RegistryResolver(
            default_scheme="http" if plain_http else "", host_dir=hosts_dir
        ),
    )
    destination = types.ImageStore(
        name=name, platforms=[] if all_platforms else wanted, all_metadata=all_platforms
    )
    for target in wanted if unpack else []:
        destination.unpacks.add(platform=target, snapshotter=snapshotter)
    transfer(connection, source, destination, answer=answer, on_progress=on_progress)

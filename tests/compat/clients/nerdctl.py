"""A container as nerdctl makes and removes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from google.protobuf.any_pb2 import Any as AnyMessage

from orlop.client import Connection
from orlop.client import images as client_images
from orlop.client.containers import RUNTIME, STOP_SIGNAL_LABEL
from orlop.wire.runc_pb2 import Options
from orlop.wire.services import containers_pb2
from orlop.wire.types_pb2 import Mount
from tests.compat.clients import work
from tests.compat.clients.peer import SNAPSHOTTER
from tests.daemon_fixture import BUSYBOX

NAME = "nerdctl/name"


class Container(NamedTuple):
    """A container as `nerdctl create` leaves it."""

    id: str
    mounts: list[Mount]
    spec: dict[str, Any]


def create(
    peer: Connection, name: str, *args: str, labels: Mapping[str, str] | None = None, **more: Any
) -> Container:
    """Its id is hexadecimal and long, its name is a label."""
    key = name.encode().hex().ljust(64, "0")
    image = client_images.view(peer, client_images.get(peer, BUSYBOX))
    mounts = work.prepare(peer, key, image.chain_id)
    own = {NAME: name, "nerdctl/namespace": peer.namespace, "nerdctl/hostname": key[:12],
           "nerdctl/networks": '["bridge"]', "nerdctl/platform": "linux/amd64",
           "nerdctl/extraHosts": "[]", STOP_SIGNAL_LABEL: "SIGTERM"}  # fmt: skip
    own |= labels or {}
    document = work.spec(peer.namespace, key, *args, annotations=own)
    document.update(more)
    options = AnyMessage(
        type_url="containerd.runc.v1.Options", value=Options(binary_name="runc").SerializeToString()
    )
    work.create_container(
        peer, key, document, image=BUSYBOX, snapshotter=SNAPSHOTTER, snapshot_key=key, labels=own,
        runtime=containers_pb2.Container.Runtime(name=RUNTIME, options=options),
        extensions={"nerdctl.io/mark": AnyMessage(type_url="any/thing", value=b"\x00\xffraw")},
    )  # fmt: skip
    return Container(key, mounts, document)


def remove(peer: Connection, id: str) -> None:
    """`nerdctl rm`: the record, and then its snapshot; one that is gone is fine."""
    work.delete_container(peer, id)
    work.remove(peer, id)

"""More containers and images than one message of ttrpc could tell of."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage

from orlop.client import Connection
from orlop.wire.services import containers_pb2, images_pb2
from orlop.wire.types_pb2 import Descriptor
from tests.daemon_fixture import Orlopd

pytestmark = pytest.mark.root

_NUMBER = 2000
_SPEC = b'{"process": {}, "annotations": {"long": "%b"}}' % (b"x" * 8000)
_LABELS = {"long": "x" * 4000}


@pytest.fixture
def crowd(orlopd: Orlopd) -> Iterator[Orlopd]:
    with orlopd.connect() as connection:
        for number in range(_NUMBER):
            _add(connection, number)
    yield orlopd


def _add(connection: Connection, number: int) -> None:
    name = f"test.example/many:{number}"
    target = Descriptor(
        media_type="application/vnd.oci.image.manifest.v1+json",
        digest=f"sha256:{number:064x}",
        size=1,
    )
    image = images_pb2.Image(name=name, labels=_LABELS, target=target)
    connection.images.create(images_pb2.CreateImageRequest(image=image))
    container = containers_pb2.Container(
        id=f"many-{number:04}",
        image=name,
        spec=AnyMessage(type_url="spec", value=_SPEC),
        runtime=containers_pb2.Container.Runtime(name="io.containerd.runc.v2"),
    )
    connection.containers.create(containers_pb2.CreateContainerRequest(container=container))


def test_what_lists_all_does_so(crowd: Orlopd) -> None:
    assert len(crowd.orlop("ps", "-aq").stdout.splitlines()) == _NUMBER
    assert len(crowd.orlop("images").stdout.splitlines()) == _NUMBER + 1
    assert crowd.orlop("stop", "many-001", check=False).stderr.startswith(
        'orlop: "many-001" begins the names of several containers: many-0010, '
    )
    assert crowd.orlop("stop", "many-1999").stdout == "many-1999\n"
    assert f" {_NUMBER} " in crowd.orlop("system", "df").stdout
    crowd.orlop("stats", "--no-stream")
    crowd.orlop("image", "prune", "-af")  # all are in use
    assert len(crowd.orlop("images").stdout.splitlines()) == _NUMBER + 1
    crowd.orlop("system", "prune", "-f")
    assert crowd.orlop("ps", "-aq").stdout == ""

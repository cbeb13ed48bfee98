from __future__ import annotations

import os
import re
import uuid
from pathlib import Path

import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.empty_pb2 import Empty

from orlop.errors import InvalidArgument, NotFound, Unavailable, Unimplemented
from orlop.introspection import Catalogue, Plugin, identity, plugins
from orlop.introspection.service import IntrospectionService, VersionService
from orlop.oci.descriptor import Platform
from orlop.rpc import CallContext, ServiceTable
from orlop.wire.services import introspection_pb2 as wire

LINUX = Platform(architecture="amd64", os="linux")
CTX = CallContext()
# https://semver.org, "Is there a suggested regular expression": numbers, then build identifiers.
SEMVER = re.compile(r"2\.\d+\.\d+\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*")


@pytest.fixture
def service() -> IntrospectionService:
    catalogue = Catalogue(
        [
            plugins.snapshotter(
                "overlayfs", Path("/data/overlayfs"), LINUX, capabilities=("rebase", "remap-ids")
            ),
            plugins.snapshotter(
                "erofs", Path("/data/erofs"), LINUX, error=Unavailable("kernel lacks erofs")
            ),
            Plugin("io.test", "mirror", info=lambda question: question),
        ]
    )
    return IntrospectionService(catalogue, "some-uuid")


def test_version_is_semver_of_a_containerd_2() -> None:
    ServiceTable(VersionService())
    answer = VersionService().version(Empty(), CTX)
    assert SEMVER.fullmatch(answer.version)
    assert answer.revision.startswith("orlop-")


def test_plugins(service: IntrospectionService) -> None:
    ServiceTable(service)
    overlay, erofs, _ = service.plugins(wire.PluginsRequest(), CTX).plugins
    assert (overlay.type, overlay.id) == ("io.containerd.snapshotter.v1", "overlayfs")
    assert overlay.exports == {"root": "/data/overlayfs"}
    assert [(p.os, p.architecture) for p in overlay.platforms] == [("linux", "amd64")]
    assert not overlay.HasField("init_err")
    assert erofs.init_err.code == 14
    assert erofs.init_err.message == "kernel lacks erofs: unavailable"


def test_plugin_filters(service: IntrospectionService) -> None:
    def ids(*filters: str) -> list[str]:
        return [p.id for p in service.plugins(wire.PluginsRequest(filters=filters), CTX).plugins]

    assert ids("id==overlayfs") == ["overlayfs"]
    assert ids("type~=snapshotter,id!=erofs", "type==io.test") == ["overlayfs", "mirror"]
    assert ids("capabilities~=remap-ids") == ["overlayfs"]
    assert ids('capabilities=="rebase,remap-ids"') == ["overlayfs"]
    with pytest.raises(InvalidArgument):
        ids("id==")


def test_plugin_info(service: IntrospectionService) -> None:
    request = wire.PluginInfoRequest(type="io.containerd.snapshotter.v1", id="erofs")
    assert service.plugin_info(request, CTX).plugin.id == "erofs"
    question = Any(type_url="q", value=b"1")
    request.options.CopyFrom(question)
    with pytest.raises(Unimplemented):
        service.plugin_info(request, CTX)
    mirror = wire.PluginInfoRequest(type="io.test", id="mirror", options=question)
    assert service.plugin_info(mirror, CTX).extra == question
    with pytest.raises(NotFound):
        service.plugin_info(wire.PluginInfoRequest(type="io.test", id="nope"), CTX)


def test_server(service: IntrospectionService) -> None:
    answer = service.server(Empty(), CTX)
    assert answer.uuid == "some-uuid"
    assert answer.pid == os.getpid()
    assert str(Path("/proc/self/ns/pid").readlink()) == f"pid:[{answer.pidns}]"


def test_the_uuid_outlives_restarts_and_a_bad_file(tmp_path: Path) -> None:
    first = identity.load(tmp_path)
    assert uuid.UUID(first).version == 4
    assert identity.load(tmp_path) == first
    (tmp_path / "uuid").write_text("torn")
    second = identity.load(tmp_path)
    assert second != first
    assert identity.load(tmp_path) == second
    assert [path.name for path in tmp_path.iterdir()] == ["uuid"]

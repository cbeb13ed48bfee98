"""`containerd.services.introspection.v1.Introspection` and `….version.v1.Version`."""

from __future__ import annotations

import os

from google.protobuf.empty_pb2 import Empty
from google.rpc.status_pb2 import Status

from orlop import __version__
from orlop.introspection import identity
from orlop.introspection.catalogue import Catalogue
from orlop.introspection.model import Plugin
from orlop.rpc import CallContext, Service
from orlop.wire import types_pb2
from orlop.wire.services import introspection_pb2 as wire
from orlop.wire.services import version_pb2

# The containerd release whose behaviour clients may expect: they parse the version as semver and
# compare it to know what the daemon can do. The build part says what it really is.
API_VERSION = "2.1.0"
VERSION = f"{API_VERSION}+orlop.{__version__}"
REVISION = f"orlop-{__version__}"


class VersionService(Service):
    """Answers every client's first question."""

    DESCRIPTOR = version_pb2.DESCRIPTOR.services_by_name["Version"]

    def version(self, request: Empty, ctx: CallContext) -> version_pb2.VersionResponse:
        return version_pb2.VersionResponse(version=VERSION, revision=REVISION)


class IntrospectionService(Service):
    """The thin face of the catalogue; `uuid` is `identity.load(root)`."""

    DESCRIPTOR = wire.DESCRIPTOR.services_by_name["Introspection"]

    def __init__(self, catalogue: Catalogue, uuid: str) -> None:
        self._catalogue = catalogue
        self._uuid = uuid

    def plugins(self, request: wire.PluginsRequest, ctx: CallContext) -> wire.PluginsResponse:
        plugins = self._catalogue.list(request.filters)
        return wire.PluginsResponse(plugins=map(_to_wire, plugins))

    def server(self, request: Empty, ctx: CallContext) -> wire.ServerResponse:
        return wire.ServerResponse(uuid=self._uuid, pid=os.getpid(), pidns=identity.pid_namespace())

    def plugin_info(
        self, request: wire.PluginInfoRequest, ctx: CallContext
    ) -> wire.PluginInfoResponse:
        plugin = _to_wire(self._catalogue.get(request.type, request.id))
        if not request.HasField("options"):
            return wire.PluginInfoResponse(plugin=plugin)
        answer = self._catalogue.ask(request.type, request.id, request.options)
        return wire.PluginInfoResponse(plugin=plugin, extra=answer)


def _to_wire(plugin: Plugin) -> wire.Plugin:
    error = plugin.error
    return wire.Plugin(
        type=plugin.type,
        id=plugin.id,
        requires=plugin.requires,
        platforms=[
            types_pb2.Platform(
                os=platform.os,
                architecture=platform.architecture,
                variant=platform.variant,
                os_version=platform.os_version,
                os_features=platform.os_features,
            )
            for platform in plugin.platforms
        ],
        exports=plugin.exports,
        capabilities=plugin.capabilities,
        init_err=None if error is None else Status(code=error.code, message=str(error)),
    )

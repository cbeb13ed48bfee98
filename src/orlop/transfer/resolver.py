"""The client for a registry that a transfer names, with the credentials that its caller has."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from orlop.oci import reference
from orlop.registry import Ask, Credentials, Http, RegistryClient, Silence, find_hosts
from orlop.rpc import CallContext
from orlop.rpc.convert import pack
from orlop.tally import Counter
from orlop.transfer.streams import Streams
from orlop.wire import transfer_types_pb2 as types


class Resolver:
    """Makes clients; their questions for credentials go to the streams of `streams`.

    `folders` are where the operator says which hosts serve a registry, the first that has it wins.
    """

    def __init__(self, streams: Streams, folders: Sequence[Path] = ()) -> None:
        self._streams = streams
        self._folders = folders
        self._silence = Silence()
        self.requests = Counter("host", "code")

    def http(self) -> Http:
        """Connections for the clients of one job; the caller closes it."""
        return Http(answered=self.requests.add)

    def client(
        self, namespace: str, registry: types.OCIRegistry, http: Http, ctx: CallContext
    ) -> RegistryClient:
        """Raises InvalidArgument for a malformed reference or hosts file, NotFound for a stream
        that is not there."""
        wanted = reference.parse(registry.reference)
        resolver = registry.resolver
        folders = [Path(resolver.host_dir)] if resolver.host_dir else self._folders
        hosts = find_hosts(folders, wanted.host, resolver.default_scheme, dict(resolver.headers))
        return RegistryClient(
            wanted,
            http=http,
            hosts=hosts,
            ask=self._asker(namespace, registry, ctx),
            silence=self._silence,
        )

    def _asker(self, namespace: str, registry: types.OCIRegistry, ctx: CallContext) -> Ask | None:
        """Credentials come from the client, over a stream of its own."""
        if not registry.resolver.auth_stream:
            return None
        stream = self._streams.get(namespace, registry.resolver.auth_stream)
        ctx.on_cancel(stream.close)
        one_at_a_time = threading.Lock()

        def ask(host: str, challenges: Sequence[str]) -> Credentials | None:
            question = types.AuthRequest(
                host=host, reference=registry.reference, wwwauthenticate=challenges
            )
            with one_at_a_time:
                stream.send(pack(question))
                answer = types.AuthResponse.FromString(stream.receive().value)
            if answer.authType == types.HEADER:
                return Credentials(header=answer.secret)
            if answer.authType == types.REFRESH:
                return Credentials(refresh_token=answer.secret)
            if answer.authType == types.NONE:
                return None
            return Credentials(answer.username, answer.secret)

        return ask

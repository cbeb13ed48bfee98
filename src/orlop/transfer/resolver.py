"""The client for a registry that a transfer names, with the credentials that its caller has."""

from __future__ import annotations

from collections.abc import Sequence

from orlop.oci import reference
from orlop.registry import Ask, Credentials, Http, RegistryClient
from orlop.rpc import CallContext
from orlop.rpc.convert import pack
from orlop.transfer.streams import Streams
from orlop.wire import transfer_types_pb2 as types


class Resolver:
    """Makes clients; their questions for credentials go to the streams of `streams`."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams

    def client(
        self, namespace: str, registry: types.OCIRegistry, http: Http, ctx: CallContext
    ) -> RegistryClient:
        """Raises InvalidArgument for a malformed reference, NotFound for an unknown stream."""
        return RegistryClient(
            reference.parse(registry.reference),
            http=http,
            scheme=registry.resolver.default_scheme,
            ask=self._asker(namespace, registry, ctx),
            headers=dict(registry.resolver.headers),
        )

    def _asker(self, namespace: str, registry: types.OCIRegistry, ctx: CallContext) -> Ask | None:
        """Credentials come from the client, over a stream of its own."""
        if not registry.resolver.auth_stream:
            return None
        stream = self._streams.get(namespace, registry.resolver.auth_stream)
        ctx.on_cancel(stream.close)
        host = reference.parse(registry.reference).host

        def ask(challenges: Sequence[str]) -> Credentials | None:
            stream.send(
                pack(
                    types.AuthRequest(
                        host=host, reference=registry.reference, wwwauthenticate=challenges
                    )
                )
            )
            answer = types.AuthResponse.FromString(stream.receive().value)
            if answer.authType == types.HEADER:
                return Credentials(header=answer.secret)
            if answer.authType == types.REFRESH:
                return Credentials(refresh_token=answer.secret)
            if answer.authType == types.NONE:
                return None
            return Credentials(answer.username, answer.secret)

        return ask

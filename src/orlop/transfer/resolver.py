"""The client for a registry that a transfer names, with the credentials that its caller has."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from orlop.errors import OrlopError
from orlop.oci import reference
from orlop.registry import Ask, Credentials, Http, RegistryClient, Silence, find_hosts
from orlop.registry.heads import Dump
from orlop.rpc import CallContext
from orlop.rpc.convert import pack
from orlop.tally import Counter
from orlop.transfer.bytestreams import ByteWriter
from orlop.transfer.streams import Streams
from orlop.wire import transfer_types_pb2 as types

_PATIENCE = 10.0  # seconds in which a client must take what it wants to be told

_log = logging.getLogger(__name__)


class Resolver:
    """Makes clients; their questions for credentials go to the streams of `streams`.

    `folders` are where the operator says which hosts serve a registry, the first that has it wins.
    """

    def __init__(self, streams: Streams, folders: Sequence[Path] = ()) -> None:
        self._streams = streams
        self._folders = folders
        self._silence = Silence()
        self.requests = Counter("host", "code")

    @contextmanager
    def client(
        self, namespace: str, registry: types.OCIRegistry, ctx: CallContext
    ) -> Iterator[RegistryClient]:
        """For one job, at whose end its connections are closed.

        Raises InvalidArgument for a malformed reference or hosts file, NotFound for a stream that
        is not there.
        """
        with (
            self._dumping(namespace, registry.resolver, ctx) as dump,
            Http(answered=self.requests.add, dump=dump) as http,
        ):
            yield self._client(namespace, registry, http, ctx)

    @contextmanager
    def _dumping(
        self, namespace: str, resolver: types.RegistryResolver, ctx: CallContext
    ) -> Iterator[Dump | None]:
        """What takes the heads of requests: the client's stream, or else the log."""
        if resolver.http_debug == types.DISABLED:
            yield None
        elif not resolver.logs_stream:
            yield _log.info
        else:
            stream = self._streams.get(namespace, resolver.logs_stream)
            with ByteWriter(stream, stall=_PATIENCE) as out:
                ctx.on_cancel(out.abort)
                yield _Told(out)
                with suppress(OrlopError):
                    out.finish()

    def _client(
        self, namespace: str, registry: types.OCIRegistry, http: Http, ctx: CallContext
    ) -> RegistryClient:
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


class _Told:
    """Writes to a client's stream, from any thread, until the client takes no more."""

    def __init__(self, out: ByteWriter) -> None:
        self._out = out
        self._lock = threading.Lock()
        self._over = False

    def __call__(self, text: str) -> None:
        with self._lock:
            if self._over:
                return
            try:
                self._out.write(text.encode(errors="replace"))
            except OrlopError:
                self._over = True  # the transfer goes on

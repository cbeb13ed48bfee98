"""A running shim, as the daemon sees it: one connection, with the Task API on it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Generic, Protocol, TypeVar

from google.protobuf.message import DecodeError, Message

from orlop import tracing
from orlop.errors import Internal, NotFound, OrlopError, Unavailable, Unimplemented
from orlop.rpc import CallContext
from orlop.rpc.reactor import Reactor
from orlop.rpc.spans import call_span
from orlop.rpc.ttrpc.client import TtrpcChannel
from orlop.runtime.model import Endpoint
from orlop.wire import task_v3_pb2 as task

# The messages of both versions are the same on the wire; those of version 3 serve for both.
_SERVICES = {2: "containerd.task.v2.Task", 3: "containerd.task.v3.Task"}
SHUTDOWN_TIMEOUT = 3.0
UNDO_TIMEOUT = 15.0
_ASK_AGAIN = 0.5

Answer = TypeVar("Answer", bound=Message)


class Killable(Protocol):
    """The shim's process while it is not settled that it works."""

    def kill(self) -> None: ...
    def close(self) -> None: ...


class Call(Protocol):
    """A call on its way, on either transport."""

    def result(self, timeout: float | None = None) -> bytes: ...
    def cancel(self) -> None: ...


class Channel(Protocol):
    """A connection to a shim, on either transport."""

    @property
    def lost(self) -> bool: ...
    @property
    def namespace_header(self) -> str: ...
    def begin(
        self,
        service: str,
        method: str,
        request: bytes,
        *,
        metadata: Mapping[str, str],
        timeout: float | None = None,
    ) -> Call: ...
    def close(self) -> None: ...


class PendingCall(Generic[Answer]):
    """A call on its way; `result` is asked for once."""

    def __init__(self, call: Call, answer: type[Answer]) -> None:
        self._call = call
        self._answer = answer

    def result(self, timeout: float | None = None) -> Answer:
        return _parsed(self._answer, self._call.result(timeout))


class Shim:
    """A connection to the shim at `endpoint`, for the containers of one namespace.

    `on_close` is called once, on a thread that must not wait, when the connection ends.
    """

    def __init__(
        self,
        namespace: str,
        endpoint: Endpoint,
        reactor: Reactor,
        on_close: Callable[[Shim], None],
        *,
        own: bool,
        process: Killable | None = None,
        timeout: float = 5.0,
    ) -> None:
        """Connect; OSError when nobody listens, Unimplemented for what this side does not speak.

        `own` tells the built-in shim from others. `process` is kept until `settle`.
        """
        self.namespace = namespace
        self.endpoint = endpoint
        self.closed = threading.Event()
        self.own = own
        self._process = process
        self._on_close = on_close
        self._version = 2 if endpoint.version == 2 else 3
        self._settled = False
        path = socket_path(endpoint.address)
        self._channel: Channel
        match endpoint.protocol:
            case "ttrpc":
                self._channel = TtrpcChannel.connect(path, reactor, self._closed, timeout)
            case "grpc":
                # Few shims speak gRPC, and its client library takes 15 MB and 0.1 s to load.
                from orlop.rpc.grpc.watched import WatchedChannel  # noqa: PLC0415

                self._channel = WatchedChannel(path, self._closed, timeout)
            case other:
                raise Unimplemented(f'shim protocol "{other}"')
        self._metadata = {self._channel.namespace_header: namespace}

    @property
    def lost(self) -> bool:
        """Whether the connection has ended, or is about to: `closed` follows."""
        return self._channel.lost

    def call(
        self,
        method: str,
        request: Message,
        answer: type[Answer],
        *,
        ctx: CallContext | None = None,
        timeout: float | None = None,
    ) -> Answer:
        """Make a call; it ends early, with Cancelled, when the call `ctx` does.

        Falls back to version 2 of the API once, for a shim that knows no other. Raises what the
        shim answers, Unavailable when it is lost and DeadlineExceeded after `timeout` seconds.
        """
        try:
            response = self._call(method, request, ctx, timeout)
        except Unimplemented:
            if self._settled or self._version == 2:
                raise
            self._version = 2
            response = self._call(method, request, ctx, timeout)
        self._settled = True
        return _parsed(answer, response)

    def ask(
        self,
        service: str,
        method: str,
        request: Message,
        answer: type[Answer],
        *,
        ctx: CallContext | None = None,
        timeout: float | None = None,
    ) -> Answer:
        """Make a call of another service than the Task API; as `call` otherwise."""
        return _parsed(answer, self._call(method, request, ctx, timeout, service))

    def _call(
        self,
        method: str,
        request: Message,
        ctx: CallContext | None,
        timeout: float | None,
        service: str = "",
    ) -> bytes:
        if ctx is not None:
            ctx.check()
        name = service or _SERVICES[self._version]
        with call_span(self.endpoint.protocol, name, method, tracing.CLIENT):
            call = self._begin(method, request, timeout, service)
            if ctx is not None:
                ctx.on_cancel(call.cancel)
                if timeout is None:
                    # Not every context is cancelled when its time is over.
                    timeout = ctx.remaining()
            return call.result(timeout)

    def begin(
        self, method: str, request: Message, answer: type[Answer], timeout: float
    ) -> PendingCall[Answer]:
        """Send a call whose answer is collected later."""
        return PendingCall(self._begin(method, request, timeout), answer)

    def _begin(
        self, method: str, request: Message, timeout: float | None, service: str = ""
    ) -> Call:
        return self._channel.begin(
            service or _SERVICES[self._version],
            method,
            request.SerializeToString(),
            metadata=self._metadata | tracing.headers(),
            timeout=timeout,
        )

    def pid(self, timeout: float) -> int:
        """The shim's own process id."""
        answer = self.call("Connect", task.ConnectRequest(), task.ConnectResponse, timeout=timeout)
        return answer.shim_pid

    def settle(self) -> None:
        """The shim works: it needs no killing any more."""
        process, self._process = self._process, None
        if process is not None:
            process.close()

    def undo_create(self, container: str) -> bool:
        """Have the built-in shim end a create that nobody waits for; whether it is undone."""
        try:
            self._call("Delete", task.DeleteRequest(id=container), None, UNDO_TIMEOUT)
        except NotFound:
            return True  # it failed by itself
        except OrlopError:
            return False
        return True

    def shutdown(self) -> bool:
        """Ask the shim to end, which it does when it has no container left; whether it answered.

        One that is not built in is asked until it goes: it may answer, and stay, as it has not come
        to the end of a delete that somebody else has asked for.
        """
        try:
            self._call("Shutdown", task.ShutdownRequest(), None, SHUTDOWN_TIMEOUT)
        except OrlopError:
            return self.closed.is_set()
        if not self.own:  # it still wants its bundle, and says goodbye by closing
            end = time.monotonic() + SHUTDOWN_TIMEOUT
            while not self.closed.wait(_ASK_AGAIN) and time.monotonic() < end:
                with suppress(OrlopError):
                    self._call("Shutdown", task.ShutdownRequest(), None, _ASK_AGAIN)
        return True

    def kill(self) -> None:
        """End a shim that did not settle, by force where that is possible."""
        if self._process is not None:
            self._process.kill()
            self.settle()
        self.close()

    def close(self) -> None:
        self._channel.close()

    def _closed(self) -> None:
        self.closed.set()
        self._on_close(self)


def _parsed(kind: type[Answer], payload: bytes) -> Answer:
    try:
        return kind.FromString(payload)
    except DecodeError:
        raise Internal(f"shim answers with what is no {kind.DESCRIPTOR.full_name}") from None


def socket_path(address: str) -> str:
    """The path to connect to; one without a scheme is a name in the abstract namespace."""
    scheme, separator, path = address.partition("://")
    if not separator:
        return f"\0{address}"
    if scheme != "unix":
        raise Unavailable(f'shim address "{address}": only unix:// is known')
    return path

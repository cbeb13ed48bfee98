"""The network worker's process: one request after another, each where it names.

It lives as long as it is asked to keep at hand, or for a while after the last request, but for no
more than some thousand of them, and dies with its daemon. Only here is pyroute2 loaded, which takes
a fifth of a second.
"""

from __future__ import annotations

import ctypes
import errno
import select
import socket
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from orlop import typed
from orlop.errors import Internal, OrlopError
from orlop.fork.worker import Report
from orlop.network import applying, failures, looking, messages
from orlop.network.firewall import xtables
from orlop.network.firewall.libnftables import Netfilter
from orlop.network.progress import Progress
from orlop.network.sockets import Namespaces
from orlop.sys.libc import call
from orlop.sys.mount import MS_BIND, mount
from orlop.sys.process import (
    CAP_DAC_OVERRIDE,
    CAP_NET_ADMIN,
    CAP_NET_RAW,
    CAP_SYS_ADMIN,
    CAP_SYS_PTRACE,
    CLONE_NEWNET,
    keep_capabilities,
    setns,
    unshare,
)

CAPABILITIES = (
    CAP_DAC_OVERRIDE,
    CAP_NET_ADMIN,
    CAP_NET_RAW,
    CAP_SYS_PTRACE,
    CAP_SYS_ADMIN,
)
REQUESTS = 5000
"""After as many another worker takes over: each socket leaves some kilobytes in pyroute2."""
_decode = typed.decoder(messages.AnyRequest).decode
_encode = msgspec.json.Encoder().encode


def serve(args: dict[str, Any], fds: list[int], report: Report) -> None:
    """Entry of the worker: answer requests on the stream `fds[0]` until it ends or nobody asks.

    `args["idle"]` is how many seconds it waits for a next one. `fds[1]` is a `Progress`.
    """
    keep_capabilities(CAPABILITIES)
    channel = socket.socket(fileno=fds[0])
    handler = Handler(Progress(fds[1]))
    waiting: float | None = args["idle"]
    for _ in range(REQUESTS):
        if not _readable(channel, waiting):
            break
        data = messages.receive(channel)
        if data is None:
            return
        request = _decode(data)
        waiting = None if request.keep else args["idle"]
        messages.send(channel, _encode(_answer(handler, request)))
    messages.send(channel, b"")


def _readable(channel: socket.socket, seconds: float | None) -> bool:
    return bool(select.select([channel], [], [], seconds)[0])


def _answer(handler: Handler, request: messages.AnyRequest) -> messages.Answer:
    try:
        value = handler.handle(request)
    except OrlopError as error:
        return messages.Answer(error=messages.Failure(error.code, error.message))
    except Exception as error:  # noqa: BLE001 - a defect must still be told, and not end the worker
        with suppress(OSError):
            traceback.print_exc()
        text = f"network worker: {type(error).__name__}: {error}"
        return messages.Answer(error=messages.Failure(Internal.code, text))
    return messages.Answer(value=msgspec.Raw(_encode(value)))


class Handler:
    """Does what requests ask, in this process."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._namespaces = Namespaces()
        self._netfilter: Netfilter | None = None

    def handle(self, request: messages.AnyRequest) -> object:
        """The answer's value; raises OrlopError."""
        try:
            return self._handle(request)
        finally:
            self._namespaces.release()

    def _handle(self, request: messages.AnyRequest) -> object:
        match request:
            case messages.Apply():
                applying.apply(self._namespaces, request.operations, self._progress)
            case messages.Look():
                return self._look(request)
            case messages.ReadSysctl():
                try:
                    return self._namespaces.read_sysctl(request.ns, request.name)
                except OSError as error:
                    raise _failure(f"read sysctl {request.name}", request.ns, error) from None
            case messages.Pin():
                self._pin(request.path)
            case messages.Filter():
                if self._netfilter is None:
                    self._netfilter = Netfilter()
                return self._netfilter.run(request.commands, check=request.check)
            case messages.SetChains():
                xtables.set_chains(request.version, request.chains, check=request.check)
            case messages.HasChains():
                return xtables.has_chains(request.version, request.chains)
            case messages.ForgetFlows():
                self._forget_flows(request.ports)
        return None

    def _look(self, request: messages.Look) -> object:
        look = getattr(looking, request.what)
        try:
            return look(self._namespaces, request.ns)
        except OSError as error:
            raise _failure(f"list {request.what}", request.ns, error) from None

    def _forget_flows(self, ports: Sequence[int]) -> None:
        from orlop.network import flows  # noqa: PLC0415 - few publish by UDP

        own = looking.every(self._namespaces.netlink("").get_addr)
        addresses = {each.get_attr("IFA_LOCAL") or each.get_attr("IFA_ADDRESS") for each in own}
        try:
            flows.forget(ports, addresses)
        except OSError as error:
            raise _failure("forget flows", "", error) from None

    def _pin(self, path: str) -> None:
        try:
            unshare(CLONE_NEWNET)
            try:
                mount("/proc/thread-self/ns/net", Path(path), "", MS_BIND)
                _loopback_up()
            finally:
                setns(self._namespaces.home, CLONE_NEWNET)
        except OSError as error:
            raise _failure("make it and pin it", path, error) from None


def _failure(about: str, ns: str, error: OSError) -> OrlopError:
    return failures.error(about, ns, error.errno or errno.EIO)


def _loopback_up() -> None:
    """By ioctl (netdevice(7)), which needs no netlink socket in the new namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = ctypes.create_string_buffer(b"lo".ljust(16, b"\0") + b"\x01\x00" + bytes(22))
        call("ioctl", any_socket.fileno(), ctypes.c_ulong(0x8914), request, about="lo up")

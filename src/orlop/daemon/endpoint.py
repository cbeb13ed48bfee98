"""Where the daemon shows something by HTTP: an address of the configuration, and who may come."""

from __future__ import annotations

import socket
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from orlop.daemon import listening
from orlop.daemon.config import Config, ConfigError, Grpc, Shown

# A configuration is checked before there are rooms, and who serves nothing pays nothing for it.
if TYPE_CHECKING:
    from orlop.web import Limits, Site

_BACKLOG = 16


def check(section: str, shown: Shown, what: str) -> None:
    """Raises ConfigError when `what` is to be shown and the section makes no sense or is not safe.

    It tells of every container: beyond this machine that takes a token or a certificate, or to say
    that everybody may read it.
    """
    if not shown.address:
        return
    keys = f"configuration: {section}"
    if bool(shown.cert) != bool(shown.key):
        raise ConfigError(f"{keys}.cert and {section}.key go together")
    if shown.client_ca and not shown.cert:
        raise ConfigError(f"{keys}.client_ca needs {section}.cert and {section}.key")
    if shown.address.startswith("/"):
        if shown.cert:
            raise ConfigError(f"{keys}.cert: a Unix socket has no TLS")
        return
    host, _ = listening.host_and_port(f"{section}.address", shown.address)
    guarded = shown.client_ca or shown.token
    if not (listening.is_loopback(host) or guarded or shown.public):
        raise ConfigError(
            f'{keys}.address "{shown.address}" is open to the network: set {section}.token or '
            f"{section}.client_ca, or {section}.public = true if everybody there may read {what}"
        )
    if shown.token and not (listening.is_loopback(host) or shown.cert):
        raise ConfigError(
            f'{keys}.token: on "{shown.address}" it would be sent in the clear; set '
            f"{section}.cert and {section}.key"
        )


class Endpoint:
    """Listens from the start, serves after `start`, until `close`.

    `name` is for the log and `what` for errors; `token` is for the site; a Unix socket is of the
    mode and the owners of the `clients'`. Raises FailedPrecondition when the address, a certificate
    or the token cannot be had.
    """

    def __init__(self, name: str, what: str, shown: Shown, clients: Grpc, limits: Limits) -> None:
        from orlop.web import HttpServer, Tls, Token  # noqa: PLC0415 - see above

        self.token = Token(shown.token, what)
        tls = Tls(shown.cert, shown.key, shown.client_ca).context(what) if shown.cert else None
        self._path = shown.address if shown.address.startswith("/") else ""
        if self._path:
            listener = _listen_unix(self._path, clients, what)
            self.address = self._path
        else:
            listener, self.address = _listen_tcp(name, shown.address, what)
        self._server = HttpServer(name, listener, tls, limits)

    def start(self, site: Site) -> None:
        self._server.start(site)

    def close(self) -> None:
        self._server.close()
        if self._path:
            with suppress(FileNotFoundError):
                Path(self._path).unlink()


def listen(
    name: str, what: str, shown: Shown, config: Config, limits: Limits, closing: ExitStack
) -> Endpoint:
    """An endpoint, until `closing`. Raises as it does."""
    endpoint = Endpoint(name, what, shown, config.grpc, limits)
    closing.callback(endpoint.close)
    return endpoint


def _listen_tcp(name: str, address: str, what: str) -> tuple[socket.socket, str]:
    from orlop.web.server import listen_tcp  # noqa: PLC0415 - see above

    host, port = listening.host_and_port(f"{name}.address", address)
    listener = listen_tcp(host, port, what)
    shown = f"[{host}]" if ":" in host else host
    return listener, f"{shown}:{listener.getsockname()[1]}"


def _listen_unix(path: str, clients: Grpc, what: str) -> socket.socket:
    from orlop.errors import FailedPrecondition  # noqa: PLC0415 - see above
    from orlop.rpc.dispatch import bind_unix  # noqa: PLC0415 - see above

    try:
        listener = bind_unix(Path(path), clients.mode, clients.uid, clients.gid)
    except OSError as error:
        raise FailedPrecondition(f'cannot serve {what} on "{path}": {error.strerror}') from error
    listener.listen(_BACKLOG)
    return listener

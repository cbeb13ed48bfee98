"""Through a SOCKS proxy (RFC 1928), by name and password where it wants them (RFC 1929)."""

from __future__ import annotations

import ipaddress
import socket

_VERSION, _PASSWORD_VERSION = 5, 1
_NO_AUTH, _PASSWORD = 0, 2
_CONNECT = 1
_IPV4, _NAME, _IPV6 = 1, 3, 4
_REASONS = (
    "",
    "general failure",
    "connection is not allowed",
    "network is unreachable",
    "host is unreachable",
    "connection was refused",
    "the time is over",
    "command is not supported",
    "address type is not supported",
)


def connect(sock: socket.socket, host: str, port: int, auth: str = "") -> None:
    """Let the proxy that `sock` is connected to connect it further; `auth` is NAME:PASSWORD.

    The proxy looks up names. Raises OSError, also when the proxy refuses.
    """
    methods = bytes([_NO_AUTH, _PASSWORD] if auth else [_NO_AUTH])
    sock.sendall(bytes([_VERSION, len(methods)]) + methods)
    version, method = _read(sock, 2)
    if version != _VERSION:
        raise OSError("proxy does not speak SOCKS 5")
    if method == _PASSWORD and auth:
        _log_in(sock, auth)
    elif method != _NO_AUTH:
        raise OSError("SOCKS proxy wants credentials, or other ones")
    sock.sendall(bytes([_VERSION, _CONNECT, 0]) + _address(host) + port.to_bytes(2, "big"))
    _, reply, _, kind = _read(sock, 4)
    if reply:
        reason = _REASONS[reply] if reply < len(_REASONS) else f"reply {reply}"
        raise OSError(f"SOCKS proxy cannot connect: {reason}")
    # The address that it uses, which is of no use here.
    length = {_IPV4: 4, _IPV6: 16}.get(kind) or _read(sock, 1)[0]
    _read(sock, length + 2)


def _log_in(sock: socket.socket, auth: str) -> None:
    name, _, password = auth.partition(":")
    sock.sendall(bytes([_PASSWORD_VERSION]) + _counted(name) + _counted(password))
    if _read(sock, 2)[1]:
        raise OSError("SOCKS proxy does not take the credentials")


def _address(host: str) -> bytes:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return bytes([_NAME]) + _counted(host)
    return bytes([_IPV4 if address.version == 4 else _IPV6]) + address.packed


def _counted(text: str) -> bytes:
    data = text.encode()
    if not 0 < len(data) < 256:
        raise OSError("host, user or password is empty or too long for a SOCKS proxy")
    return bytes([len(data)]) + data


def _read(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = sock.recv(count - len(data))
        if not piece:
            raise OSError("SOCKS proxy hangs up")
        data += piece
    return data

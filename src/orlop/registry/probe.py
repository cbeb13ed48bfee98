"""Which of http and https a server on this machine speaks."""

from __future__ import annotations

import socket
import ssl
from urllib.parse import urlsplit

from orlop.errors import Unavailable

_WAIT = 10.0  # seconds
# The content types of TLS records that answer a hello: a handshake, or an alert (RFC 8446, 5.1).
_TLS_RECORDS = (b"\x16", b"\x15")


def speaks_tls(address: str) -> bool:
    """Whether host[:port] answers the hello of TLS; not so when nobody listens.

    Raises Unavailable when somebody does, and says nothing.
    """
    parts = urlsplit(f"//{address}")
    try:
        with socket.create_connection((parts.hostname, parts.port or 443), _WAIT) as connection:
            connection.sendall(_hello())
            return connection.recv(1) in _TLS_RECORDS
    except TimeoutError:
        raise Unavailable(f'registry "{address}" says nothing for {_WAIT:.0f} seconds') from None
    except OSError:
        return False


def _hello() -> bytes:
    settings = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    settings.check_hostname = False
    received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        settings.wrap_bio(received, sent).do_handshake()
    except ssl.SSLWantReadError:
        pass
    return sent.read()

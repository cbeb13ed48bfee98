"""TLS as a server of this machine does it."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from orlop.errors import FailedPrecondition


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files. With `client_ca`, every client must show a certificate that it has signed."""

    cert: str
    key: str
    client_ca: str = ""

    def context(self, whose: str) -> ssl.SSLContext:
        """Raises FailedPrecondition for files that are no certificates; `whose` says what for."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self.cert, self.key or None)
            if self.client_ca:
                context.load_verify_locations(self.client_ca)
                context.verify_mode = ssl.CERT_REQUIRED
        except (OSError, ssl.SSLError) as error:
            names = ", ".join(f'"{each}"' for each in (self.cert, self.key, self.client_ca) if each)
            raise FailedPrecondition(f"certificates of {whose}, {names}: {error}") from error
        return context

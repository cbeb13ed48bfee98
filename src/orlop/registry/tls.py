"""TLS contexts by the settings of a host."""

from __future__ import annotations

import ssl

import urllib3
from urllib3.exceptions import InsecureRequestWarning

from orlop.errors import InvalidArgument
from orlop.registry.host import Tls


def context(settings: Tls) -> ssl.SSLContext:
    """The context for some settings; InvalidArgument for files that are of no use."""
    made = ssl.create_default_context()
    for file in settings.ca:
        try:
            made.load_verify_locations(cafile=file)
        except (OSError, ssl.SSLError) as error:
            raise InvalidArgument(f'"{file}" holds no certificates to trust: {error}') from None
    for certificate, key in settings.client:
        try:
            made.load_cert_chain(certificate, key or None)
        except (OSError, ssl.SSLError) as error:
            raise InvalidArgument(
                f'"{certificate}" and "{key or certificate}" are no certificate and key: {error}'
            ) from None
    if settings.skip_verify:
        urllib3.disable_warnings(InsecureRequestWarning)  # it is meant so
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    return made

from __future__ import annotations

from typing import Any

import pytest

from orlop.daemon.config import ConfigError, Serve
from orlop.daemon.registry import check

TLS: dict[str, Any] = {"cert": "/c.pem", "key": "/k.pem"}


@pytest.mark.parametrize(
    "settings",
    [
        Serve(),
        Serve(address="127.0.0.1:5000", push=True),
        Serve(address="[::1]:5000"),
        Serve(address="localhost:5000"),
        Serve(address="192.0.2.1:5000", plain_http=True),
        Serve(address="0.0.0.0:443", **TLS),
        Serve(address="0.0.0.0:443", push=True, name="node1.example", client_ca="/a.pem", **TLS),
    ],
)
def test_registries_that_are_safe_to_open(settings: Serve) -> None:
    check(settings)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (Serve(address="5000"), "host:port"),
        (Serve(address="127.0.0.1:66000"), "host:port"),
        (Serve(address="node1:5000"), "IP address"),
        (Serve(address="192.0.2.1:5000"), "plain_http"),
        (Serve(address="127.0.0.1:5000", cert="/c.pem"), "go together"),
        (Serve(address="127.0.0.1:5000", client_ca="/c.pem"), "client_ca needs"),
        (Serve(address="127.0.0.1:5000", plain_http=True, **TLS), "exclude"),
        (Serve(address="192.0.2.1:443", push=True, **TLS), "client_ca"),
        (Serve(address="192.0.2.1:5000", push=True, plain_http=True), "client_ca"),
        (Serve(address="0.0.0.0:443", push=True, client_ca="/a.pem", **TLS), "serve.name"),
    ],
)
def test_others_say_what_is_missing(settings: Serve, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(settings)
    assert complaint in str(caught.value)

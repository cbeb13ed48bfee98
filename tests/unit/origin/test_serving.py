from __future__ import annotations

import socket
import ssl
import time
from contextlib import closing
from pathlib import Path

import pytest

from orlop.errors import FailedPrecondition, InvalidArgument
from orlop.origin import Tls
from tests.origin_fixture import NAMESPACE, Starting
from tests.patience import patient
from tests.registry_fixture import make_certificates


def test_a_port_that_is_taken(starting: Starting) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(FailedPrecondition, match=f"127.0.0.1:{port}"):
            starting(port=port)


def test_a_certificate_that_is_none(starting: Starting, tmp_path: Path) -> None:
    bad = tmp_path / "bad.pem"
    bad.write_text("nothing")
    with pytest.raises(FailedPrecondition, match=r"bad\.pem"):
        starting(tls=Tls(str(bad), str(bad)))


def test_a_name_that_no_image_can_have(starting: Starting) -> None:
    with pytest.raises(InvalidArgument, match="node1"):
        starting(name="node1")


def test_images_are_named_by_the_address_unless_told(starting: Starting) -> None:
    node = starting(name="", push=True)
    place = str(node.ask("POST", "/v2/a/blobs/uploads/").headers["Location"])
    session = place.rpartition("/")[2]
    refs = [each.ref for each in node.content.statuses(NAMESPACE)]
    assert refs == [f"registry-push/127.0.0.1:{node.port}/a/{session}"]


def test_tls_with_clients_that_say_nothing(starting: Starting, tmp_path: Path) -> None:
    """They keep nobody else from being served, nor the server from stopping."""
    made = make_certificates(tmp_path)
    node = starting(tls=Tls(str(made.server), str(made.server_key)))
    with closing(socket.create_connection(("127.0.0.1", node.port), timeout=10)) as silent:
        context = ssl.create_default_context(cafile=str(made.ca))
        plain = socket.create_connection(("127.0.0.1", node.port), timeout=10)
        with context.wrap_socket(plain, server_hostname="127.0.0.1") as client:
            client.sendall(b"GET /v2/ HTTP/1.1\r\nConnection: close\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200 OK")
        began = time.monotonic()
        node.origin.close()
        assert time.monotonic() - began < patient(8)
        assert silent.recv(1) == b""

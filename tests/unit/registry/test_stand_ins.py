"""Mirrors that are away, break off or lie, and a registry that is well; hosts.toml as it is found
on machines that had containerd."""

from __future__ import annotations

import json
import logging
import random
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from orlop.errors import (
    DataLoss,
    InvalidArgument,
    NotFound,
    OrlopError,
    Unauthenticated,
    Unavailable,
)
from orlop.oci import reference
from orlop.oci.descriptor import Descriptor
from orlop.registry import Http, RegistryClient, Silence, find_hosts
from orlop.registry.host import Capability, Host
from tests.lying_registry import INDEX, MANIFEST, Registry, digest_of, send
from tests.patience import patient
from tests.registry_fixture import free_port

FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"


@pytest.fixture
def mirror() -> Iterator[Registry]:
    made = Registry()
    yield made
    made.close()


@contextmanager
def _client(*hosts: Host, silence: Silence | None = None) -> Iterator[RegistryClient]:
    with Http() as http:
        wanted = reference.parse("example.com/x/y:latest")
        yield RegistryClient(wanted, http=http, hosts=hosts, silence=silence)


def _hosts(*registries: Registry) -> list[Host]:
    return [Host("http", each.host) for each in registries]


def _blob(*registries: Registry, media_type: str = "x/y") -> tuple[bytes, Descriptor]:
    data = random.Random(1).randbytes(200_000)
    for each in registries:
        each.put(data)
    digest = Registry.put(registries[0], data)["digest"]
    return data, Descriptor(media_type=media_type, digest=digest, size=len(data))


def _read(client: RegistryClient, wanted: Descriptor) -> bytes:
    with closing(client.open_blob(wanted)) as stream:
        return b"".join(stream)


# A host to which there is no connection


@contextmanager
def _full() -> Iterator[str]:
    """Somebody whose backlog is full: the kernel leaves further connections unanswered."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        fill = [socket.socket() for _ in range(4)]
        for each in fill:
            each.setblocking(False)
            each.connect_ex(server.getsockname())
        yield f"127.0.0.1:{server.getsockname()[1]}"
        for each in fill:
            each.close()


def test_a_mirror_that_drops_packets_is_dialled_once(lying: Registry, tmp_path: Path) -> None:
    lying.image()
    requests: list[tuple[str, str]] = []
    silence = Silence()
    with _full() as dead:
        (tmp_path / "example.com").mkdir()
        (tmp_path / "example.com/hosts.toml").write_text(
            f'server = "http://{lying.host}"\n[host."http://{dead}"]\ndial_timeout = "200ms"\n'
        )
        began = time.monotonic()
        for _ in range(2):
            with Http(answered=lambda host, code: requests.append((host, code))) as http:
                hosts = find_hosts([tmp_path], "example.com")
                client = RegistryClient(
                    reference.parse("example.com/x/y:latest"),
                    http=http, hosts=hosts, silence=silence,
                )  # fmt: skip
                assert client.resolve().media_type == MANIFEST
        assert time.monotonic() - began < patient(10)  # 15 s is what one try takes otherwise
    assert requests == [(dead, "error"), (lying.host, "200"), (lying.host, "200")]


def test_the_last_host_is_worth_more_than_one_try(tmp_path: Path) -> None:
    requests = []
    dead = [Host("http", f"127.0.0.1:{free_port()}") for _ in range(2)]
    with Http(answered=lambda host, _: requests.append(host)) as http:
        client = RegistryClient(reference.parse("example.com/x:1"), http=http, hosts=dead)
        with pytest.raises(Unavailable, match="before that"):
            client.resolve()
    assert requests == [dead[0].name] + [dead[1].name] * 5


def test_a_registry_that_is_asked_before_a_silent_mirror_is_dialled_once(lying: Registry) -> None:
    lying.image()
    registry, mirror = Host("http", f"127.0.0.1:{free_port()}"), Host("http", lying.host)
    silence, requests = Silence(), []
    silence.note(mirror)
    with Http(answered=lambda host, _: requests.append(host)) as http:
        wanted = reference.parse("example.com/x/y:latest")
        hosts = [mirror, registry]
        client = RegistryClient(wanted, http=http, hosts=hosts, silence=silence)
        assert client.resolve().media_type == MANIFEST
    assert requests == [registry.name, mirror.name]


def test_who_was_not_silent_is_waited_for_if_nobody_answers() -> None:
    mirror, registry = (Host("http", f"127.0.0.1:{free_port()}") for _ in range(2))
    silence, requests = Silence(), []
    silence.note(mirror)
    with Http(answered=lambda host, _: requests.append(host)) as http:
        wanted = reference.parse("example.com/x:1")
        client = RegistryClient(wanted, http=http, hosts=[mirror, registry], silence=silence)
        with pytest.raises(Unavailable, match=f'^registry "{registry.name}".*before that'):
            client.resolve()
        assert requests == [registry.name, mirror.name] + [registry.name] * 5
        requests.clear()
        with pytest.raises(Unavailable):
            client.resolve()
        assert requests == [mirror.name, registry.name]


def test_silence_is_of_one_registry_behind_a_proxy() -> None:
    silence = Silence()
    one = Host("https", "proxy", prefix="/docker/v2", namespace="docker.io")
    silence.note(one)
    assert one in silence
    assert Host("https", "proxy", prefix="/quay/v2", namespace="docker.io") not in silence
    assert Host("https", "proxy", prefix="/docker/v2", namespace="quay.io") not in silence


# A host that wants to be asked later


@pytest.mark.parametrize("status", [429, 503])
def test_a_mirror_that_is_busy_holds_nobody_up(
    lying: Registry, mirror: Registry, status: int
) -> None:
    for each in (lying, mirror):
        each.image()
    mirror.spoil = lambda r: send(r, status, b"", {"Retry-After": "60"})
    silence = Silence()
    for count in (1, 2):  # nor is it silent: it is asked first the next time, too
        with _client(*_hosts(mirror, lying), silence=silence) as client:
            client.resolve()
        assert (len(mirror.requests), len(lying.requests)) == (count, count)


def test_a_busy_mirror_is_waited_for_if_there_is_nobody_else(mirror: Registry) -> None:
    mirror.image()
    left = iter(range(2))
    mirror.spoil = lambda r: (
        next(left, None) is not None and send(r, 429, b"", {"Retry-After": "4"})
    )
    with _client(*_hosts(mirror), Host("http", f"127.0.0.1:{free_port()}")) as client:
        assert client.resolve().media_type == MANIFEST
    assert len(mirror.requests) == 3


# A host that answers, but not with the blob


@pytest.mark.parametrize("how", ["cut", "longer", "shorter", "elsewhere"])
def test_another_takes_over(lying: Registry, mirror: Registry, how: str) -> None:
    data, wanted = _blob(lying, mirror)

    def spoil(request: BaseHTTPRequestHandler) -> bool:
        if how == "cut":
            return send(request, 200, data, cut=0)
        if how == "elsewhere":
            return send(request, 206, data[7:], {"Content-Range": f"bytes 7-/{len(data)}"})
        return send(request, 200, data + b"x" if how == "longer" else data[:-1])

    mirror.spoil = spoil
    with _client(*_hosts(mirror, lying)) as client:
        assert _read(client, wanted) == data
        assert len(mirror.requests) == (2 if how == "cut" else 1)
        assert _read(client, wanted) == data  # of whom the other is asked first from then on
    assert len(mirror.requests) == (2 if how == "cut" else 1)


def test_who_breaks_off_is_better_than_nobody(mirror: Registry) -> None:
    data, wanted = _blob(mirror)
    left = iter(range(3))
    mirror.spoil = lambda r: next(left, None) is not None and send(r, 200, data, cut=0)
    with _client(*_hosts(mirror), Host("http", f"127.0.0.1:{free_port()}")) as client:
        assert _read(client, wanted) == data
    mirror.spoil = lambda r: send(r, 200, data[1:])
    with (
        _client(*_hosts(mirror), Host("http", f"127.0.0.1:{free_port()}")) as client,
        pytest.raises(DataLoss, match="has 199999 bytes"),
    ):
        _read(client, wanted)


def test_who_sent_something_else_is_not_asked_again(lying: Registry, mirror: Registry) -> None:
    data, wanted = _blob(lying, mirror)
    mirror.spoil = lambda r: send(r, 200, bytes(len(data)))
    with _client(*_hosts(mirror, lying)) as client:
        assert _read(client, wanted) == bytes(len(data))
        assert client.spoiled(wanted)
        assert _read(client, wanted) == data
        assert not client.spoiled(wanted)


# A host that names an address that is none


@pytest.mark.parametrize("realm", ["http://auth.example:99999/token", "https://[bad/"])
def test_a_mirror_that_names_no_proper_address_for_tokens(
    lying: Registry, mirror: Registry, realm: str
) -> None:
    for each in (lying, mirror):
        each.image()
    mirror.spoil = lambda r: send(r, 401, b"", {"WWW-Authenticate": f'Bearer realm="{realm}"'})
    with _client(*_hosts(mirror, lying)) as client:
        assert client.resolve().media_type == MANIFEST
    with _client(*_hosts(mirror)) as client, pytest.raises(InvalidArgument, match="malformed"):
        client.resolve()


@pytest.mark.parametrize("link", ["http://[bad/", "http://x:99999/v2/"])
def test_a_mirror_whose_list_goes_on_nowhere(lying: Registry, mirror: Registry, link: str) -> None:
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": []}
    body = json.dumps(index).encode()
    mirror.spoil = lambda r: send(r, 200, body, {"Link": f'<{link}>; rel="next"'})
    lying.spoil = lambda r: send(r, 200, body)
    with _client(*_hosts(mirror, lying)) as client:
        groups = client.referrers(digest_of(b"subject"))
        assert next(groups) == []
        with pytest.raises(InvalidArgument, match="which is elsewhere"):
            next(groups)


# Addresses in descriptors


def test_a_layer_that_registries_do_not_have(lying: Registry, mirror: Registry) -> None:
    data, wanted = _blob(mirror, media_type=FOREIGN)
    urls = ("ftp://example.com/x", f"http://{mirror.host}/layers/{wanted.digest}?key=1")
    wanted = Descriptor(
        media_type=FOREIGN, digest=wanted.digest, size=wanted.size, urls=("file:///x", *urls)
    )
    host = Host("http", lying.host, namespace="example.com", headers={"X-Secret": "hush"})
    with _client(host) as client:
        assert _read(client, wanted) == data
    ((method, path, headers),) = mirror.requests
    assert (method, path) == ("GET", f"/layers/{wanted.digest}?key=1")
    assert not {"X-Secret", "Authorization"} & set(headers)
    assert not lying.requests


def test_malformed_addresses_of_a_layer_are_passed_over(lying: Registry) -> None:
    data, wanted = _blob(lying)
    urls = ("http://x.example:99999/x", "https://[bad/")
    wanted = Descriptor(media_type=FOREIGN, digest=wanted.digest, size=wanted.size, urls=urls)
    with _client(*_hosts(lying)) as client:
        assert _read(client, wanted) == data


def test_nobody_is_led_from_tls_to_plain(lying: Registry, mirror: Registry) -> None:
    _, wanted = _blob(mirror, media_type=FOREIGN)
    wanted = Descriptor(
        media_type=FOREIGN, digest=wanted.digest, size=wanted.size,
        urls=(f"http://{mirror.host}/{wanted.digest}",),
    )  # fmt: skip
    with _client(Host("https", lying.host)) as client, pytest.raises(Unavailable, match="TLS"):
        _read(client, wanted)
    assert not mirror.requests


def test_addresses_of_other_blobs_do_not_count(lying: Registry, mirror: Registry) -> None:
    _, wanted = _blob(mirror)
    wanted = Descriptor(
        media_type="x/y", digest=wanted.digest, size=wanted.size,
        urls=(f"http://{mirror.host}/{wanted.digest}",),
    )  # fmt: skip
    with _client(*_hosts(lying)) as client, pytest.raises(NotFound, match=lying.host):
        _read(client, wanted)
    assert not mirror.requests


@pytest.mark.parametrize("away", [False, True])
def test_if_nobody_has_a_layer_the_registry_says_why(
    lying: Registry, mirror: Registry, away: bool
) -> None:
    _, wanted = _blob(lying)
    lying.spoil = lambda r: send(r, 401, b"", {"WWW-Authenticate": "Basic"})
    stranger = f"127.0.0.1:{free_port()}" if away else mirror.host
    wanted = Descriptor(
        media_type=FOREIGN, digest=wanted.digest, size=wanted.size, urls=(f"http://{stranger}/x",)
    )
    silence = Silence()
    for _ in range(2):  # the second time the registry is asked before who is away
        with (
            _client(*_hosts(lying), silence=silence) as client,
            pytest.raises(Unauthenticated, match=f'^registry "{lying.host}".*{stranger}'),
        ):
            _read(client, wanted)


# hosts.toml, as containerd reads it


def _parsed(folder: Path, text: str) -> Host:
    (folder / "example.com").mkdir(exist_ok=True)
    (folder / "example.com/hosts.toml").write_text(text)
    return find_hosts([folder], "example.com")[0]


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ('["Pull", "RESOLVE"]', Capability.PULL | Capability.RESOLVE),
        ('["pull", "referrers"]', Capability.PULL | Capability.REFERRERS),
        ("[]", Capability.ALL),
    ],
)
def test_capabilities_of_containerd(tmp_path: Path, names: str, found: Capability) -> None:
    text = f'[host."https://mirror.example"]\ncapabilities = {names}\n'
    assert _parsed(tmp_path, text).capabilities == found


@pytest.mark.parametrize(
    ("text", "seconds"), [("", 0.0), ("1m30s", 90.0), ("250ms", 0.25), (".5s", 0.5), ("0", 0.0)]
)
def test_dial_timeout(tmp_path: Path, text: str, seconds: float) -> None:
    assert _parsed(tmp_path, f'dial_timeout = "{text}"').dial_timeout == seconds


def test_a_dial_timeout_that_is_none(tmp_path: Path) -> None:
    for wrong in ('"soon"', '"-1s"', "5"):
        with pytest.raises(OrlopError, match="dial_timeout must be a duration such as 2s"):
            _parsed(tmp_path, f"dial_timeout = {wrong}")


def test_unknown_keys_are_told_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = 'sever = 1\n[host."https://mirror.example"]\ncolour = "blue"\n'
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert _parsed(tmp_path, text).name == "mirror.example"
    told = [each.getMessage() for each in caplog.records]
    assert len(told) == 2
    assert 'unknown key "sever"' in told[0]
    assert 'unknown key "host."https://mirror.example".colour"' in told[1]


def test_certificates_beside_an_empty_file(tmp_path: Path) -> None:
    folder = tmp_path / "example.com"
    folder.mkdir()
    for name in ("hosts.toml", "whole.cert", "pair.cert", "pair.key", "ca.crt"):
        (folder / name).touch()
    (host,) = find_hosts([tmp_path], "example.com")
    assert host.tls.ca == (str(folder / "ca.crt"),)
    assert host.tls.client == (
        (str(folder / "pair.cert"), str(folder / "pair.key")),
        (str(folder / "whole.cert"), ""),
    )
    with Http() as http:
        client = RegistryClient(reference.parse("example.com/x:1"), http=http, hosts=[host])
        with pytest.raises(InvalidArgument, match=r'ca\.crt" holds no certificates'):
            client.resolve()

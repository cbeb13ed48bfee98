"""hosts.toml, certificates, passwords and mirrors, with Debian's docker-registry behind them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from orlop.errors import FailedPrecondition, NotFound, OrlopError, Unauthenticated, Unavailable
from orlop.oci import reference
from orlop.registry import Ask, Credentials, Http, RegistryClient, find_hosts, probe
from orlop.registry.host import NO_TLS
from tests.lying_registry import Registry
from tests.registry_fixture import (
    SECRET,
    USER,
    Certificates,
    free_port,
    make_certificates,
    run_registry,
    skopeo_copy,
)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def guarded(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates, layout: Path
) -> Iterator[str]:
    """A registry with TLS of an authority of its own, and a password; its host:port."""
    with run_registry(tmp_path_factory.mktemp("guarded"), password=True, tls=certificates) as host:
        skopeo_copy(
            f"oci:{layout}:latest", f"docker://{host}/test/busybox:latest",
            "--dest-creds", f"{USER}:{SECRET}",
        )  # fmt: skip
        yield host


def _configure(folder: Path, host: str, text: str) -> Path:
    (folder / host).mkdir(parents=True)
    (folder / host / "hosts.toml").write_text(text)
    return folder


@contextmanager
def _client(name: str, folder: Path, ask: Ask | None = None) -> Iterator[RegistryClient]:
    wanted = reference.parse(name)
    with Http() as http:
        yield RegistryClient(wanted, http=http, hosts=find_hosts([folder], wanted.host), ask=ask)


def _sailor(*_: object) -> Credentials:
    return Credentials(USER, SECRET)


def _fetch(client: RegistryClient) -> int:
    """Fetch the manifest; its size."""
    return len(client.fetch_document(client.resolve()))


def test_an_authority_and_a_password(
    guarded: str, certificates: Certificates, tmp_path: Path
) -> None:
    text = f'server = "https://{guarded}"\nca = "{certificates.ca}"\n'
    folder = _configure(tmp_path, guarded, text)
    name = f"{guarded}/test/busybox:latest"
    with _client(name, folder, _sailor) as client:
        assert _fetch(client) > 100
    with _client(name, folder) as client, pytest.raises(Unauthenticated, match="none were given"):
        client.resolve()
    with (
        _client(name, folder, lambda *_: Credentials(USER, "wrong")) as client,
        pytest.raises(Unauthenticated, match="status 401") as caught,
    ):
        client.resolve()
    assert "wrong" not in str(caught.value)
    with (
        _client(
            name, _configure(tmp_path / "b", guarded, f'server = "https://{guarded}"'), _sailor
        ) as client,
        pytest.raises(Unavailable, match=r"is not to be trusted: .*verify failed"),
    ):
        client.resolve()


def test_no_verification_where_that_is_said(guarded: str, tmp_path: Path) -> None:
    text = f'server = "https://{guarded}"\nskip_verify = true\n'
    folder = _configure(tmp_path, "_default", text)
    with _client(f"{guarded}/test/busybox:latest", folder, _sailor) as client:
        assert _fetch(client) > 100


def test_this_machine_is_asked_what_it_speaks(guarded: str, registry: str, tmp_path: Path) -> None:
    """Without a word of configuration, or with some that names neither scheme nor certificate."""
    other = make_certificates(tmp_path).ca
    name = f"{guarded}/test/busybox:latest"
    with _client(name, tmp_path / "none", _sailor) as client:
        assert _fetch(client) > 100
    with _client(f"{registry}/test/busybox:latest", tmp_path / "none") as client:
        assert _fetch(client) > 100
    silent = _configure(tmp_path / "silent", guarded, 'capabilities = ["pull", "resolve"]')
    with _client(name, silent, _sailor) as client:
        assert _fetch(client) > 100
    (host,) = find_hosts([tmp_path / "none"], guarded)
    assert host.tls.skip_verify and host.tls.for_strangers() == NO_TLS
    wary = _configure(tmp_path / "wary", guarded, f'ca = "{other}"')
    with _client(name, wary, _sailor) as client, pytest.raises(Unavailable, match="not to be trus"):
        client.resolve()


def test_a_folder_for_all_registries_says_nothing_of_this_machine(
    guarded: str, registry: str, tmp_path: Path
) -> None:
    folder = _configure(tmp_path, "_default", "skip_verify = true")
    assert [find_hosts([folder], each)[0].scheme for each in (guarded, registry)] == [
        "https",
        "http",
    ]
    own = _configure(tmp_path, registry, "skip_verify = true")
    assert find_hosts([own], registry)[0].scheme == "https"


def test_nobody_there_and_one_who_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "_WAIT", 0.2)
    assert find_hosts([tmp_path], f"127.0.0.1:{free_port()}")[0].scheme == "http"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        name = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(Unavailable, match=f'"{name}" says nothing'):
            find_hosts([tmp_path], name)


def test_certificates_as_docker_keeps_them(
    certificates: Certificates, layout: Path, tmp_path: Path
) -> None:
    (tmp_path / "registry").mkdir()
    with run_registry(tmp_path / "registry", tls=certificates, clients=True) as host:
        port = host.rpartition(":")[2]
        folder = tmp_path / "certs.d" / f"localhost_{port}_"
        folder.mkdir(parents=True)
        (folder / "own.crt").write_bytes(certificates.ca.read_bytes())
        name = f"localhost:{port}/nothing:1"
        hosts = find_hosts([folder.parent], f"localhost:{port}")
        with Http() as http:
            client = RegistryClient(reference.parse(name), http=http, hosts=hosts)
            with pytest.raises(Unavailable):
                client.resolve()
        (folder / "me.cert").write_bytes(certificates.client.read_bytes())
        hosts = find_hosts([folder.parent], f"localhost:{port}")
        with Http() as http:  # its key may be in the certificate's file, and is not
            client = RegistryClient(reference.parse(name), http=http, hosts=hosts)
            with pytest.raises(OrlopError, match=r'me.cert" are no certificate and key'):
                client.resolve()
        (folder / "me.key").write_bytes(certificates.client_key.read_bytes())
        hosts = find_hosts([folder.parent], f"localhost:{port}")
        with Http() as http:
            client = RegistryClient(reference.parse(name), http=http, hosts=hosts)
            with pytest.raises(NotFound, match="status 404"):
                client.resolve()


def test_a_mirror_comes_first(registry: str, tmp_path: Path) -> None:
    dead = free_port()
    text = f'server = "http://127.0.0.1:{dead}"\n[host."http://{registry}"]\n'
    folder = _configure(tmp_path, "example.com", text)
    with _client("example.com/test/busybox:latest", folder) as client:
        assert _fetch(client) > 100


def test_the_registry_itself_comes_last(registry: str, lying: Registry, tmp_path: Path) -> None:
    """A dead mirror and one that does not have it cost little, and are told of in the end."""
    text = f"""
server = "http://{registry}"
[host."http://127.0.0.1:{free_port()}"]
[host."http://{lying.host}/some/where"]
header = {{ X-Token = ["hush"] }}
"""
    folder = _configure(tmp_path, "example.com:5000", text)
    with _client("example.com:5000/test/busybox:latest", folder) as client:
        assert _fetch(client) > 100
    method, path, headers = lying.requests[0]
    assert (method, path) == (
        "HEAD",
        "/some/where/v2/test/busybox/manifests/latest?ns=example.com:5000",
    )
    assert headers["X-Token"] == "hush"
    with (
        _client("example.com:5000/test/none:1", folder) as client,
        pytest.raises(NotFound) as caught,
    ):
        client.resolve()
    text = str(caught.value)
    assert registry in text
    assert lying.host in text
    assert "does not answer" in text
    assert "hush" not in text


def test_a_mirror_that_breaks_off_is_taken_over(
    registry: str, lying: Registry, tmp_path: Path
) -> None:
    with _client(f"{registry}/test/busybox:latest", tmp_path) as client:
        manifest = client.resolve()
        layer = _layer(client)
    calls = []

    def spoil(request: object) -> bool:
        calls.append(1)
        request.close_connection = True  # type: ignore[attr-defined]
        return True

    lying.spoil = spoil
    text = f'server = "http://{registry}"\n[host."http://{lying.host}"]\n'
    folder = _configure(tmp_path, "example.com", text)
    with _client("example.com/test/busybox:latest", folder) as client, ExitStack() as stack:
        assert client.resolve() == manifest
        stream = client.open_blob(layer)
        stack.callback(stream.close)
        assert sum(map(len, stream)) == layer.size
    assert calls


def _layer(client: RegistryClient):  # type: ignore[no-untyped-def]
    from orlop.oci import manifest

    found = client.resolve()
    parsed = manifest.parse(client.fetch_document(found), found.media_type)
    assert isinstance(parsed, manifest.Manifest)
    return parsed.layers[0]


def test_capabilities(registry: str, tmp_path: Path) -> None:
    text = f'server = "http://{registry}"\ncapabilities = ["resolve"]\n'
    folder = _configure(tmp_path, "example.com", text)
    with _client("example.com/test/busybox:latest", folder) as client:
        found = client.resolve()
        with pytest.raises(FailedPrecondition, match="no host is configured to PULL"):
            client.fetch_document(found)
        with pytest.raises(FailedPrecondition, match="no host is configured to take pushes"):
            client.uploads()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("server = ", "is not TOML"),
        ("server = 5", "server must be an address, not 5"),
        ('[host."http://a"]\nca = "none.crt"', "which does not exist"),
        ('[host."http://a"]\nskip_verify = "yes"', "must be true or false"),
        ('[host."http://a"]\ncapabilities = ["fly"]', "a list of pull, resolve, push"),
        ('[host."http://"]', "an address such as"),
        ('[host."http://a:99999"]', 'host."http://a:99999".address must be an address such as'),
        ('server = "https://[bad"', "address must be an address such as"),
        ('[host."http://a".header]\nX = 1', "a string or a list of strings"),
        ("client = [[1]]", "client must be"),
    ],
)
def test_a_bad_file(tmp_path: Path, text: str, words: str) -> None:
    folder = _configure(tmp_path, "example.com", text)
    with pytest.raises(OrlopError) as caught:
        find_hosts([folder], "example.com")
    assert words in str(caught.value)
    assert str(folder / "example.com/hosts.toml") in str(caught.value)

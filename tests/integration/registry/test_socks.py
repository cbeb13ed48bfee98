from __future__ import annotations

from pathlib import Path

import pytest

from orlop.errors import InvalidArgument, Unavailable
from orlop.oci import reference
from orlop.registry import Http, RegistryClient
from orlop.registry.host import Host, Tls
from orlop.registry.proxies import Proxies
from tests.lying_registry import Registry
from tests.registry_fixture import make_certificates, run_registry
from tests.socks_proxy import SocksProxy


def _client(http: Http, host: str, scheme: str = "http", tls: Tls | None = None) -> RegistryClient:
    hosts = [Host(scheme, host, tls=tls or Tls())]
    return RegistryClient(reference.parse(f"{host}/x/y:latest"), http=http, hosts=hosts)


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
def test_through_a_socks_proxy(lying: Registry, scheme: str) -> None:
    lying.image()
    proxy = SocksProxy()
    port = int(lying.host.rpartition(":")[2])
    try:
        with Http(proxies=Proxies({"HTTP_PROXY": f"{scheme}://{proxy.address}"})) as http:
            found = _client(http, f"registry.test:{port}").resolve()
            assert found.digest == lying.tags["latest"]
    finally:
        proxy.close()
    assert proxy.asked == [("registry.test", port)]


def test_a_name_and_a_password(lying: Registry) -> None:
    lying.image()
    proxy = SocksProxy("sailor", "p@ss")
    host = f"registry.test:{lying.host.rpartition(':')[2]}"
    try:
        address = f"socks5://sailor:p%40ss@{proxy.address}"
        with Http(proxies=Proxies({"HTTP_PROXY": address})) as http:
            assert _client(http, host).resolve().digest == lying.tags["latest"]
        for wrong, words in (("sailor:hush@", "does not take the credentials"), ("", "wants cred")):
            address = f"socks5://{wrong}{proxy.address}"
            with Http(proxies=Proxies({"HTTP_PROXY": address})) as http:
                with pytest.raises(Unavailable, match=words) as caught:
                    _client(http, host).resolve()
                assert "hush" not in str(caught.value)
    finally:
        proxy.close()


def test_tls_goes_through(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path)
    proxy = SocksProxy()
    try:
        with (
            run_registry(tmp_path, tls=certificates) as host,
            Http(proxies=Proxies({"HTTPS_PROXY": f"socks5://{proxy.address}"})) as http,
        ):
            client = _client(
                http, f"registry.test:{host.rpartition(':')[2]}", "https",
                Tls(ca=(str(certificates.ca),)),
            )  # fmt: skip
            assert list(client.referrers(f"sha256:{'a' * 64}")) == [[]]
    finally:
        proxy.close()
    assert proxy.asked


def test_what_is_no_proxy() -> None:
    for wrong in ("socks4://127.0.0.1:1", "ftp://127.0.0.1:1"):
        with pytest.raises(InvalidArgument, match="does not name a proxy"):
            Proxies({"HTTP_PROXY": wrong}).proxy("http", "registry.test", 80)

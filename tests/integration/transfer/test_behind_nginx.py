"""Pulls and pushes through nginx before Debian's docker-registry."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orlop.client.pull import pull_image
from orlop.client.push import push_image
from orlop.errors import ResourceExhausted, Unavailable
from tests.archive_fixture import Files, image, layout, named, tar_of
from tests.daemon_fixture import Orlopd
from tests.nginx_fixture import run_nginx
from tests.registry_fixture import run_registry

pytestmark = pytest.mark.root

BLOB = "location ~ /blobs/sha256:"


def _pull(orlopd: Orlopd, host: str) -> None:
    with orlopd.connect() as connection:
        pull_image(connection, f"{host}/test/busybox:latest")


def test_what_is_here_is_not_asked_for(orlopd: Orlopd, registry: str, tmp_path: Path) -> None:
    with run_nginx(tmp_path, registry) as nginx:
        _pull(orlopd, nginx.host)
        first = nginx.await_requests(4)
        _pull(orlopd, nginx.host)
        second = nginx.await_requests(len(first) + 1)[len(first) :]
    assert [(each.method, each.status) for each in second] == [("HEAD", 200)]
    assert len({each.path for each in first if each.method == "GET"}) == len(
        [each for each in first if each.method == "GET"]
    )


def test_blobs_elsewhere(orlopd: Orlopd, registry: str, tmp_path: Path) -> None:
    for name in ("front", "back"):
        (tmp_path / name).mkdir()
    with run_nginx(tmp_path / "back", registry) as back:
        moved = f"{BLOB} {{ return 307 http://{back.host}$request_uri; }}"
        with run_nginx(tmp_path / "front", registry, inner=moved) as front:
            _pull(orlopd, front.host)
            assert {each.status for each in back.await_requests(2)} <= {200, 206}
            assert 307 in {each.status for each in front.requests()}


def test_a_limit_of_requests_is_waited_out(orlopd: Orlopd, registry: str, tmp_path: Path) -> None:
    rate = "limit_req_zone $binary_remote_addr zone=few:1m rate=1r/s; limit_req_status 429;"
    with run_nginx(tmp_path, registry, outer=rate, location="limit_req zone=few;") as nginx:
        _pull(orlopd, nginx.host)
        assert 429 in {each.status for each in nginx.requests()}


def test_no_registry_behind(orlopd: Orlopd, tmp_path: Path) -> None:
    with (
        run_nginx(tmp_path, "127.0.0.1:1") as nginx,
        pytest.raises(Unavailable, match=f"{nginx.host}.*status 502"),
    ):
        _pull(orlopd, nginx.host)


@pytest.mark.parametrize(("limit", "fits"), [("1m", True), ("10k", False)])
def test_a_limit_of_bodies(orlopd: Orlopd, tmp_path: Path, limit: str, fits: bool) -> None:
    """A blob that is too large for one request goes in chunks, if those may be of use."""
    name = "example.com/big:1"
    archive = tmp_path / "big.tar"
    files: Files = {}
    big = named(image(files, text=os.urandom(3 << 20).hex()), name, "io.containerd.image.name")
    archive.write_bytes(tar_of(layout(files, big)))
    orlopd.ctr("images", "import", "--no-unpack", str(archive))
    with run_registry(tmp_path) as registry:
        config = tmp_path / "nginx"
        config.mkdir()
        with run_nginx(config, registry, body=limit) as nginx, orlopd.connect() as connection:
            target = f"{nginx.host}/test/big:1"
            if not fits:
                with pytest.raises(ResourceExhausted, match="status 413"):
                    push_image(connection, name, target)
                return
            push_image(connection, name, target)
            statuses = {(each.method, each.status) for each in nginx.requests()}
            assert ("PUT", 413) in statuses
            assert ("PATCH", 202) in statuses

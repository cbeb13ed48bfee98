"""orlopd's registry as other projects' clients see it: skopeo, ctr, Debian's containerd, curl."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from orlop.client.push import push_image
from tests.archive_fixture import Files, digest_of, image, index, layout, named
from tests.containerd_fixture import run_containerd
from tests.daemon_fixture import BUSYBOX, Orlopd
from tests.patience import patient
from tests.registry_fixture import make_certificates, run_registry, skopeo_copy
from tests.served_fixture import NAME, Served, write_layout

pytestmark = pytest.mark.root


def skopeo(*arguments: str) -> str:
    done = subprocess.run(
        ["skopeo", *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def raw(reference: str) -> str:
    return skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{reference}")


def copy_all(source: str, target: str) -> None:
    skopeo(
        "copy", "--quiet", "--all", "--insecure-policy", "--src-tls-verify=false",
        "--dest-tls-verify=false", source, target,
    )  # fmt: skip


def test_every_platform_goes_there_and_back_unchanged(
    pushable_daemon: Served, registry: str, tmp_path: Path
) -> None:
    """docker-registry to orlopd's to docker-registry: the same manifests, byte for byte."""
    files: Files = {}
    both = index(files, image(files), image(files, "arm64"))
    copy_all(
        f"{write_layout(tmp_path, layout(files, named(both, 'v1')))}:v1",
        f"docker://{registry}/many/one:v1",
    )
    copy_all(f"docker://{registry}/many/one:v1", f"docker://{pushable_daemon.host}/many/one:v1")
    copy_all(f"docker://{pushable_daemon.host}/many/one:v1", f"docker://{registry}/many/back:v1")

    first = raw(f"{registry}/many/one:v1")
    assert "arm64" in first
    assert first == raw(f"{pushable_daemon.host}/many/one:v1") == raw(f"{registry}/many/back:v1")
    for platform in both_digests(files):
        one, back = raw(f"{registry}/many/one@{platform}"), raw(f"{registry}/many/back@{platform}")
        assert one == back == raw(f"{pushable_daemon.host}/many/one@{platform}")


def both_digests(files: Files) -> list[str]:
    """The manifests among the blobs of a layout."""
    return [
        path.removeprefix("blobs/").replace("/", ":")
        for path, data in files.items()
        if b'"config"' in data
    ]


def test_a_pushed_image_is_an_image_of_the_node(
    pushable_daemon: Served, layout: Path, registry: str
) -> None:
    skopeo_copy(f"oci:{layout}:latest", f"docker://{pushable_daemon.host}/app/box:1")
    name = f"{NAME}/app/box:1"
    assert name in pushable_daemon.daemon.ctr("images", "ls", "-q").stdout
    assert " complete (" in pushable_daemon.daemon.ctr("images", "check").stdout
    pushable_daemon.daemon.ctr("images", "export", "/dev/null", name)

    shown = skopeo("inspect", "--tls-verify=false", f"docker://{pushable_daemon.host}/app/box:1")
    assert '"1"' in shown
    tags = skopeo("list-tags", "--tls-verify=false", f"docker://{pushable_daemon.host}/app/box")
    assert '"1"' in tags
    skopeo("delete", "--tls-verify=false", f"docker://{pushable_daemon.host}/app/box:1")
    assert name not in pushable_daemon.daemon.ctr("images", "ls", "-q").stdout


def test_what_the_node_has_is_copied_by_its_path(
    serving: Callable[[str], Served], busybox_archive: Path, tmp_path: Path
) -> None:
    node = serving("")
    node.daemon.ctr("images", "import", str(busybox_archive))
    for spelling in ("library/busybox", "docker.io/library/busybox"):
        target = tmp_path / spelling.replace("/", "-")
        skopeo_copy(f"docker://{node.host}/{spelling}:latest", f"dir:{target}")
        assert (target / "manifest.json").exists()


def test_a_node_is_the_mirror_of_another(
    serving: Callable[[str], Served], orlopd: Orlopd, busybox_archive: Path, tmp_path: Path
) -> None:
    """docker.io is out of reach here, so what arrives came from the mirror."""
    node = serving("")
    node.daemon.ctr("images", "import", str(busybox_archive))
    orlopd.ctr("images", "pull", "--hosts-dir", mirrored(tmp_path, f"http://{node.host}"), BUSYBOX)
    assert orlopd.ctr("run", "--rm", BUSYBOX, "job", "echo", "mirrored").stdout == "mirrored\n"
    assert target_of(orlopd) == target_of(node.daemon)


def mirrored(folder: Path, mirror: str, more: str = "") -> str:
    """A folder of hosts.toml files in which a node stands in for docker.io."""
    hosts = folder / "hosts" / "docker.io"
    hosts.mkdir(parents=True)
    (hosts / "hosts.toml").write_text(
        f'server = "https://docker.io"\n[host."{mirror}"]\n'
        f'capabilities = ["pull", "resolve"]\n{more}'
    )
    return str(hosts.parent)


def test_debians_containerd_pulls_from_a_mirror(
    serving: Callable[[str], Served], busybox_archive: Path, tmp_path: Path
) -> None:
    node = serving("")
    node.daemon.ctr("images", "import", str(busybox_archive))
    hosts = mirrored(tmp_path, f"http://{node.host}")
    with run_containerd(tmp_path) as other:
        other.ctr("images", "pull", "--snapshotter", "native", "--hosts-dir", hosts, BUSYBOX)
        listed = other.ctr("images", "ls").stdout
    assert target_of(node.daemon) in listed


def test_one_node_pulls_from_another_with_certificates(
    serving: Callable[[str], Served], busybox_archive: Path, tmp_path: Path
) -> None:
    """By orlopd's own hosts.toml; without a client's certificate nobody gets in."""
    made = make_certificates(tmp_path)
    node = serving(f'cert = "{made.server}"\nkey = "{made.server_key}"\nclient_ca = "{made.ca}"\n')
    node.daemon.ctr("images", "import", str(busybox_archive))
    url = f"https://{node.host}"
    ca = ("curl", "-sf", "--cacert", str(made.ca), f"{url}/v2/")
    assert subprocess.run(ca, check=False, timeout=20, capture_output=True).returncode != 0
    shown = ("--cert", str(made.client), "--key", str(made.client_key))
    assert subprocess.run([*ca, *shown], check=False, timeout=20).returncode == 0

    more = f'ca = "{made.ca}"\nclient = [["{made.client}", "{made.client_key}"]]\n'
    hosts = mirrored(tmp_path, url, more)
    other = serving(f'[registry]\nconfig_path = "{hosts}"\n').daemon
    other.orlop("pull", BUSYBOX)
    assert target_of(other) == target_of(node.daemon)


def test_a_registry_that_keeps_copies_of_a_node(
    serving: Callable[[str], Served],
    busybox_archive: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """docker-registry as a pull-through cache."""
    node = serving("")
    node.daemon.ctr("images", "import", str(busybox_archive))
    monkeypatch.setenv("REGISTRY_PROXY_REMOTEURL", f"http://{node.host}")
    (tmp_path / "cache").mkdir()
    with run_registry(tmp_path / "cache") as cache:
        skopeo_copy(f"docker://{cache}/library/busybox:latest", f"dir:{tmp_path}/copy")
        first = raw(f"{cache}/library/busybox:latest")
    assert first == raw(f"{node.host}/library/busybox:latest")


def target_of(daemon: Orlopd) -> str:
    """The digest of the one image there is."""
    return daemon.ctr("images", "ls").stdout.splitlines()[1].split()[2]


def test_orlop_pulls_from_another_node(
    pushable_daemon: Served, orlopd: Orlopd, layout: Path
) -> None:
    skopeo_copy(f"oci:{layout}:latest", f"docker://{pushable_daemon.host}/app/box:1")
    orlopd.orlop("pull", f"{pushable_daemon.host}/app/box:1")
    assert target_of(orlopd) == target_of(pushable_daemon.daemon)


def test_ctr_pushes_to_another_node(pushable_daemon: Served, orlopd: Orlopd, busybox: str) -> None:
    name = f"{pushable_daemon.host}/library/busybox:latest"
    orlopd.ctr("images", "push", "--plain-http", name, busybox)
    assert " complete (" in pushable_daemon.daemon.ctr("images", "check").stdout
    assert target_of(pushable_daemon.daemon) == target_of(orlopd)


def test_orlop_pushes_to_another_node(
    pushable_daemon: Served, orlopd: Orlopd, busybox: str
) -> None:
    name = f"{pushable_daemon.host}/library/busybox:latest"
    with orlopd.connect() as connection:
        push_image(connection, busybox, name, plain_http=True)
        push_image(connection, busybox, name.replace("library", "other"), plain_http=True)
    assert "incomplete" not in pushable_daemon.daemon.ctr("images", "check").stdout
    assert target_of(pushable_daemon.daemon) == target_of(orlopd)


def test_curl_goes_on_where_it_was_broken_off(pushable_daemon: Served, tmp_path: Path) -> None:
    data = bytes(range(256)) * 8192
    digest = digest_of(data)
    assert pushable_daemon.upload("parts", digest, data).status == 201
    part = tmp_path / "part"
    part.write_bytes(data[:1_000_001])
    url = f"http://{pushable_daemon.host}/v2/parts/blobs/{digest}"
    subprocess.run(["curl", "-sf", "-C", "-", "-o", str(part), url], check=True, timeout=30)
    assert part.read_bytes() == data


def test_a_push_goes_on_after_a_kill(pushable_daemon: Served) -> None:
    data = bytes(range(256)) * 8192
    begun = pushable_daemon.ask("POST", "/v2/app/blobs/uploads/")
    place = str(begun.headers["Location"])
    assert pushable_daemon.ask("PATCH", place, data[:1_000_000]).status == 202
    pushable_daemon.daemon.kill9()
    pushable_daemon.daemon.start()
    status = pushable_daemon.ask("GET", place)
    assert (status.status, status.headers["Range"]) == (204, "0-999999")
    done = pushable_daemon.ask("PUT", f"{place}?digest={digest_of(data)}", data[1_000_000:])
    assert done.status == 201
    pushable_daemon.daemon.restart()
    blob = pushable_daemon.ask("GET", f"/v2/app/blobs/{digest_of(data)}")
    assert blob.body == data


def test_the_daemon_stops_while_clients_hang(pushable_daemon: Served) -> None:
    begun = pushable_daemon.ask("POST", "/v2/app/blobs/uploads/")
    half = f"PATCH {begun.headers['Location']} HTTP/1.1\r\nContent-Length: 99\r\n\r\nx".encode()
    with ExitStack() as stack:
        for sent in (b"", b"GET /v2", half):
            address = ("127.0.0.1", pushable_daemon.port)
            client = stack.enter_context(closing(socket.create_connection(address)))
            client.sendall(sent)
        time.sleep(0.2)
        assert pushable_daemon.daemon.stop() < patient(10)

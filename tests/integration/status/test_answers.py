"""What the daemon answers a page: without one, by HTTP."""

from __future__ import annotations

import json
import re
import socket
import ssl
import subprocess
import time
from contextlib import ExitStack, closing, suppress
from functools import partial
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import pytest

import orlop.status
from tests.daemon_fixture import BUSYBOX
from tests.frames import cable
from tests.patience import patient
from tests.registry_fixture import make_certificates, run_registry, skopeo_copy
from tests.rest import settled, switches
from tests.slow_proxy import SlowProxy
from tests.status_fixture import KIB, Page, Shipyard, events, follow, shown

pytestmark = pytest.mark.root
MIB = 1 << 20


def test_containers_and_what_they_use(tmp_path: Path, busybox_archive: Path) -> None:
    script = "dd if=/dev/zero of=/dev/shm/held bs=1M count=24; while :; do :; done"
    with shown(tmp_path) as page:
        daemon = page.daemon
        assert page.state()["containers"] == []
        daemon.ctr("images", "import", str(busybox_archive))
        daemon.orlop("run", "-d", "--name", "busy", "-m", "64m", BUSYBOX, "sh", "-c", script)
        daemon.orlop("run", "--name", "job", BUSYBOX, "sh", "-c", "exit 3", check=False)
        daemon.orlop("create", "--name", "new", BUSYBOX)
        daemon.wait_for(lambda: page.container("busy")["use"]["memory"] > 24 * MIB, 30)
        before = page.container("busy")
        with cable(_pid(page, "busy")) as wire:
            wire.send(2000, 1000)
            daemon.wait_for(lambda: page.container("busy")["use"]["received"] >= 1_900_000)
            after = page.container("busy")
        assert after["use"]["received"] == pytest.approx(2_000_000, rel=0.05)
        assert after["use"]["cpu"] > before["use"]["cpu"] > 0
        assert after["use"]["at"] > before["use"]["at"]
        assert after["use"]["memory"] == pytest.approx(24 * MIB, rel=0.1)
        assert after["use"]["memory_limit"] == 64 * MIB
        assert after["use"]["pids"] == 1
        assert after["state"] == "running"
        assert after["image"] == BUSYBOX
        assert abs(after["started"] - time.time()) < patient(120)
        job, new = page.container("job"), page.container("new")
        assert (job["state"], job["exit"], job["use"]) == ("exited", 3, None)
        assert (new["state"], new["use"]) == ("created", None)
        daemon.orlop("pause", "busy")
        daemon.wait_for(lambda: page.container("busy")["state"] == "paused")
        daemon.orlop("unpause", "busy")
        daemon.orlop("rename", "busy", "idle")
        daemon.wait_for(lambda: "idle" in {each["name"] for each in page.state()["containers"]})
        daemon.orlop("rm", "-f", "idle", "job", "new")


def _pid(page: Page, name: str) -> int:
    rows = (line.split() for line in page.daemon.ctr("task", "ls").stdout.splitlines())
    return next(int(row[1]) for row in rows if row[0] == name)


def test_shims_of_others_are_asked(tmp_path: Path, busybox_archive: Path) -> None:
    more = '[runtimes]\n"io.example.other.v2" = "/usr/bin/containerd-shim-runc-v2"\n'
    with shown(tmp_path, more=more) as page:
        daemon = page.daemon
        daemon.ctr("images", "import", str(busybox_archive))
        daemon.ctr("run", "-d", "--runtime", "io.example.other.v2", BUSYBOX, "other", "sleep", "99")
        # At first there are the threads of a runc that becomes the container's process.
        daemon.wait_for(lambda: page.container("other")["use"]["pids"] == 1, 20)
        assert page.container("other")["state"] == "running"
        daemon.ctr("task", "rm", "-f", "other")
        daemon.ctr("container", "rm", "other")


def test_no_shim_wakes(page: Page, busybox_archive: Path) -> None:
    page.daemon.ctr("images", "import", str(busybox_archive))
    page.daemon.ctr("run", "-d", BUSYBOX, "quiet", "/bin/sleep", "1000")
    pid = _pid(page, "quiet")
    keeper = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    hands = Path(f"/proc/{keeper}/task/{keeper}/children")
    page.daemon.wait_for(lambda: hands.read_text().split() == [str(pid)], 30)
    before = settled(keeper)
    for _ in range(3):
        assert page.container("quiet")["use"]["pids"] == 1
        time.sleep(0.6)  # an answer is given again for half a second
    assert switches(keeper) == before
    page.daemon.ctr("task", "rm", "-f", "quiet")
    page.daemon.ctr("container", "rm", "quiet")


def test_images_and_the_layers_that_they_share(tmp_path: Path, yard: Shipyard) -> None:
    archive = yard.archive(
        {
            "registry.example/a:1": {"base": 0, "common": 200 * KIB, "a": 100 * KIB},
            "registry.example/b:1": {"base": 0, "common": 200 * KIB},
            "registry.example/c:1": {"c": 50 * KIB},
        }
    )
    with shown(tmp_path) as page:
        page.daemon.orlop("load", "-i", str(archive))
        found = page.get("/v1/images").json()
        one, two, three = found["images"]
        names = [each["name"].rpartition("/")[2] for each in found["images"]]
        assert names == ["a:1", "b:1", "c:1"]
        assert one["layers"][:2] == two["layers"]
        assert [found["layers"][each]["images"] for each in one["layers"]] == [2, 2, 1]
        assert found["layers"][one["layers"][2]]["size"] == pytest.approx(100 * KIB, rel=0.05)
        # Layers, and a config that no image shares.
        own = sum(found["layers"][each]["size"] for each in one["layers"])
        assert own < one["size"] < own + 4 * KIB
        assert one["unique"] == one["size"] - two["size"] + two["unique"]
        assert three["unique"] == three["size"]
        assert all(each["whole"] for each in found["images"])
        together = sum(each["unique"] for each in found["images"])
        together += sum(found["layers"][each]["size"] for each in two["layers"])
        assert found["size"] == together
        # The same size as `orlop images` tells.
        listed = page.daemon.orlop("images", "--format", "{{.Name}} {{.Size}}").stdout.split("\n")[
            0
        ]
        assert listed == f"{one['name']} {one['size'] / KIB / KIB:.1f} MiB"
        page.daemon.orlop("tag", "registry.example/c:1", "registry.example/d:1")
        page.daemon.wait_for(lambda: page.get("/v1/images").json()["images"][2]["unique"] == 0)
        page.daemon.orlop("rmi", *(f"registry.example/{each}:1" for each in "abcd"))
        page.daemon.wait_for(lambda: page.get("/v1/images").json()["images"] == [])


def test_a_pull_in_flight_and_what_others_write(tmp_path: Path, yard: Shipyard) -> None:
    layout = yard.layout({"x:1": {"base": 0, "slow": 1200 * KIB}})
    folder = tmp_path / "registry"
    folder.mkdir()
    with ExitStack() as stack:
        host = stack.enter_context(run_registry(folder))
        skopeo_copy(f"oci:{layout}:1", f"docker://{host}/shop/search:3")
        proxy = stack.enter_context(closing(SlowProxy(host, 400 * KIB)))
        page = stack.enter_context(shown(tmp_path))
        assert page.state()["pulls"] == []
        name = f"{proxy.host}/shop/search:3"
        pull = stack.enter_context(
            subprocess.Popen(page.daemon.orlop_command("pull", "--progress", "none", name))
        )
        looks: list[list[dict[str, Any]]] = []

        def known() -> bool:
            looks.append(_known_pulls(page))
            return bool(looks[-1])

        page.daemon.wait_for(known)
        (seen,) = looks[-1]
        assert (seen["name"], seen["namespace"]) == (name, page.daemon.namespace)
        assert 0 < seen["done"] < seen["total"]
        assert page.state()["writes"] == []  # its own are no others'
        page.daemon.wait_for(lambda: any(p["done"] > seen["done"] for p in _known_pulls(page)), 30)
        assert pull.wait(patient(60)) == 0
        page.daemon.wait_for(lambda: page.state()["pulls"] == [])
        by_hand = stack.enter_context(
            subprocess.Popen(
                page.daemon.ctr_command(
                    "content", "ingest", "--expected-size", "1000000", "upload-by-hand"
                ),
                stdin=subprocess.PIPE,
            )
        )
        assert by_hand.stdin is not None
        by_hand.stdin.write(bytes(500_000))
        by_hand.stdin.flush()
        page.daemon.wait_for(lambda: bool(page.state()["writes"]), 20)
        (write,) = page.state()["writes"]
        assert (write["ref"], write["total"]) == ("upload-by-hand", 1_000_000)
        by_hand.stdin.write(bytes(500_000))
        by_hand.stdin.close()
        assert by_hand.wait(patient(30)) == 0
        page.daemon.orlop("rmi", name)


def _known_pulls(page: Page) -> list[dict[str, Any]]:
    """Those of which it is known what they consist of."""
    return [each for each in page.state()["pulls"] if len(each["layers"]) == 2 and each["done"]]


def test_events_as_they_happen(page: Page, busybox_archive: Path) -> None:
    following = events(page)
    assert next(following) is None
    page.daemon.ctr("images", "import", str(busybox_archive))
    page.daemon.ctr("run", "--rm", BUSYBOX, "brief", "sh", "-c", "exit 4", check=False)
    seen = []
    for event in following:
        seen.append(event)
        wanted = {("/containers/delete", "brief"), ("/tasks/exit", "brief")}
        if wanted <= {(each["topic"], each["subject"]) for each in seen}:
            break
    assert any(each["topic"].startswith("/images/") for each in seen)
    (ended,) = [e for e in seen if (e["topic"], e["subject"]) == ("/tasks/exit", "brief")]
    assert ended["status"] == 4
    assert ended["namespace"] == page.daemon.namespace
    assert abs(ended["at"] - time.time()) < patient(60)
    following.close()


def test_a_token(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("open sesame\n")
    with shown(tmp_path, f'token = "{token}"') as page:
        assert page.get("/").status == 200, "the page itself tells nothing"
        for path in ("/v1/state", "/v1/images", "/v1/events"):
            refused = page.get(path)
            assert (refused.status, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
            assert page.get(path, {"Authorization": "Bearer open"}).status == 401
        allowed = {"Authorization": "Bearer open sesame"}
        assert page.get("/v1/state", allowed).status == 200
        assert next(events(page, allowed)) is None


def test_tls(tmp_path: Path) -> None:
    made = make_certificates(tmp_path)
    settings = f'cert = "{made.server}"\nkey = "{made.server_key}"\nclient_ca = "{made.ca}"\n'
    context = ssl.create_default_context(cafile=str(made.ca))
    context.load_cert_chain(made.client, made.client_key)
    with shown(tmp_path, settings) as page:
        client = HTTPSConnection("127.0.0.1", page.port, timeout=30, context=context)
        with closing(client):
            client.request("GET", "/v1/events")
            answer = client.getresponse()
            assert answer.readline() == b"retry: 2000\n"
            time.sleep(1.2)  # in which the server looks twice whether anybody is there
            page.daemon.ctr("namespaces", "create", "elsewhere")
            told = [answer.readline() for _ in range(2)][1]
            assert b'"/namespaces/create"' in told


def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "status.sock"
    with shown(tmp_path, f'address = "{path}"'):
        assert path.stat().st_mode & 0o777 == 0o600
        command = ["curl", "-s", "--unix-socket", str(path), "http://localhost/v1/state"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert json.loads(done.stdout)["containers"] == []
    assert not path.exists()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "evil.example:80"}, 421),
        ({"Host": "localhost.evil.example"}, 421),
        ({"Host": "node1.example:1339"}, 200),
        ({"Host": "localhost:1"}, 200),
        ({"Host": "[::1]"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
    ],
)
def test_who_may_ask(page: Page, headers: dict[str, str], status: int) -> None:
    assert page.get("/v1/state", headers).status == status


_KINDS = {
    "/": "text/html",
    "/index.html": "text/html",
    "/page.js": "text/javascript",
    "/containers.js": "text/javascript",
    "/style.css": "text/css",
    "/icon.svg": "image/svg+xml",
    "/v1/state": "application/json",
    "/v1/images": "application/json",
}


_PAGE = Path(orlop.status.__file__).parent / "page"
_IMPORT = re.compile(r'^import .* from "\./(\S+)";$', re.MULTILINE)


def test_what_there_is_and_how_it_is_guarded(page: Page) -> None:
    for path, kind in _KINDS.items():
        answer = page.get(path)
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith(kind)
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert page.get(path, method="HEAD").body == b""
        assert page.get(path, method="POST").status == 405
    for path in ("/v1/", "/v1/state/", "/../style.css", "/page/index.html", "/metrics"):
        assert page.get(path).status == 404
    html = page.get("/").body.decode()
    assert "<style" not in html
    assert " style=" not in html
    assert html.count("<script") == 1, "and that one has a source"
    modules = {found for path in _PAGE.glob("*.js") for found in _IMPORT.findall(path.read_text())}
    assert modules | {"page.js"} == {path.name for path in _PAGE.glob("*.js")}
    for path in ("/", "/style.css", "/page.js", *(f"/{module}" for module in modules)):
        text = page.get(path).body.decode()
        assert "https://" not in text
        assert "innerHTML" not in text
        assert text.count("http://") == text.count("http://www.w3.org/2000/svg")


def test_the_slow_and_the_many_hold_up_nobody(tmp_path: Path) -> None:
    with shown(tmp_path) as page:
        with ExitStack() as stack:
            followers = [stack.enter_context(closing(events(page))) for _ in range(16)]
            assert [next(each) for each in followers] == [None] * 16
            full = page.get("/v1/events")
            assert full.status == 503
            assert b"16 others" in full.body
            for number in range(100):  # twice as many as there is room for
                client = stack.enter_context(socket.create_connection(("127.0.0.1", page.port)))
                # Some say nothing, some ask and do not read, some never end their question.
                with suppress(ConnectionError):
                    client.sendall((b"", b"GET /v1/state HTTP/1.1\r\nHost: localhost\r\n\r\n" * 9,
                                    b"GET / HTTP/1.1\r\nX: ")[number % 3])  # fmt: skip
            began = time.monotonic()
            assert page.get("/v1/state").status == 200
            page.daemon.ctr("namespaces", "create", "elsewhere")
            for each in followers:
                assert next(each)["subject"] == "elsewhere"
            assert time.monotonic() - began < patient(20)
        # And a daemon that stops does not wait for those who follow.
        with ExitStack() as stack:
            page.daemon.wait_for(partial(follow, page, stack), 20)
            assert page.daemon.stop() < patient(10)


def test_who_has_gone_leaves_room_for_others(page: Page) -> None:
    for _ in range(2):
        with ExitStack() as stack:
            for _ in range(16):
                page.daemon.wait_for(partial(follow, page, stack), 20)

"""Pulls side by side, over and over, and of much: each byte is fetched once, and little is held."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, nullcontext
from io import BytesIO
from pathlib import Path

import pytest

from orlop.client import Connection
from orlop.client.bytestreams import Download
from orlop.client.pull import pull_image
from orlop.client.transfers import transfer
from orlop.errors import Cancelled, DeadlineExceeded, NotFound, OrlopError
from orlop.rpc.convert import pack
from orlop.wire import transfer_types_pb2 as types
from orlop.wire.services import transfer_pb2
from tests import layered_image
from tests.daemon_fixture import Orlopd
from tests.registry_fixture import run_registry, skopeo_copy
from tests.slow_proxy import SlowProxy

pytestmark = pytest.mark.root

# Headers, manifests and tokens beside the layers.
OVERHEAD = 100_000


@pytest.fixture(scope="module")
def layered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """A registry with an image of five layers under two names, and the layers' bytes."""
    folder = tmp_path_factory.mktemp("layered")
    sizes = layered_image.build(folder / "layout", 1 << 20)
    (folder / "registry").mkdir()
    with run_registry(folder / "registry") as host:
        for name in ("one:1", "two:1"):
            skopeo_copy(f"oci:{folder}/layout:latest", f"docker://{host}/test/{name}")
        yield host, sum(sizes)


@pytest.fixture
def slow(layered: tuple[str, int]) -> Iterator[SlowProxy]:
    proxy = SlowProxy(layered[0], rate=4e6)
    yield proxy
    proxy.close()


def _pull(orlopd: Orlopd, name: str, namespace: str = "") -> None:
    with orlopd.connect(namespace) as connection:
        pull_image(connection, name)


def test_pulls_at_once_fetch_each_byte_once(
    orlopd: Orlopd, slow: SlowProxy, layered: tuple[str, int]
) -> None:
    names = [f"{slow.host}/test/one:1", f"{slow.host}/test/two:1"] * 2
    with ThreadPoolExecutor(len(names)) as pool:
        for done in [pool.submit(_pull, orlopd, name) for name in names]:
            done.result()
    assert slow.passed < layered[1] + OVERHEAD
    before = slow.passed
    _pull(orlopd, names[0])
    assert slow.passed - before < OVERHEAD / 10


def test_another_namespace_fetches_nothing_again(
    orlopd: Orlopd, slow: SlowProxy, layered: tuple[str, int]
) -> None:
    _pull(orlopd, f"{slow.host}/test/one:1")
    _pull(orlopd, f"{slow.host}/test/one:1", f"{orlopd.namespace}x")
    assert slow.passed < layered[1] + OVERHEAD


def test_who_waits_takes_over_from_who_gives_up(
    orlopd: Orlopd, slow: SlowProxy, layered: tuple[str, int]
) -> None:
    name = f"{slow.host}/test/one:1"
    slow.rate = layered[1] / 8  # so that it takes eight seconds
    with ThreadPoolExecutor(1) as pool, orlopd.connect() as first:
        impatient = pool.submit(_give_up, first, name)
        orlopd.wait_for(lambda: slow.passed > layered[1] / 8 or impatient.done())
        _pull(orlopd, name)
        assert impatient.result()
    # What was under way in the sockets of three connections is fetched twice.
    assert slow.passed < layered[1] + OVERHEAD + 3 * 150_000


def _give_up(connection: Connection, name: str) -> bool:
    """Pull for a short time; whether that was too little."""
    request = transfer_pb2.TransferRequest(
        source=pack(types.OCIRegistry(reference=name)),
        destination=pack(types.ImageStore(name=name)),
    )
    try:
        connection.transfer.transfer(request, timeout=5)
    except (Cancelled, DeadlineExceeded):
        return True
    except OrlopError as error:
        raise AssertionError(error) from error
    return False


@pytest.mark.parametrize("rate", [None, 40e6])
@pytest.mark.fresh
def test_memory_does_not_grow_with_the_image(
    orlopd: Orlopd, tmp_path: Path, rate: float | None
) -> None:
    """On a slow connection, or machine, parts of its four large layers wait, five of 2 MiB each."""
    layered_image.build(tmp_path / "layout", 40 << 20)
    (tmp_path / "registry").mkdir()
    with run_registry(tmp_path / "registry") as registry, ExitStack() as stack:
        skopeo_copy(f"oci:{tmp_path}/layout:latest", f"docker://{registry}/test/large:1")
        proxy = stack.enter_context(closing(SlowProxy(registry, rate))) if rate else None
        host = proxy.host if proxy else registry
        before = _memory(orlopd.pid, "VmRSS")
        _pull(orlopd, f"{host}/test/large:1")
        waiting, other = 4 * 5 * (2 << 20), 24 << 20
        assert _memory(orlopd.pid, "VmHWM") - before < waiting + other < (160 << 20) / 2


def _memory(pid: int, key: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(key)


def test_a_client_is_shown_the_requests(orlopd: Orlopd, registry: str) -> None:
    """As `ctr images pull --http-dump` asks for it; without a stream of its own, in the log."""

    def pull(name: str, stream: str = "") -> None:
        resolver = types.RegistryResolver(http_debug=types.DEBUG, logs_stream=stream)
        source = types.OCIRegistry(reference=name, resolver=resolver)
        transfer(connection, source, types.ImageStore(name=name))

    with orlopd.connect() as connection:
        for tag, kind in (("latest", None), ("nothing", NotFound)):
            shown = BytesIO()
            with closing(Download(connection, shown)) as download:
                with pytest.raises(kind) if kind else nullcontext():
                    pull(f"{registry}/test/busybox:{tag}", download.id)
                download.finish()
            head = f"HEAD http://{registry}/v2/test/busybox/manifests/{tag}"
            assert shown.getvalue().startswith(f"{head}\r\n".encode())
            assert f"HTTP {404 if kind else 200} ".encode() in shown.getvalue()
        assert "HEAD http" not in orlopd.log.read_text()
        pull(f"{registry}/test/busybox:latest")
    assert f"HEAD http://{registry}" in orlopd.log.read_text()

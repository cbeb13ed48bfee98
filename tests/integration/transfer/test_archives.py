"""Import and export through the daemon, against the archives of other tools."""

from __future__ import annotations

import gzip
import io
import json
import os
import queue
import random
import signal
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import zstandard
from google.protobuf.message import Message

from orlop.client.archive import export_images, import_images
from orlop.client.bytestreams import Upload
from orlop.client.connection import Connection
from orlop.client.pull import Progress
from orlop.errors import (
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    OrlopError,
    Unimplemented,
)
from orlop.rpc.client import Client
from orlop.rpc.convert import pack
from orlop.rpc.grpc.client import GrpcChannel
from orlop.rpc.ttrpc.client import TtrpcChannel
from orlop.wire import transfer_types_pb2 as types
from orlop.wire.services import streaming_pb2, transfer_pb2
from orlop.wire.types_pb2 import Platform
from tests.archive_fixture import (
    CONFIG,
    LAYER,
    MANIFEST,
    Files,
    add,
    docker,
    image,
    index,
    layout,
    named,
    path_of,
    tar_of,
)
from tests.daemon_fixture import Orlopd
from tests.registry_fixture import skopeo_copy

pytestmark = pytest.mark.root

NAME = "registry.test/hull:1"


def _import(orlopd: Orlopd, data: bytes, **options: object) -> list[str]:
    with orlopd.connect() as connection:
        return import_images(connection, io.BytesIO(data), **options)  # type: ignore[arg-type]


def _export(orlopd: Orlopd, *names: str, **options: object) -> dict[str, bytes]:
    out = io.BytesIO()
    with orlopd.connect() as connection:
        export_images(connection, names, out, **options)  # type: ignore[arg-type]
    out.seek(0)
    with tarfile.open(fileobj=out) as tar:
        return {
            each.name: file.read() for each in tar if (file := tar.extractfile(each)) is not None
        }


def _digests(orlopd: Orlopd) -> set[str]:
    return set(orlopd.ctr("content", "ls", "-q").stdout.split())


def _snapshots(orlopd: Orlopd) -> int:
    return len(orlopd.ctr("snapshots", "ls").stdout.splitlines()) - 1


def single(text: str = "hello") -> bytes:
    files: Files = {}
    return tar_of(layout(files, named(image(files, text=text), NAME)) | files)


def two_platforms(*left_out: str) -> tuple[Files, list[str]]:
    """The files of an image for amd64 and arm64, less one's; the digests of the manifests."""
    files: Files = {}
    sizes = []
    manifests = []
    for architecture in ("amd64", "arm64"):
        part: Files = {}
        manifests.append(image(part, architecture))
        sizes.append(manifests[-1]["digest"])
        if architecture not in left_out:
            files |= part
    target = index(files, *manifests)
    return layout(files, named(target, NAME)) | files, sizes


def plain(data: bytes) -> bytes:
    return data


@pytest.mark.parametrize("pack_up", [plain, gzip.compress, zstandard.compress])
def test_archives_may_be_compressed(orlopd: Orlopd, pack_up: Callable[[bytes], bytes]) -> None:
    assert _import(orlopd, pack_up(single())) == [NAME]
    assert "complete (2/2)" in orlopd.ctr("images", "check").stdout
    assert _snapshots(orlopd) == 1
    # What is there is not taken again, in whatever order it comes.
    before = orlopd.ctr("content", "ls").stdout.split()
    files = tarfile.open(fileobj=io.BytesIO(single()))  # noqa: SIM115
    backwards = {each.name: files.extractfile(each).read() for each in reversed(files.getmembers())}  # type: ignore[union-attr]
    assert _import(orlopd, tar_of({f"./{name}": data for name, data in backwards.items()}))
    assert len(orlopd.ctr("content", "ls").stdout.split()) == len(before)


def test_what_skopeo_and_umoci_write_runs_and_what_we_write_they_read(
    orlopd: Orlopd, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    source: Path = request.getfixturevalue("layout")
    archive = tmp_path / "made.tar"
    for target in ("oci-archive:{}:registry.test/o:1", "docker-archive:{}:registry.test/d:1"):
        archive.unlink(missing_ok=True)
        skopeo_copy(f"oci:{source}:latest", target.format(archive))
        (name,) = _import(orlopd, archive.read_bytes())
        assert orlopd.ctr("run", "--rm", name, "job", "echo", name).stdout == f"{name}\n"
    subprocess.run(["tar", "-C", source, "-czf", archive, "."], check=True)
    assert _import(orlopd, archive.read_bytes(), base_name="registry.test/u") == [
        "registry.test/u:latest"
    ]
    with orlopd.connect() as connection, archive.open("wb") as file:
        export_images(connection, ["registry.test/u:latest"], file)
    for kind in ("oci-archive", "docker-archive"):
        shown = subprocess.run(
            ["skopeo", "inspect", "--raw", f"{kind}:{archive}"], check=True, capture_output=True
        )
        assert json.loads(shown.stdout)["layers"]
    copied = tmp_path / "copied"
    skopeo_copy(f"oci-archive:{archive}", f"oci:{copied}:latest")
    theirs = {path.name for path in (source / "blobs/sha256").iterdir()}
    ours = {path.name for path in (copied / "blobs/sha256").iterdir()}
    assert ours <= theirs


def test_platforms(orlopd: Orlopd) -> None:
    files, (amd64, arm64) = two_platforms()
    assert _import(orlopd, tar_of(files), platform_names=["linux/arm64"]) == [NAME]
    assert _snapshots(orlopd) == 0  # it does not run here
    listed = orlopd.ctr("content", "ls").stdout
    assert f"gc.ref.content.m.0={amd64}" in listed
    assert f"gc.ref.content.m.1={arm64}" in listed
    with pytest.raises(NotFound, match="linux/s390x in the archive"):
        _import(orlopd, tar_of(files), platform_names=["linux/s390x"])
    assert path_of(arm64) not in _export(orlopd, NAME)
    arm = _export(orlopd, NAME, platform_names=["linux/arm64"])
    assert path_of(arm64) in arm
    assert path_of(amd64) not in arm
    assert {path_of(amd64), path_of(arm64)} <= set(_export(orlopd, NAME, all_platforms=True))
    with pytest.raises(NotFound, match="linux/s390x in the image"):
        _export(orlopd, NAME, platform_names=["linux/s390x"])


def test_an_index_of_which_one_platform_is_there(orlopd: Orlopd) -> None:
    files, (_, arm64) = two_platforms("arm64")
    with pytest.raises(NotFound, match=arm64):
        _import(orlopd, tar_of(files), platform_names=["linux/arm64"])
    assert _import(orlopd, tar_of(files)) == [NAME]
    assert _snapshots(orlopd) == 1
    with pytest.raises(NotFound, match=f'content "{arm64}".* is not here'):
        _export(orlopd, NAME, all_platforms=True)
    assert set(_export(orlopd, NAME)) == {*files, "manifest.json"}


def test_several_images_in_one_archive(orlopd: Orlopd) -> None:
    files: Files = {}
    one = image(files, text="one")
    two = index(files, image(files, text="two"))
    archive = tar_of(layout(files, named(one, "1"), named(two, "2"), named(one, "3")) | files)
    names = _import(orlopd, archive, base_name="registry.test/x", index_name="registry.test/all")
    assert names == [f"registry.test/x:{tag}" for tag in "123"] + ["registry.test/all"]
    written = _export(orlopd, *names[:3])
    found = json.loads(written["index.json"])["manifests"]
    assert [each["annotations"]["org.opencontainers.image.ref.name"] for each in found] == [*"123"]
    tags = [each["RepoTags"] for each in json.loads(written["manifest.json"])]
    assert tags == [["registry.test/x:1", "registry.test/x:3"], ["registry.test/x:2"]]
    assert _export(orlopd, *names[:3]) == written
    assert "manifest.json" not in _export(orlopd, names[0], docker_manifest=False)
    with pytest.raises(InvalidArgument, match="no image"):
        _export(orlopd)
    with pytest.raises(NotFound, match=r"registry\.test/none"):
        _export(orlopd, "registry.test/none")


def test_an_image_without_a_name_gets_one_by_its_digest(orlopd: Orlopd) -> None:
    files: Files = {}
    archive = tar_of(layout(files, image(files)) | files)
    (name,) = _import(orlopd, archive)
    assert name.startswith("import-")
    assert "@sha256:" in name
    assert _import(orlopd, archive, base_name="registry.test/x") == []
    labels = {"stowed": "aft"}
    (name,) = _import(orlopd, archive, base_name="registry.test/x", digests=True, labels=labels)
    assert name.startswith("registry.test/x@sha256:")
    assert "stowed=aft" in orlopd.ctr("images", "ls", f"name=={name}").stdout


def test_plain_layers_are_compressed_when_asked_for(orlopd: Orlopd) -> None:
    archive = tar_of(docker("a:1"))
    (name,) = _import(orlopd, archive, compress=True)
    assert len(_digests(orlopd)) == 3  # manifest, config and a layer
    written = _export(orlopd, name)
    layers = json.loads(written["manifest.json"])[0]["Layers"]
    assert gzip.decompress(written[layers[0]]) == docker("a:1")["one/layer.tar"]
    assert _snapshots(orlopd) == 1
    # A layer that is here compressed is used, whether asked for or not.
    target = orlopd.ctr("images", "ls").stdout.split("sha256:")[1]
    _import(orlopd, archive)
    assert orlopd.ctr("images", "ls").stdout.split("sha256:")[1] == target
    assert len(_digests(orlopd)) == 3


def test_nothing_stays_of_what_no_image_has(orlopd: Orlopd) -> None:
    (name,) = _import(orlopd, tar_of({"freight": bytes(1 << 20), **docker("a:1"), "z": b"more"}))
    assert len(_digests(orlopd)) == 3
    assert len(orlopd.ctr("content", "active").stdout.splitlines()) == 1
    assert "complete (2/2)" in orlopd.ctr("images", "check", f"name=={name}").stdout


def test_layers_that_are_fetched_elsewhere_may_be_left_out(orlopd: Orlopd) -> None:
    files: Files = {}
    config = add(files, b'{"os":"windows","architecture":"amd64"}', CONFIG)
    foreign = add(files, b"licensed", LAYER.replace("layer", "layer.nondistributable"))
    manifest = {"schemaVersion": 2, "config": config, "layers": [foreign]}
    target = add(files, json.dumps(manifest).encode(), MANIFEST)
    archive = layout(files, named(target, NAME)) | files
    assert _import(orlopd, tar_of(archive), unpack=False) == [NAME]
    slim = _export(orlopd, NAME, skip_non_distributable=True)
    assert set(archive) - set(slim) == {path_of(foreign["digest"])}
    assert _import(orlopd, tar_of(slim), unpack=False) == [NAME]


def test_imports_of_the_same_at_once(orlopd: Orlopd) -> None:
    archive = single("ballast" * 300_000)
    with ThreadPoolExecutor() as pool:
        jobs = [pool.submit(_import, orlopd, archive) for _ in range(4)]
        assert [job.result(30) for job in jobs] == [[NAME]] * 4
    assert _snapshots(orlopd) == 1
    assert len(_digests(orlopd)) == 3


def test_documents_of_other_platforms_and_a_limit(orlopd: Orlopd) -> None:
    """What no flag of the command asks for, but the transfer service knows."""
    files, (amd64, arm64) = two_platforms()
    here = Platform(os="linux", architecture="amd64")

    def config_labels() -> int:
        return orlopd.ctr("content", "ls").stdout.count("gc.ref.content.config")

    def transfer(**options: Any) -> None:
        with orlopd.connect() as connection:
            upload = Upload(connection, io.BytesIO(tar_of(files)))
            store = types.ImageStore(name="registry.test/all", **options)
            _transfer(connection, pack(types.ImageImportStream(stream=upload.id)), pack(store))
            upload.close()

    transfer(platforms=[here])
    assert config_labels() == 1
    transfer(manifest_limit=1)
    assert orlopd.ctr("images", "ls", "-q").stdout == "registry.test/all\n"
    transfer(platforms=[here], all_metadata=True)
    assert config_labels() == 2
    assert {amd64, arm64} <= _digests(orlopd)


def test_progress(orlopd: Orlopd) -> None:
    seen: list[Progress] = []
    _import(orlopd, single(), on_progress=seen.append)
    events = [each.event for each in seen]
    assert events[0] == "Importing"
    assert events[-2:] == ["saved", "Completed import"]
    assert {"downloading", "complete", "extracting", "extracted"} <= set(events)
    seen.clear()
    _export(orlopd, NAME, on_progress=seen.append)
    assert {"Exporting", "exporting", "Completed export"} == {each.event for each in seen}


class Broken(io.RawIOBase):
    """A file that breaks after the first bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        if data := self._data.read(min(size, 1000)):
            return data
        raise OSError("the disk is gone")

    def write(self, data: object) -> int:
        raise OSError("no space left")


def test_a_file_that_breaks_is_the_callers_error(orlopd: Orlopd) -> None:
    with orlopd.connect() as connection:
        with pytest.raises(OSError, match="the disk is gone"):
            import_images(connection, Broken(single()[:3000]))  # type: ignore[arg-type]
        assert import_images(connection, io.BytesIO(single())) == [NAME]
        with pytest.raises(OSError, match="no space left"):
            export_images(connection, [NAME], Broken(b""))  # type: ignore[arg-type]
        out = io.BytesIO()
        export_images(connection, [NAME], out)
        assert out.getvalue()


class Slow(io.RawIOBase):
    """A file that gives some of an archive, then nothing until it is told to."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)
        self.waits, self.go_on = threading.Event(), threading.Event()

    def read(self, size: int = -1) -> bytes:
        if data := self._data.read(size):
            return data
        self.waits.set()
        self.go_on.wait(20)
        return b""


def test_killed_in_the_middle(orlopd: Orlopd) -> None:
    big = single("ballast" * 500_000)
    slow = Slow(big[: len(big) * 2 // 3])
    failures: list[Exception] = []

    def work() -> None:
        try:
            with orlopd.connect() as connection:
                import_images(connection, slow)  # type: ignore[arg-type]
        except OrlopError as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    assert slow.waits.wait(10)
    orlopd.kill9()
    slow.go_on.set()
    thread.join(10)
    assert len(failures) == 1
    orlopd.start()
    assert orlopd.ctr("images", "ls", "-q").stdout == ""
    assert _snapshots(orlopd) == 0
    assert _import(orlopd, big) == [NAME]
    assert "complete (2/2)" in orlopd.ctr("images", "check").stdout


def test_a_client_that_goes_away_leaves_nothing(orlopd: Orlopd) -> None:
    slow = Slow(single()[:4000])
    connection = orlopd.connect()

    def work() -> None:
        with pytest.raises(OrlopError):
            import_images(connection, slow)  # type: ignore[arg-type]

    thread = threading.Thread(target=work)
    thread.start()
    assert slow.waits.wait(10)
    connection.close()
    slow.go_on.set()
    thread.join(10)
    orlopd.wait_for(lambda: len(orlopd.ctr("leases", "ls").stdout.splitlines()) == 1)
    assert len(orlopd.ctr("content", "active").stdout.splitlines()) == 1
    assert orlopd.ctr("images", "ls", "-q").stdout == ""


def _transfer(connection: Connection, source: Any, destination: Any) -> None:
    connection.transfer.transfer(
        transfer_pb2.TransferRequest(source=source, destination=destination), timeout=20
    )


class GoClient:
    """Streams over gRPC as containerd's own client uses them: 64 KiB of credit, 32 KiB a piece."""

    PIECE, WINDOW = 32 << 10, 64 << 10

    def __init__(self, orlopd: Orlopd) -> None:
        self.channel: Any = GrpcChannel(orlopd.address)
        self._streaming, self._transfer = (
            Client(service, self.channel, namespace=orlopd.namespace)
            for service in (
                streaming_pb2.DESCRIPTOR.services_by_name["Streaming"],
                transfer_pb2.DESCRIPTOR.services_by_name["Transfer"],
            )
        )
        self._outgoing: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def open(self, id: str) -> Any:
        self._outgoing.put(pack(streaming_pb2.StreamInit(id=id)))
        stream = self._streaming.stream(iter(self._outgoing.get, None))
        next(stream)
        return stream

    def transfer(self, source: Message, destination: Message) -> None:
        self._transfer.transfer(
            transfer_pb2.TransferRequest(source=pack(source), destination=pack(destination)),
            timeout=20,
        )

    def send(self, data: bytes) -> None:
        """Send an archive, waiting for credit whenever none is left."""
        stream, left = self.open("in"), 0
        for at in range(0, len(data), self.PIECE):
            if left < self.PIECE:
                left += types.WindowUpdate.FromString(next(stream).value).update
            self._outgoing.put(pack(types.Data(data=data[at : at + self.PIECE])))
            left -= self.PIECE
        self._outgoing.put(None)
        for _ in stream:  # the daemon ends it
            pass

    def receive(self, out: io.BytesIO) -> None:
        stream, window = self.open("out"), 0
        while True:
            if window < self.WINDOW:
                self._outgoing.put(pack(types.WindowUpdate(update=self.WINDOW)))
                window += self.WINDOW
            message = next(stream, None)
            if message is None:
                self._outgoing.put(None)
                return
            piece = types.Data.FromString(message.value).data
            assert len(piece) <= window
            out.write(piece)
            window -= len(piece)


def test_a_client_that_streams_as_containerds_does(orlopd: Orlopd) -> None:
    files: Files = {}
    noise = random.Random(7).randbytes(3 << 20).hex()
    archive = tar_of(layout(files, named(image(files, text=noise), NAME)) | files)
    reference = types.ImageReference(name="import", is_prefix=True, allow_overwrite=True)
    client = GoClient(orlopd)
    sender = threading.Thread(target=client.send, args=(archive,))
    sender.start()
    _retry(
        lambda: client.transfer(
            types.ImageImportStream(stream="in"), types.ImageStore(extra_references=[reference])
        )
    )
    sender.join(10)
    assert orlopd.ctr("images", "ls", "-q").stdout == f"{NAME}\n"
    out = io.BytesIO()
    client = GoClient(orlopd)
    receiver = threading.Thread(target=client.receive, args=(out,))
    receiver.start()
    _retry(
        lambda: client.transfer(types.ImageStore(name=NAME), types.ImageExportStream(stream="out"))
    )
    receiver.join(10)
    ours = io.BytesIO()
    with orlopd.connect() as connection:
        export_images(connection, [NAME], ours)
    assert out.getvalue() == ours.getvalue()


def _retry(transfer: Callable[[], None]) -> None:
    """Call when the other thread has opened its stream."""
    for _ in range(100):
        try:
            transfer()
        except NotFound as error:
            assert "stream" in str(error)
            time.sleep(0.02)
        else:
            return
    pytest.fail("the stream is never opened")


@pytest.mark.parametrize("transport", ["ttrpc", "grpc"])
@pytest.mark.parametrize("way", ["import", "export"])
def test_a_deadline_ends_a_transfer_whose_client_stalls(
    orlopd: Orlopd, transport: str, way: str
) -> None:
    _import(orlopd, single())
    done = threading.Event()

    def requests() -> Iterator[Any]:
        yield pack(streaming_pb2.StreamInit(id="stalled"))
        done.wait(20)

    channel: Any = (
        GrpcChannel(orlopd.address)
        if transport == "grpc"
        else TtrpcChannel.connect(f"{orlopd.address}.ttrpc")
    )
    streaming, transfer = (
        Client(service, channel, namespace=orlopd.namespace)
        for service in (
            streaming_pb2.DESCRIPTOR.services_by_name["Streaming"],
            transfer_pb2.DESCRIPTOR.services_by_name["Transfer"],
        )
    )
    store = pack(types.ImageStore(name=NAME))
    ends = {
        "import": (pack(types.ImageImportStream(stream="stalled")), store),
        "export": (store, pack(types.ImageExportStream(stream="stalled"))),
    }
    stream = streaming.stream(requests())
    next(stream)
    began = time.monotonic()
    source, destination = ends[way]
    with pytest.raises(DeadlineExceeded):
        transfer.transfer(
            transfer_pb2.TransferRequest(source=source, destination=destination), timeout=0.5
        )
    assert time.monotonic() - began < 5
    # The daemon lets go, though the client still has its stream open.
    orlopd.wait_for(lambda: len(orlopd.ctr("leases", "ls").stdout.splitlines()) == 1)
    orlopd.wait_for(lambda: not _reads_a_stream(orlopd))
    done.set()
    channel.close()


def _reads_a_stream(orlopd: Orlopd) -> bool:
    """Whether a thread of the daemon waits for a client's bytes or credit."""
    before = len(orlopd.log.read_text())
    os.kill(orlopd.pid, signal.SIGUSR1)
    time.sleep(0.1)
    dump = orlopd.log.read_text()[before:]
    assert "most recent call first" in dump
    return "bytestreams.py" in dump


def test_what_cannot_be_asked_for(orlopd: Orlopd) -> None:
    store = types.ImageStore(name="x")
    with orlopd.connect() as connection:
        with pytest.raises(NotFound, match='stream "none"'):
            _transfer(connection, pack(types.ImageImportStream(stream="none")), pack(store))
        with pytest.raises(NotFound, match='stream "none"'):
            _transfer(connection, pack(store), pack(types.ImageExportStream(stream="none")))
        prefix = types.ImageStore(extra_references=[types.ImageReference(name="x", is_prefix=True)])
        with pytest.raises(Unimplemented, match="prefix"):
            _transfer(connection, pack(prefix), pack(types.ImageExportStream(stream="none")))
        with pytest.raises(InvalidArgument, match='snapshotter "none"'):
            import_images(connection, io.BytesIO(single()), snapshotter="none")

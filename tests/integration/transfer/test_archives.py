"""Import and export through the daemon, against the archives of other tools."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import zstandard

from orlop.client.archive import export_images, import_images
from orlop.client.bytestreams import Upload
from orlop.client.connection import Connection
from orlop.client.streams import Progress
from orlop.errors import (
    InvalidArgument,
    NotFound,
    Unimplemented,
)
from orlop.rpc.convert import pack
from orlop.wire import transfer_types_pb2 as types
from orlop.wire.services import transfer_pb2
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
    single_image,
    tar_of,
)
from tests.daemon_fixture import Orlopd
from tests.registry_fixture import skopeo_copy

pytestmark = pytest.mark.root

NAME = "registry.test/hull:1"


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


def _import(orlopd: Orlopd, data: bytes, **options: object) -> list[str]:
    with orlopd.connect() as connection:
        return import_images(connection, io.BytesIO(data), **options)  # type: ignore[arg-type]


def single(text: str = "hello") -> bytes:
    return single_image(NAME, text)


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
    return layout(files, named(target, NAME)), sizes


def plain(data: bytes) -> bytes:
    return data


@pytest.mark.parametrize("pack_up", [plain, gzip.compress, zstandard.compress])
def test_archives_may_be_compressed(orlopd: Orlopd, pack_up: Callable[[bytes], bytes]) -> None:
    assert _import(orlopd, pack_up(single())) == [NAME]
    assert "complete (2/2)" in orlopd.ctr("images", "check").stdout
    assert _snapshots(orlopd) == 1
    # What is there is not taken again, in whatever order it comes.
    before = orlopd.ctr("content", "ls", "-q").stdout.split()
    files = tarfile.open(fileobj=io.BytesIO(single()))  # noqa: SIM115
    backwards = {each.name: files.extractfile(each).read() for each in reversed(files.getmembers())}  # type: ignore[union-attr]
    assert _import(orlopd, tar_of({f"./{name}": data for name, data in backwards.items()}))
    assert sorted(orlopd.ctr("content", "ls", "-q").stdout.split()) == sorted(before)


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
    _import(orlopd, tar_of(files))  # what no platform wanted was garbage
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
    archive = tar_of(layout(files, named(one, "1"), named(two, "2"), named(one, "3")))
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
    archive = tar_of(layout(files, image(files)))
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
    archive = layout(files, named(target, NAME))
    assert _import(orlopd, tar_of(archive), unpack=False) == [NAME]
    slim = _export(orlopd, NAME, skip_non_distributable=True)
    assert set(archive) - set(slim) == {path_of(foreign["digest"])}
    for digest in _digests(orlopd):
        orlopd.ctr("content", "rm", digest)
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


def test_artifacts_and_longer_digests(orlopd: Orlopd) -> None:
    files: Files = {}
    config = add(files, b"{}", "application/vnd.oci.empty.v1+json")
    chart = add(files, b"soundings", "text/plain", "sha512")
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": "application/vnd.test.chart",
        "config": config,
        "layers": [chart],
    }
    target = add(files, json.dumps(manifest).encode(), MANIFEST, "sha384")
    archive = layout(files, named(target, NAME))
    assert _import(orlopd, tar_of(archive)) == [NAME]
    exported = _export(orlopd, NAME)
    assert set(exported) == set(archive)  # docker could not load it
    assert json.loads(exported["index.json"])["manifests"][0]["digest"] == target["digest"]
    assert _import(orlopd, tar_of(exported)) == [NAME]


def test_an_index_within_an_index(orlopd: Orlopd) -> None:
    files, (_, arm64) = two_platforms()
    inner = json.loads(files["index.json"])["manifests"][0]
    outer = index(files, {**inner, "annotations": {}})
    archive = tar_of(layout(files, inner, named(outer, "registry.test/outer:1")))
    names = _import(orlopd, archive)
    assert names == [NAME, "registry.test/outer:1"]
    assert path_of(arm64) not in _export(orlopd, NAME)
    # What the second image needs of the first's is there, though the first alone does not.
    assert path_of(arm64) in _export(orlopd, *names)


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


def _transfer(connection: Connection, source: Any, destination: Any) -> None:
    connection.transfer.transfer(
        transfer_pb2.TransferRequest(source=source, destination=destination), timeout=20
    )


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

"""Archives that lie, lead astray or break off: one clear error, and nothing of them is seen."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import tarfile
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orlop.client.archive import import_images
from orlop.errors import DataLoss, InvalidArgument, NotFound, OrlopError, ResourceExhausted
from tests.archive_fixture import (
    MANIFEST,
    Files,
    add,
    docker,
    image,
    index,
    layout,
    link_to,
    named,
    path_of,
    tar_of,
)
from tests.daemon_fixture import Orlopd

pytestmark = pytest.mark.root

NAME = "registry.test/hull:1"


def honest(text: str = "hello") -> Files:
    files: Files = {}
    return layout(files, named(image(files, text=text), NAME))


def _import(orlopd: Orlopd, data: bytes) -> list[str]:
    with orlopd.connect() as connection:
        return import_images(connection, io.BytesIO(data))


def _nothing_is_seen(orlopd: Orlopd) -> None:
    assert orlopd.ctr("images", "ls", "-q").stdout == ""
    assert len(orlopd.ctr("snapshots", "ls").stdout.splitlines()) == 1
    assert len(orlopd.ctr("content", "active").stdout.splitlines()) == 1
    assert len(orlopd.ctr("leases", "ls").stdout.splitlines()) == 1


def _without(what: str) -> bytes:
    return tar_of({name: data for name, data in honest(what).items() if what not in name})


def _lying_blob(text: str) -> bytes:
    files = honest(text)
    name = next(name for name in files if name.startswith("blobs/"))
    return tar_of({**files, name: files[name] + b"!"})


def _lying_size() -> bytes:
    files: Files = {}
    return tar_of(layout(files, named({**image(files), "size": 7}, NAME)))


def _wrong_diff_id() -> bytes:
    files: Files = {}
    made = image(files)
    config = json.loads(files[path_of(made["digest"])])["config"]
    document = json.loads(files[path_of(config["digest"])])
    document["rootfs"]["diff_ids"] = ["sha256:" + "0" * 64]
    config = add(files, json.dumps(document).encode(), config["mediaType"])
    manifest = {**json.loads(files[path_of(made["digest"])]), "config": config}
    target = add(files, json.dumps(manifest).encode(), MANIFEST)
    return tar_of(layout(files, named(target, NAME)))


def _deep() -> bytes:
    files: Files = {}
    target = image(files)
    for _ in range(8):
        target = index(files, target)
    return tar_of(layout(files, named(target, NAME)))


def _crowd() -> bytes:
    """Indexes of indexes of indexes that all lead to the same: a bomb for who looks twice."""
    files: Files = {}
    target = image(files)
    for level in range(3):
        target = index(files, *[{**target, "annotations": {"n": f"{level}"}}] * 3000)
    return tar_of(layout(files, named(target, NAME)))


def _device() -> bytes:
    entry = tarfile.TarInfo("null")
    entry.type = tarfile.CHRTYPE
    return tar_of([("null", entry), *honest().items()])


def _names() -> bytes:
    """Long names of files and of what links lead to, all of which an import has to remember."""
    files = [(f"{at}/{'n' * 3900}", b"") for at in range(2500)]
    return tar_of([*files, *(link_to(f"l{at}", f"{at}/{'n' * 3900}") for at in range(2500))])


def _documents() -> bytes:
    """An index of manifests that are as large as they may be."""
    files: Files = {}
    made = image(files)
    manifest = json.loads(files[path_of(made["digest"])])
    notes = [{"at": f"{at}", "long": "n" * 4_190_000} for at in range(17)]
    crowd = [
        add(files, json.dumps({**manifest, "annotations": each}).encode(), MANIFEST)
        for each in notes
    ]
    return tar_of(layout(files, named(index(files, *crowd), NAME)))


def _docker_manifest(text: bytes) -> bytes:
    return tar_of({**docker("a:1"), "manifest.json": text})


def _docker_link(*links: tuple[str, tarfile.TarInfo]) -> bytes:
    files = docker("a:1")
    del files["one/layer.tar"]
    return tar_of([*links, *files.items()])


HOSTILE: dict[str, tuple[Callable[[], bytes], type[OrlopError], str]] = {
    "nothing": (lambda: b"", InvalidArgument, "not an image archive"),
    "no tar": (lambda: b"ballast" * 1000, InvalidArgument, "archive has a header"),
    "xz": (lambda: lzma.compress(tar_of(honest())), InvalidArgument, "compressed by xz"),
    "some tar": (lambda: tar_of({"a": b"b"}), InvalidArgument, "not an image archive"),
    "no index": (lambda: _without("index.json"), InvalidArgument, "without its"),
    "another version": (
        lambda: tar_of({**honest(), "oci-layout": b'{"imageLayoutVersion":"9.0.0"}'}),
        InvalidArgument, 'version "9.0.0"',
    ),
    "index no JSON": (
        lambda: tar_of({**honest(), "index.json": b"{"}), InvalidArgument, "does not parse",
    ),
    "huge index": (
        lambda: tar_of({**honest(), "index.json": bytes(5 << 20)}), InvalidArgument, "larger than",
    ),
    "two indexes": (
        lambda: tar_of([*honest().items(), ("index.json", b"{}")]), InvalidArgument, "twice",
    ),
    "two files": (
        lambda: tar_of([*docker("a:1").items(), ("./one/layer.tar", b"other")]),
        InvalidArgument, "twice",
    ),
    "blobs missing": (lambda: _without("blobs/"), NotFound, "missing in the archive"),
    "a lying blob": (lambda: _lying_blob("new"), DataLoss, "is not what its name says"),
    "a lying size": (_lying_size, DataLoss, "7 were announced"),
    "a wrong diff ID": (_wrong_diff_id, DataLoss, "unpacks to"),
    "another digest": (
        lambda: tar_of({**honest(), "blobs/md5/abc": b""}), InvalidArgument, "does not begin",
    ),
    "a bad digest": (
        lambda: tar_of({**honest(), "blobs/sha256/abc": b""}), InvalidArgument, "64 hexadecimal",
    ),
    "out of it": (
        lambda: tar_of({"../up": b"", **honest()}), InvalidArgument, "leads out of the archive",
    ),
    "absolute": (
        lambda: tar_of({"/etc/passwd": b"", **honest()}), InvalidArgument, "leads out",
    ),
    "a long name": (lambda: tar_of({"a/" * 3000: b""}), InvalidArgument, "no proper name"),
    "a long name of few letters": (
        lambda: tar_of({"é" * 2100: b""}), InvalidArgument, "no proper name",
    ),
    "names without end": (_names, ResourceExhausted, "bytes of names"),
    "documents without end": (_documents, ResourceExhausted, "documents have more than"),
    "a device": (_device, InvalidArgument, "neither file, folder nor link"),
    "deep": (_deep, InvalidArgument, "too deeply"),
    "a bad tag": (lambda: tar_of(docker("A B")), InvalidArgument, "not a repository name"),
    "no layer": (_docker_link, NotFound, 'file "one/layer.tar" in the archive'),
    "a link out": (
        lambda: _docker_link(link_to("one/layer.tar", "../../../etc/shadow")),
        InvalidArgument, "leads out of the archive",
    ),
    "links in a ring": (
        lambda: _docker_link(link_to("one/layer.tar", "x"), link_to("one/x", "layer.tar")),
        NotFound, "in the archive",
    ),
    "manifest.json no list": (lambda: _docker_manifest(b"{}"), InvalidArgument, "does not parse"),
    "no images": (lambda: tar_of({**honest(), "index.json": b'{"manifests":[]}'}),
        NotFound, "image for any platform"),
    "cut off": (lambda: tar_of(honest())[:520], InvalidArgument, "breaks off"),
    "cut off gzip": (
        lambda: gzip.compress(tar_of(honest()))[:-400], InvalidArgument, "breaks off|damaged",
    ),
    "damaged gzip": (
        lambda: gzip.compress(tar_of(honest()))[:-8] + b"8 zeros!", InvalidArgument, "damaged",
    ),
    "cut off zstd": (
        lambda: zstandard.compress(tar_of(honest()))[:-30], InvalidArgument, "breaks off|damaged",
    ),
    "no end": (
        lambda: tar_of(honest()) + bytes(20 << 20), InvalidArgument, "goes on after its end",
    ),
    "a bomb": (
        lambda: gzip.compress(bytes(64 << 20)) * 40, InvalidArgument, "goes on after its end",
    ),
    "an entry of petabytes": (
        lambda: _huge("a"), ResourceExhausted, "bytes",
    ),
}  # fmt: skip


def _huge(name: str) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size = 1 << 60
    return entry.tobuf(tarfile.GNU_FORMAT)


def test_each_gets_its_own_error(orlopd: Orlopd) -> None:
    for what, (make, kind, text) in HOSTILE.items():
        with pytest.raises(kind, match=text):
            pytest.fail(f"{what}: taken as {_import(orlopd, make())}")
    _nothing_is_seen(orlopd)
    assert _import(orlopd, tar_of(honest())) == [NAME]


def test_a_blob_that_is_there_is_no_excuse_for_another_of_its_name(orlopd: Orlopd) -> None:
    assert _import(orlopd, tar_of(honest())) == [NAME]  # which keeps it from the collector
    with pytest.raises(DataLoss, match="were announced"):
        _import(orlopd, _lying_blob("hello"))


def test_many_ways_to_one_image_are_walked_once(orlopd: Orlopd) -> None:
    assert _import(orlopd, _crowd()) == [NAME]


def test_a_name_for_two_images_is_refused(orlopd: Orlopd) -> None:
    files: Files = {}
    both = [named(image(files, text=text), NAME) for text in ("one", "two")]
    with pytest.raises(InvalidArgument, match="several images called"):
        _import(orlopd, tar_of(layout(files, *both)))
    assert orlopd.ctr("images", "ls", "-q").stdout == ""


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_damage_anywhere_is_an_error_or_harmless(orlopd: Orlopd, data: st.DataObject) -> None:
    """One byte of an archive is another, or the rest is gone."""
    whole = bytearray(tar_of(honest() if data.draw(st.booleans()) else docker(NAME)))
    at = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        whole[at] ^= data.draw(st.integers(1, 255))
    else:
        del whole[at:]
    try:
        _import(orlopd, bytes(whole))
    except OrlopError as error:
        assert type(error) in (InvalidArgument, DataLoss, NotFound, ResourceExhausted), error
    assert len(orlopd.ctr("content", "active").stdout.splitlines()) == 1
    assert "Traceback" not in orlopd.log.read_text()

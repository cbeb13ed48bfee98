"""Layers through the real worker: what must come out, and what must not."""

from __future__ import annotations

import gzip
import hashlib
import os
import stat
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

from orlop.content import ContentStore
from orlop.diff.apply import Applier, Limits
from orlop.errors import Cancelled, InvalidArgument, NotFound, OrlopError, ResourceExhausted
from orlop.events import Exchange
from orlop.fork.client import ForkServer
from orlop.metadata import Database
from orlop.oci import mediatypes
from orlop.oci.descriptor import Descriptor
from orlop.oci.digest import Digest
from orlop.rpc import CallContext
from orlop.sys.mount import Mount, mount_all, unmount
from tests import nasty_tree
from tests.layer_fixture import HOSTILE, Member, folder, layer, link, member, slashes_in_front

pytestmark = pytest.mark.root

GZIP = mediatypes.OCI_LAYER + "+gzip"


@pytest.fixture(scope="module")
def forks() -> Iterator[ForkServer]:
    server = ForkServer()
    server.start()
    yield server
    server.stop()


class Bench:
    """A content store, an applier, and a target folder."""

    def __init__(self, root: Path, forks: ForkServer) -> None:
        self.root = root
        self.database = Database(root / "meta.db")
        self.content = ContentStore(self.database, root / "content", Exchange())
        limits = Limits(max_size=64 << 20, max_entries=5000, max_zeros=64 << 20)
        self.applier = Applier(self.content, forks, limits)
        self.target = root / "target"
        self.target.mkdir()

    def put(self, data: bytes) -> str:
        with self.content.writer("ns", f"r-{hashlib.sha256(data).hexdigest()}") as writer:
            writer.write(data)
            return writer.commit()

    def apply(
        self,
        data: bytes,
        *,
        mounts: list[Mount] | None = None,
        media_type: str = GZIP,
        ctx: CallContext | None = None,
    ) -> Descriptor:
        layer = Descriptor(media_type=media_type, digest=self.put(data), size=len(data))
        bind = [Mount("bind", str(self.target), options=("rbind", "rw"))]
        mounts = bind if mounts is None else mounts
        return self.applier.apply("ns", layer, mounts, ctx or CallContext(namespace="ns"))

    def overlay(self, *lowers: Path) -> list[Mount]:
        work = self.root / "work"
        work.mkdir(exist_ok=True)
        options = (
            f"workdir={work}",
            f"upperdir={self.target}",
            "lowerdir=" + ":".join(map(str, lowers)),
        )
        return [Mount("overlay", "overlay", options=options)]


@pytest.fixture
def bench(tmp_path: Path, forks: ForkServer) -> Iterator[Bench]:
    made = Bench(tmp_path, forks)
    yield made
    made.database.close()
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


def test_everything_that_a_layer_may_hold(bench: Bench) -> None:
    long = "d/" + "/".join(["long" * 40] * 3) + "/" + "n" * 200
    xattrs = {"SCHILY.xattr.user.flag": "jolly", "SCHILY.xattr.user.bin": "a\nb=c"}
    data = layer(
        folder("d", mode=0o1777, uid=5, gid=6, mtime=1_400_000_000.25),
        member("d/file", b"hello", uid=1000, gid=1001, mtime=1_500_000_000.125),
        member("d/setuid", b"x", mode=0o4755, uid=1000),
        member("d/flagged", b"y", pax_headers=xattrs),
        link("d/sym", "file"),
        link("d/hard", "d/file", tarfile.LNKTYPE),
        member("d/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
        member("d/disk", type=tarfile.BLKTYPE, devmajor=7, devminor=9),
        member("d/pipe", type=tarfile.FIFOTYPE),
        member(long, b"deep"),
        member("d/empty"),
        member("d/big", os.urandom(3 << 20)),
    )
    done = bench.apply(gzip.compress(data))
    assert done.digest == Digest.of(data)
    assert (done.size, done.media_type) == (len(data), mediatypes.OCI_LAYER)
    d = bench.target / "d"
    info = d.stat()
    assert (info.st_mode & 0o7777, info.st_uid, info.st_gid) == (0o1777, 5, 6)
    assert info.st_mtime_ns == 1_400_000_000_250_000_000
    info = (d / "file").stat()
    assert (info.st_uid, info.st_gid, info.st_mode & 0o7777) == (1000, 1001, 0o644)
    assert info.st_mtime_ns == 1_500_000_000_125_000_000
    assert (d / "hard").stat().st_ino == info.st_ino
    assert (d / "setuid").stat().st_mode & 0o7777 == 0o4755
    assert os.getxattr(d / "flagged", "user.flag") == b"jolly"
    assert os.getxattr(d / "flagged", "user.bin") == b"a\nb=c"
    assert (d / "sym").readlink() == Path("file")
    assert (d / "null").stat().st_rdev == os.makedev(1, 3)
    assert stat.S_ISBLK((d / "disk").stat().st_mode)
    assert stat.S_ISFIFO((d / "pipe").stat().st_mode)
    assert (bench.target / long).read_bytes() == b"deep"
    assert (d / "big").stat().st_size == 3 << 20


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_formats(bench: Bench, format: int) -> None:
    name = "x" * 90 + "/" + "y" * 90
    bench.apply(layer(folder("x" * 90), member(name, b"data"), format=format))
    assert (bench.target / name).read_bytes() == b"data"


def test_compressions(bench: Bench) -> None:
    data = layer(member("a", b"a" * 100_000))
    half = len(data) // 2
    for number, packed in enumerate(
        [
            data,
            gzip.compress(data[:half]) + gzip.compress(data[half:]) + bytes(100),
            zstandard.compress(data[:half]) + zstandard.compress(data[half:]),
            gzip.compress(data + bytes(5000)),
        ]
    ):
        done = bench.apply(packed)
        expected = data + bytes(5000) if number == 3 else data
        assert done.digest == Digest.of(expected)


def test_like_gnu_tar(bench: Bench, tmp_path: Path) -> None:
    source = tmp_path / "source"
    subprocess.run(["cp", "-a", "/usr/share/perl5", str(source)], check=True)
    subprocess.run(
        ["tar", "-C", str(source), "--xattrs", "-cf", str(tmp_path / "a.tar"), "."], check=True
    )
    bench.apply((tmp_path / "a.tar").read_bytes())
    subprocess.run(["diff", "-r", "--no-dereference", str(source), str(bench.target)], check=True)

    def facts(root: Path) -> set[tuple[object, ...]]:
        found: set[tuple[object, ...]] = set()
        for path in root.rglob("*"):
            i = path.lstat()
            times = i.st_mtime_ns // 1_000_000_000
            found.add((path.relative_to(root), i.st_mode, i.st_uid, i.st_gid, times))
        return found

    assert facts(bench.target) == facts(source)


SPARSE = [
    ["--format=gnu"],
    *(["--format=posix", f"--sparse-version={version}"] for version in ("0.0", "0.1", "1.0")),
]


def _blocks(path: Path) -> int:
    """The bytes that it takes on disk."""
    return path.stat().st_blocks * 512


@pytest.mark.parametrize("format", SPARSE, ids=" ".join)
def test_sparse_files_of_gnu_tar(bench: Bench, tmp_path: Path, format: list[str]) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "holes").write_bytes(b"")
    for name, places in (("first", [0]), ("last", [9 << 20]), ("both", [0, 5 << 20])):
        with (source / name).open("wb") as file:
            for place in places:
                os.pwrite(file.fileno(), os.urandom(5000), place)
            file.truncate(10 << 20)
    os.truncate(source / "holes", 12 << 20)
    tar = subprocess.run(
        ["tar", "-C", source, "-S", *format, "-c", "."], check=True, capture_output=True
    ).stdout
    assert len(tar) < 1 << 20
    bench.apply(gzip.compress(tar))
    subprocess.run(["diff", "-r", source, bench.target], check=True)
    for path in source.iterdir():
        assert _blocks(bench.target / path.name) <= 256 << 10, path
        assert int((bench.target / path.name).stat().st_mtime) == int(path.stat().st_mtime)


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress, bytes])
def test_runs_of_zeros_become_holes(bench: Bench, compress: Callable[[bytes], bytes]) -> None:
    noise = os.urandom(100_000)
    files = {
        "zeros": bytes(20 << 20),
        "before": bytes(8 << 20) + noise,
        "after": noise + bytes(8 << 20),
        "between": noise + bytes(8 << 20) + noise,
        "noise": noise,
        "few": bytes(100),
    }
    bench.apply(compress(layer(*(member(name, data) for name, data in files.items()))))
    for name, data in files.items():
        assert (bench.target / name).read_bytes() == data, name
        assert (bench.target / name).stat().st_mtime == 1_500_000_000
        assert _blocks(bench.target / name) <= 2 << 20, name
    assert _blocks(bench.target / "noise") >= len(noise)


def test_zeros_have_a_limit_of_their_own(bench: Bench, forks: ForkServer) -> None:
    """They take no room; but who may not make any has them count as all else."""
    data = gzip.compress(layer(member("a", bytes(40 << 20)), member("b", bytes(30 << 20))))
    with pytest.raises(ResourceExhausted, match="more than the 67108864 bytes of zeros"):
        bench.apply(data)
    limits = Limits(max_size=1 << 20)
    bench.applier = Applier(bench.content, forks, limits)
    bench.apply(data + bytes(1))  # another blob
    assert (bench.target / "b").stat().st_size == 30 << 20
    bench.applier = Applier(bench.content, forks, replace(limits, max_zeros=0))
    with pytest.raises(ResourceExhausted, match="more than the 1048576 bytes that"):
        bench.apply(data + bytes(2))


def test_lists_of_a_folder_are_not_those_of_its_files(bench: Bench) -> None:
    """A default ACL is for what is made later; a layer's files have what the layer says."""
    lists = nasty_tree.acl(1000, 6), nasty_tree.acl(1001, 7)

    def shared(name: str) -> Member:
        made = tarfile.TarInfo(name)
        made.type, made.mode = tarfile.DIRTYPE, 0o770
        keys = (nasty_tree.ACCESS, nasty_tree.DEFAULT)
        made.pax_headers = {
            f"SCHILY.xattr.{key}": value.decode("utf-8", "surrogateescape")
            for key, value in zip(keys, lists, strict=True)
        }
        return made, b""

    first = member("d/first", b"x", mode=0o664)
    bench.apply(layer(shared("d"), first, folder("d/e"), link("l", "/d"), link("m", "d")))
    bench.apply(layer(member("d/second", b"x", mode=0o664), member("d/e/third", mode=0o660)))
    bench.apply(layer(member("l/fourth", b"x"), member("m/fifth"), shared("gone"), member("gone")))
    for name in ("first", "second", "e/third", "e", "fourth", "fifth", "../gone"):
        assert os.listxattr(bench.target / "d" / name) == [], name
    assert stat.S_IMODE((bench.target / "d/second").stat().st_mode) == 0o664
    d = bench.target / "d"
    assert (os.getxattr(d, nasty_tree.ACCESS), os.getxattr(d, nasty_tree.DEFAULT)) == lists
    bench.apply(layer(member("l/sixth"), folder("d")))  # found by a link, and told of by its name
    assert os.listxattr(d) == []
    bench.apply(layer(shared("l/f"), member("m/f/x"), folder("d/f"), shared("d/g"), folder("m/g")))
    assert os.listxattr(d / "f") == [] == os.listxattr(d / "g")
    bench.apply(layer(member("l/g/x"), shared("m/g")))
    assert os.getxattr(d / "g", nasty_tree.DEFAULT) == lists[1]
    bench.apply(layer(shared("d/h")))
    bench.apply(layer(member("l/h/x"), member("d/.wh.h"), member("m/h/y")))
    assert os.listxattr(d / "h") == []
    bench.apply(layer(member("l/g/y"), link("d/g", "f"), member("m/g/z")))
    assert os.listxattr(d / "f") == []


def test_a_file_in_a_folders_place_keeps_its_time(bench: Bench) -> None:
    bench.apply(layer(folder("a", mtime=1), member("a/b", b"x"), member("a", b"x", mtime=2)))
    assert (bench.target / "a").stat().st_mtime == 2


def test_whiteouts_in_an_upper_folder(bench: Bench, tmp_path: Path) -> None:
    lower = tmp_path / "lower"
    for name in ("gone", "opaque/old", "swapped/old", "kept"):
        path = lower / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("lower")
    mounts = bench.overlay(lower)
    bench.apply(
        layer(
            member(".wh.gone"),
            folder("opaque"),
            member("opaque/.wh..wh..opq"),
            member("opaque/new", b"new"),
            member(".wh.swapped"),
            folder("swapped"),
            member("kept", b"upper"),
            member(".wh.kept"),
            member(".wh..wh.plnk"),
        ),
        mounts=mounts,
    )
    assert stat.S_ISCHR((bench.target / "gone").lstat().st_mode)
    view = tmp_path / "view"
    view.mkdir()
    mount_all(mounts, view)
    try:
        assert not (view / "gone").exists()
        assert names(view / "opaque") == ["new"]
        assert names(view / "swapped") == []
        assert (view / "kept").read_text() == "upper"
    finally:
        unmount(view)


def test_whiteouts_in_a_plain_folder(bench: Bench) -> None:
    bench.apply(
        layer(member("gone", b"x"), folder("d"), member("d/old", b"x"), member("tree/a/b", b"x"))
    )
    bench.apply(
        layer(
            member(".wh.gone"),
            member("d/new", b"y"),
            member("d/.wh..wh..opq"),
            member(".wh.tree"),
            member(".wh.never"),
        )
    )
    assert names(bench.target) == ["d"]
    assert names(bench.target / "d") == ["new"]


def _lower_of_late_deletions() -> bytes:
    return layer(
        member("opaque/sub/old"),
        member("opaque/sub/deep/old"),
        member("opaque/old"),
        member("gone/old"),
        member("listed/old"),
        link("link", "gone"),
    )


def _late_deletions() -> bytes:
    """Each after what it spares: this layer's own."""
    return layer(
        folder("opaque"), folder("opaque/sub"), member("opaque/sub/new"),
        member("opaque/implied/new"), member("opaque/.wh..wh..opq"),
        member("gone/new"), member(".wh.gone"),
        folder("listed"), member(".wh.listed"),
    )  # fmt: skip


_LEFT = {
    "opaque", "opaque/sub", "opaque/sub/new", "opaque/implied", "opaque/implied/new",
    "gone", "gone/new", "listed", "link",
}  # fmt: skip


def test_late_deletions_in_a_plain_folder(bench: Bench) -> None:
    bench.apply(_lower_of_late_deletions())
    bench.apply(_late_deletions())
    assert _paths(bench.target) == _LEFT
    bench.apply(layer(member("link/through"), member(".wh.link")))
    assert _paths(bench.target) == _LEFT - {"link"} | {"gone/through"}


def test_late_deletions_in_an_upper_folder(bench: Bench, tmp_path: Path) -> None:
    base, view = tmp_path / "base", tmp_path / "view"
    base.mkdir()
    view.mkdir()
    bind = Mount("bind", str(base), options=("rbind", "rw"))
    bench.apply(_lower_of_late_deletions(), mounts=[bind])
    mounts = bench.overlay(base)
    bench.apply(_late_deletions(), mounts=mounts)
    mount_all(mounts, view)
    try:
        assert _paths(view) == _LEFT
    finally:
        unmount(view)


def _paths(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


def test_names_with_a_slash_in_front(bench: Bench) -> None:
    bench.apply(slashes_in_front())
    assert (bench.target / "ko-app/again").read_bytes() == b"x"
    assert (bench.target / "var/run/ko").is_dir()
    assert not Path("/ko-app").exists()


def test_a_setgid_folder_gives_its_group_to_nothing(bench: Bench) -> None:
    bench.apply(
        layer(
            folder("local", mode=0o2775, gid=50),
            member("local/file"),
            member("local/program", mode=0o6755),
            folder("local/folder"),
        )
    )
    for name, mode in (("file", 0o644), ("program", 0o6755), ("folder", 0o755)):
        info = (bench.target / "local" / name).stat()
        assert (info.st_gid, stat.S_IMODE(info.st_mode)) == (0, mode), name


def test_a_name_as_long_as_a_book(bench: Bench) -> None:
    with pytest.raises(InvalidArgument, match="cannot be unpacked") as caught:
        bench.apply(layer(member("n" * 300_000)))
    assert len(str(caught.value)) < 2000


def test_later_entries_replace_earlier_ones(bench: Bench) -> None:
    bench.apply(
        layer(
            member("a", b"file"),
            folder("a"),
            member("a/x", b"x"),
            link("b", "a"),
            folder("b"),
            member("b/y", b"y"),
            folder("c"),
            member("c/z", b"z"),
            member("c", b"now a file"),
            member("f", b"first"),
            member("f", b"second"),
        )
    )
    assert (bench.target / "a/x").read_bytes() == b"x"
    assert (bench.target / "b/y").read_bytes() == b"y"
    assert not (bench.target / "b").is_symlink()
    assert (bench.target / "c").read_bytes() == b"now a file"
    assert (bench.target / "f").read_bytes() == b"second"


def test_implied_folders_look_as_below(bench: Bench, tmp_path: Path) -> None:
    lower = tmp_path / "lower"
    (lower / "tmp/deep").mkdir(parents=True)
    (lower / "tmp").chmod(0o1777)
    os.chown(lower / "tmp/deep", 7, 8)
    bench.apply(
        layer(member("tmp/deep/new", b"x"), member("own/new", b"x")), mounts=bench.overlay(lower)
    )
    assert (bench.target / "tmp").stat().st_mode & 0o7777 == 0o1777
    info = (bench.target / "tmp/deep").stat()
    assert (info.st_uid, info.st_gid) == (7, 8)
    assert (bench.target / "own").stat().st_mode & 0o7777 == 0o755


@pytest.mark.parametrize("between", ["file", "link", "deletion", "opaque folder"])
def test_implied_folders_look_like_nothing_that_is_hidden(
    bench: Bench, tmp_path: Path, between: str
) -> None:
    lower, middle = tmp_path / "lower", tmp_path / "middle"
    for folder_below in (lower / "a", lower / "a/b", lower / "a/b/c"):
        folder_below.mkdir(mode=0o700, parents=True)
    middle.mkdir()
    match between:
        case "file":
            (middle / "a").write_text("")
        case "link":
            (middle / "a").symlink_to("elsewhere")
        case "deletion":
            os.mknod(middle / "a", stat.S_IFCHR, os.makedev(0, 0))
        case _:
            (middle / "a/b").mkdir(parents=True)
            os.setxattr(middle / "a", "trusted.overlay.opaque", b"y")
    bench.apply(layer(member("a/b/c/new")), mounts=bench.overlay(middle, lower))
    assert stat.S_IMODE((bench.target / "a/b/c").stat().st_mode) == 0o755


def test_links_inside_the_layer_are_followed(bench: Bench) -> None:
    bench.apply(
        layer(
            folder("usr"), folder("usr/lib"),
            link("lib", "usr/lib"), member("lib/a", b"a"),
            link("lib64", "/usr/lib"), member("lib64/b", b"b"),
        )
    )  # fmt: skip
    assert names(bench.target / "usr/lib") == ["a", "b"]


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_layers_are_refused(bench: Bench, what: str, tmp_path: Path) -> None:
    before = set(tmp_path.parent.iterdir())
    with pytest.raises((InvalidArgument, ResourceExhausted), match="layer") as caught:
        bench.apply(HOSTILE[what]())
    assert "Traceback" not in str(caught.value)
    assert not (tmp_path / "outside").exists()
    assert set(tmp_path.parent.iterdir()) == before


def test_media_types_and_missing_blobs(bench: Bench) -> None:
    with pytest.raises(InvalidArgument, match="no processor for media-type"):
        bench.apply(layer(), media_type="text/html")
    missing = Descriptor(media_type=GZIP, digest=f"sha256:{'0' * 64}", size=1)
    with pytest.raises(NotFound):
        mounts = [Mount("bind", str(bench.target), options=("rbind", "rw"))]
        bench.applier.apply("ns", missing, mounts, CallContext(namespace="ns"))


def test_other_mounts_are_mounted_in_the_worker(bench: Bench) -> None:
    twice = Mount("bind", str(bench.target), options=("rbind", "rw"))
    bench.apply(layer(member("a", b"x")), mounts=[twice, twice])
    assert (bench.target / "a").read_bytes() == b"x"


def test_overlayfs_attributes_are_not_a_layers_to_set(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "lower").mkdir()
    sly = {
        "SCHILY.xattr.trusted.overlay.redirect": "/etc",
        "SCHILY.xattr.trusted.overlay.opaque": "n",
        "SCHILY.xattr.trusted.honest": "kept",
    }
    bench.apply(
        layer(folder("d", pax_headers=sly), member("d/.wh..wh..opq")),
        mounts=bench.overlay(tmp_path / "lower"),
    )
    d = bench.target / "d"
    assert sorted(os.listxattr(d)) == ["trusted.honest", "trusted.overlay.opaque"]
    assert os.getxattr(d, "trusted.overlay.opaque") == b"y"


def test_many_long_implied_folders(bench: Bench) -> None:
    names_of = [f"{n:03}" + "/" + "/".join(["é" * 100] * 4) + "/file" for n in range(150)]
    done = bench.apply(layer(*(member(name, b"x") for name in names_of)))
    assert done.size > 0
    assert all((bench.target / name).exists() for name in names_of)


def test_a_folder_may_become_a_file(bench: Bench) -> None:
    bench.apply(layer(folder("a"), folder("a/b"), member("a", b"now a file")))
    assert (bench.target / "a").read_bytes() == b"now a file"


def test_no_folder_stays_of_a_mount_in_the_worker(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    places = tmp_path / "places"
    places.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(places))
    twice = Mount("bind", str(bench.target), options=("rbind", "rw"))
    bench.apply(layer(member("a", b"x")), mounts=[twice, twice])
    assert list(places.iterdir()) == []


def test_a_worker_sees_nothing_but_its_mounts(bench: Bench) -> None:
    """What they do not cover is an empty folder of its own, which nothing can be unpacked to."""
    with pytest.raises(InvalidArgument, match="no mounts to apply layer sha256:"):
        bench.apply(layer(), mounts=[])
    below = Mount("bind", str(bench.target), "fs", ("rbind", "rw"))
    with pytest.raises(OrlopError, match="No such file"):
        bench.apply(layer() + bytes(512), mounts=[below])
    again = Mount("none", "none", options=("remount", "ro"))
    with pytest.raises(OrlopError, match="Invalid argument"):
        bench.apply(layer() + bytes(1024), mounts=[again])


def test_a_cancelled_call_ends_the_worker(bench: Bench) -> None:
    ctx = CallContext(namespace="ns")
    ctx.cancel()
    with pytest.raises(Cancelled):
        bench.apply(gzip.compress(layer(member("a", bytes(30 << 20)))), ctx=ctx)


def test_mutated_layers_end_in_an_error_or_a_tree(bench: Bench) -> None:
    """A cheap fuzz: flip bytes of a good layer; nothing may hang or leave the folder."""
    import random

    source = random.Random(7)
    good = layer(folder("d"), member("d/a", b"x" * 700), link("d/l", "a"), member("b", b"y"))
    for _ in range(60):
        data = bytearray(good)
        for _ in range(source.randrange(1, 6)):
            data[source.randrange(len(data))] = source.randrange(256)
        try:
            bench.apply(bytes(data))
        except OrlopError:
            pass
    assert {path.name for path in bench.root.iterdir()} <= {
        "meta.db", "meta.db-wal", "meta.db-shm", "content", "target",
    }  # fmt: skip

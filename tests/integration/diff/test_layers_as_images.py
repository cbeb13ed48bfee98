"""Layers as EROFS images: mounted, they are what the same layers are in a folder."""

from __future__ import annotations

import gzip
import os
import random
import stat
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orlop.content import ContentStore
from orlop.diff.apply import Applier, Limits
from orlop.diff.sealing import Sealer
from orlop.erofs import folders
from orlop.errors import InvalidArgument, OrlopError, ResourceExhausted
from orlop.events import Exchange
from orlop.fork.client import ForkServer
from orlop.metadata import Database
from orlop.oci import mediatypes
from orlop.oci.descriptor import Descriptor
from orlop.oci.digest import Digest
from orlop.rpc import CallContext
from orlop.snapshots import ErofsDriver, SnapshotIds, SnapshotStore
from orlop.sys.loop import _mount_by_device, mount_image
from orlop.sys.mount import Mount, mount_all, unmount
from orlop.sys.removal import remove_tree
from tests import nasty_tree
from tests.layer_fixture import (
    HOSTILE,
    Member,
    folder,
    layer,
    link,
    member,
    old_sparse,
    slashes_in_front,
    sparse,
)
from tests.patience import patient
from tests.tree import describe

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def forks() -> Iterator[ForkServer]:
    server = ForkServer()
    server.start()
    yield server
    server.stop()


class Bench:
    """Applies layers to folders, and to folders that want an image."""

    def __init__(self, root: Path, forks: ForkServer, block_size: int) -> None:
        self.root = root
        self.block_size = block_size
        self._database = Database(root / "meta.db")
        self._content = ContentStore(self._database, root / "content", Exchange())
        limits = Limits(max_size=64 << 20, max_entries=5000, max_zeros=64 << 20)
        self._applier = Applier(self._content, forks, limits)
        self._count = 0
        self.last = root

    def limit(self, limits: Limits, forks: ForkServer) -> None:
        self._applier = Applier(self._content, forks, limits)

    def close(self) -> None:
        self._database.close()

    def apply(self, data: bytes, *lowers: Path, image: bool = True) -> Path:
        """The folder of a snapshot with the layer: `fs` has its files, or `layer.erofs` them."""
        self._count += 1
        made = self.last = self.root / f"s{self._count}"
        for name in ("fs", "work"):
            (made / name).mkdir(parents=True)
        if image:
            folders.mark(made, self.block_size)
        below = lowers
        if not below:
            (self.root / "nothing").mkdir(exist_ok=True)
            below = (self.root / "nothing",)
        options = (
            f"workdir={made}/work",
            f"upperdir={made}/fs",
            f"lowerdir={':'.join(map(str, below))}",
        )
        self.apply_to([Mount("overlay", "overlay", "", options)], data)
        return made

    def apply_to(self, mounts: list[Mount], data: bytes) -> None:
        digest = self._put(data)
        descriptor = Descriptor(
            media_type=mediatypes.OCI_LAYER + "+gzip", digest=digest, size=len(data)
        )
        done = self._applier.apply("ns", descriptor, mounts, CallContext(namespace="ns"))
        if data[:2] != b"\x1f\x8b":
            assert done.digest == Digest.of(data)

    def _put(self, data: bytes) -> str:
        with self._content.writer("ns", Digest.of(data)) as writer:
            writer.write(data)
            try:
                return writer.commit()
            except OrlopError:
                return Digest.of(data)

    @contextmanager
    def mounted(self, made: Path) -> Iterator[Path]:
        point = made / "layer"
        point.mkdir()
        mount_image(made / folders.LAYER, point, "erofs")
        try:
            yield point
        finally:
            unmount(point)

    def same(self, data: bytes, *lowers: Path) -> None:
        """Apply to both, and compare."""
        plain, made = self.apply(data, *lowers, image=False), self.apply(data, *lowers)
        assert list((made / "fs").iterdir()) == []
        with self.mounted(made) as point:
            files, shown = _shape(plain / "fs"), _shape(point)
            for path, entry in files.items():
                assert shown.get(path) == entry, path
            assert shown.keys() == files.keys()
        self.check(made)

    def check(self, made: Path) -> None:
        """By Debian's fsck.erofs, which knows blocks of 4096 bytes only."""
        if self.block_size == 4096:
            told = subprocess.run(
                ["fsck.erofs", str(made / folders.LAYER)],
                capture_output=True,
                text=True,
                check=False,
            )
            assert told.returncode == 0, told.stderr


def _opaque(root: Path) -> set[str]:
    return {
        str(path.relative_to(root))
        for path in [root, *root.rglob("*")]
        if "trusted.overlay.opaque" in os.listxattr(path, follow_symlinks=False)
    }


@pytest.fixture(params=[512, 4096])
def bench(request: pytest.FixtureRequest, tmp_path: Path, forks: ForkServer) -> Iterator[Bench]:
    made = Bench(tmp_path, forks, request.param)
    yield made
    made.close()
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


def test_everything_that_a_layer_may_hold(bench: Bench) -> None:
    long = "d/" + "/".join(["long" * 40] * 3) + "/" + "n" * 200
    many = {f"SCHILY.xattr.user.n{n:03}": "v" * n for n in range(30)}
    bench.same(
        layer(
            folder("d", mode=0o1777, uid=5, gid=6, mtime=1_400_000_000.25),
            member("d/file", b"hello", uid=1000, gid=1 << 20, mtime=1_500_000_000.125),
            member("d/old", b"x", mtime=-5.0),
            member("d/setuid", b"x", mode=0o4755, uid=1000),
            member("d/flagged", b"y", pax_headers={"SCHILY.xattr.user.flag": "jolly", **many}),
            folder("d/folder", pax_headers={"SCHILY.xattr.trusted.x": "y"}),
            link("d/sym", "file"),
            link("d/far", "z/" * 1500),
            link("d/hard", "d/file", tarfile.LNKTYPE),
            link("d/hardlink-of-a-link", "d/sym", tarfile.LNKTYPE),
            member("d/null", type=tarfile.CHRTYPE, devmajor=1, devminor=300, mode=0o666),
            member("d/disk", type=tarfile.BLKTYPE, devmajor=259, devminor=70000),
            member("d/pipe", type=tarfile.FIFOTYPE),
            folder("/".join(long.split("/")[:2])),
            folder("/".join(long.split("/")[:3])),
            folder("/".join(long.split("/")[:4])),
            member(long, b"deep"),
            member("d/empty"),
            *(member(f"d/folder/{n:04}{'x' * (n % 200)}", b"%d" % n) for n in range(900)),
            member("d/page", os.urandom(4096)),
            member("d/big", os.urandom(3 << 20)),
        )
    )  # fmt: skip


def test_capabilities_and_access_lists(bench: Bench, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    nasty_tree.build(source)
    nasty_tree.change(source)
    tar = tmp_path / "nasty.tar"
    subprocess.run(
        ["tar", "-C", str(source), "--xattrs", "--xattrs-include=*", "-cf", str(tar), "."],
        check=True,
    )  # fmt: skip
    bench.same(tar.read_bytes())


def test_blocks_of_both_sizes_hold_one_tree(tmp_path: Path, forks: ForkServer) -> None:
    """Debian's fsck.erofs knows but the large ones: all inodes of the others are as it has seen."""
    source = tmp_path / "source"
    source.mkdir()
    nasty_tree.build(source)
    nasty_tree.change(source)
    for number in range(700):
        (source / f"folder of many/{'x' * (number % 150)}{number}").parent.mkdir(exist_ok=True)
        (source / f"folder of many/{'x' * (number % 150)}{number}").write_bytes(b"x" * number)
    tar = subprocess.run(
        ["tar", "-C", source, "-S", "--xattrs", "--xattrs-include=*", "-c", "."],
        check=True,
        capture_output=True,
    ).stdout
    found = []
    for block_size in (4096, 512):
        (tmp_path / f"by-{block_size}").mkdir()
        bench = Bench(tmp_path / f"by-{block_size}", forks, block_size)
        made = bench.apply(tar)
        bench.check(made)
        with bench.mounted(made) as point:
            assert os.statvfs(point).f_bsize == block_size
            found.append((_inodes(point), describe(point)))
        bench.close()
    assert len(found[0][0]) > 750
    assert found[0] == found[1]


def _inodes(root: Path) -> dict[str, tuple[int, ...]]:
    """All that stat(2) tells but what depends on blocks, as folders' sizes do."""
    found: dict[str, tuple[int, ...]] = {}
    for path in [root, *root.rglob("*")]:
        i = path.lstat()
        size = 0 if stat.S_ISDIR(i.st_mode) else i.st_size
        found[str(path.relative_to(root))] = (
            i.st_mode, i.st_ino, i.st_nlink, i.st_uid, i.st_gid, size, i.st_rdev, i.st_mtime_ns
        )  # fmt: skip
    return found


@pytest.mark.parametrize("format", ["gnu", "posix"])
def test_sparse_files(bench: Bench, tmp_path: Path, format: str) -> None:
    """Where blocks are a tar's own, content that is not all there is written once more."""
    source = tmp_path / "source"
    source.mkdir()
    for name, parts in (("none", 0), ("one", 1), ("many", 50)):
        with (source / name).open("wb") as file:
            for number in range(parts):
                os.pwrite(file.fileno(), os.urandom(3000), number * 70_000 + 60_001)
            file.truncate(6 << 20)
    os.link(source / "many", source / "other name")
    (source / "plain").write_bytes(os.urandom(1 << 20))
    tar = subprocess.run(
        ["tar", "-C", source, "-S", f"--format={format}", "-c", "."],
        check=True,
        capture_output=True,
    ).stdout
    assert len(tar) < 3 << 20
    bench.same(tar)
    bench.same(layer(member("zeros", bytes(9 << 20)), member("next", b"x" * 9000)))
    assert (bench.last / folders.LAYER).stat().st_blocks * 512 < 2 << 20
    bench.same(old_sparse([(5, 4), (10_000, 4)], 60 << 20) + bytes(9000))


def test_more_than_an_image_can_hold(bench: Bench, forks: ForkServer) -> None:
    """Numbers of blocks have 32 bits."""
    limits = Limits(max_zeros=1 << 60)
    bench.limit(limits, forks)
    data = layer(sparse("0,8", (1 << 32) * bench.block_size))
    if bench.block_size == 512:
        with pytest.raises(ResourceExhausted, match="no image with blocks of 512 has as many"):
            bench.apply(data)


def test_whiteouts(bench: Bench, tmp_path: Path) -> None:
    bench.same(
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
        )
    )


def test_deletions_may_come_after_what_they_spare(bench: Bench) -> None:
    bench.same(
        layer(
            folder("opaque"), member("opaque/sub/new"), member("opaque/.wh..wh..opq"),
            member("implied/new"), member(".wh.implied"),
            folder("listed"), member(".wh.listed"),
        )
    )  # fmt: skip


def test_names_with_a_slash_in_front(bench: Bench) -> None:
    bench.same(slashes_in_front())


def test_a_hard_link_that_comes_twice(bench: Bench) -> None:
    again = link("b", "a", tarfile.LNKTYPE)
    bench.same(layer(member("a", b"x"), again, again, folder("s"), member("s/f"), again))


def test_later_entries_replace_earlier_ones(bench: Bench) -> None:
    bench.same(
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
            link("g", "f", tarfile.LNKTYPE),
            member("f", b"second"),
            folder("a", mode=0o700, uid=9),
        )
    )


def test_links_inside_the_layer_are_followed(bench: Bench) -> None:
    bench.same(
        layer(
            folder("usr"), folder("usr/lib"), folder("usr/deep"),
            link("lib", "usr/lib"), member("lib/a", b"a"),
            link("lib64", "/usr/lib"), member("lib64/b", b"b"),
            link("usr/deep/up", "../lib"), member("usr/deep/up/c", b"c"),
        )
    )  # fmt: skip


def test_implied_folders_look_as_below(bench: Bench, tmp_path: Path) -> None:
    lower = tmp_path / "lower"
    (lower / "tmp/deep").mkdir(parents=True)
    (lower / "tmp").chmod(0o1777)
    os.chown(lower / "tmp/deep", 7, 8)
    data = layer(member("tmp/deep/new", b"x"), member("gone/x", b"x"), member("gone", b"a file"))
    bench.same(data, lower)
    os.setxattr(lower / "tmp", "user.kept", b"v")
    bench.same(data, lower)
    with bench.mounted(bench.apply(layer(member("own/new", b"x")), lower)) as point:
        assert stat.S_IMODE((point / "own").stat().st_mode) == 0o755


def test_times_of_folders(bench: Bench) -> None:
    made = bench.apply(layer(folder("d", mtime=1_400_000_000.25), member("d/a", b"x")))
    with bench.mounted(made) as point:
        assert (point / "d").stat().st_mtime_ns == 1_400_000_000_250_000_000
        assert (point / "d").stat().st_nlink == 2
        assert point.stat().st_nlink == 3


def test_an_empty_layer(bench: Bench) -> None:
    bench.same(layer())
    bench.same(gzip.compress(layer()))


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_layers_are_refused(bench: Bench, what: str, tmp_path: Path) -> None:
    data = HOSTILE[what]()
    with pytest.raises((InvalidArgument, ResourceExhausted), match="layer") as caught:
        bench.apply(data)
    with pytest.raises(type(caught.value)) as other:
        bench.apply(data, image=False)
    if what not in ("through a link up", "through a deep link up", "owner that no file can have"):
        assert str(caught.value) == str(other.value)
    assert not (tmp_path / "s1" / folders.LAYER).exists()


MORE_HOSTILE = {
    "links in a circle": [link("a", "b"), link("b", "a"), member("a/x", b"x")],
    "a dangling link as folder": [link("a", "nowhere"), member("a/x", b"x")],
    "a hard link to a folder": [folder("a"), link("b", "a", tarfile.LNKTYPE)],
    "a name too long": [member("n" * 256, b"x")],
    "a folder's name too long": [member("n" * 256 + "/a", b"x")],
    "a link too long": [link("a", "x" * 5000)],
    "a link to nothing": [link("a", "")],
    "a path too long": [member("a/" * 2100 + "x", b"x")],
    "an attribute too long": [member("a", pax_headers={"SCHILY.xattr.user.x": "v" * 70_000})],
}


@pytest.mark.parametrize("what", MORE_HOSTILE)
def test_what_no_filesystem_can_hold_is_refused(bench: Bench, what: str) -> None:
    data = layer(*MORE_HOSTILE[what])
    for image in (True, False):
        with pytest.raises(InvalidArgument, match="layer"):
            bench.apply(data, image=image)


TOO_LATE = {"mtime": str(1 << 70)}


@pytest.mark.parametrize(
    "late",
    [
        member("a/.wh.x", pax_headers=TOO_LATE),
        member("a/.wh..wh..opq", pax_headers=TOO_LATE),
        member("a/b", type=tarfile.LNKTYPE, linkname="first", pax_headers=TOO_LATE),
    ],
    ids=["deletion", "opaque", "hard link"],
)
def test_a_time_that_implied_folders_cannot_have(bench: Bench, late: Member) -> None:
    with pytest.raises(InvalidArgument, match="time out of range"):
        bench.apply(layer(member("first", b"x"), late))


@pytest.mark.slow
def test_folders_that_one_entry_implies(bench: Bench) -> None:
    """They are made, however many; and count as entries."""
    path = "d/" * 1200 + "file"
    data = layer(member(path, b"x"))
    plain, made = bench.apply(data, image=False), bench.apply(data)
    with bench.mounted(made) as point:
        assert (point / path).read_bytes() == (plain / "fs" / path).read_bytes() == b"x"
    remove_tree(plain)
    many = layer(*(member(f"{each}/" * 2000 + "file", b"x") for each in "abc"))
    for image in (True, False):
        with pytest.raises(ResourceExhausted, match="more than the 5000 entries"):
            bench.apply(many, image=image)
    remove_tree(bench.last)


def test_a_second_layer_is_files(bench: Bench, forks: ForkServer, tmp_path: Path) -> None:
    """An image is there already: what is applied to the same snapshot goes on top."""
    database = Database(tmp_path / "snapshots.db")
    driver = ErofsDriver(tmp_path / "erofs", Sealer(forks))
    store = SnapshotStore(database, SnapshotIds(database), "erofs", driver, Exchange())
    try:
        mounts = store.prepare("ns", "work")
        bench.apply_to(mounts, layer(member("a", b"a"), member("b", b"b"), member("c", b"c")))
        assert folders.wants_image(mounts) is None
        second = layer(member(".wh.b"), member("c", b"other"), member("d", b"d"))
        bench.apply_to(store.mounts("ns", "work"), second)
        seen = {"a": b"a", "c": b"other", "d": b"d"}
        assert _files(store.mounts("ns", "work"), tmp_path) == seen
        store.commit("ns", "done", "work")
        assert _files(store.view("ns", "look", "done"), tmp_path) == seen
    finally:
        store.close()
        database.close()


def _files(mounts: list[Mount], root: Path) -> dict[str, bytes]:
    target = root / "mnt"
    target.mkdir(exist_ok=True)
    mount_all(mounts, target)
    try:
        return {path.name: path.read_bytes() for path in target.iterdir()}
    finally:
        unmount(target)


def test_random_layers(bench: Bench) -> None:
    """In any order, with names that collide: what is refused here is refused there."""
    source = random.Random(11)
    applied = 0
    for _ in range(40):
        data = layer(*(_random_member(source) for _ in range(source.randrange(1, 12))))
        try:
            bench.apply(data, image=False)
        except InvalidArgument:
            with pytest.raises(InvalidArgument):
                bench.apply(data)
            continue
        plain, made = bench.apply(data, image=False), bench.apply(data)
        with bench.mounted(made) as point:
            assert _shape(point) == _shape(plain / "fs")
        bench.check(made)
        applied += 1
    assert applied > 5


def _random_member(source: random.Random) -> Member:
    def path() -> str:
        return "/".join(source.choice("abc") for _ in range(source.randrange(1, 4)))

    name = path()
    kind = source.randrange(8)
    if kind < 2:
        return folder(name, mode=source.choice((0o755, 0o700)))
    if kind < 4:
        return member(name, name.encode())
    if kind == 4:
        return link(name, source.choice(("a", "b", "/c", "../a", "..")))
    if kind == 5:
        return link(name, path(), tarfile.LNKTYPE)
    head, _, tail = name.rpartition("/")
    hidden = f"{head}/.wh.{tail}" if head else f".wh.{tail}"
    return member(hidden if kind == 6 else f"{head}/.wh..wh..opq".lstrip("/"))


def _shape(root: Path) -> dict[str, object]:
    """What there is, without the times of what no entry made."""
    opaque, timed = _opaque(root), (stat.S_IFREG, stat.S_IFLNK, stat.S_IFBLK)
    return {
        path: (
            entry[:3],
            entry[3] if stat.S_IFMT(int(str(entry[0]), 8)) in timed else 0,
            entry[4:],
            path in opaque,
        )
        for path, entry in describe(root).items()
    }


def test_by_a_loop_device(bench: Bench, tmp_path: Path) -> None:
    """As on kernels before 6.12."""
    made = bench.apply(layer(member("a", b"by a device")))
    point = tmp_path / "point"
    point.mkdir()
    _mount_by_device(made / folders.LAYER, point, "erofs")
    try:
        assert (point / "a").read_bytes() == b"by a device"
    finally:
        unmount(point)
        point.rmdir()
    listing = ["losetup", "-l", "-n", "-O", "BACK-FILE"]
    end = time.monotonic() + patient(10)
    while str(made) in subprocess.check_output(listing, text=True):
        assert time.monotonic() < end, "the device stays"
        time.sleep(0.05)


def test_on_a_full_disk(bench: Bench, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], check=True)
    try:
        bench.root = small
        with pytest.raises(ResourceExhausted, match="no space left"):
            bench.apply(layer(member("big", os.urandom(4 << 20))))
    finally:
        unmount(small)

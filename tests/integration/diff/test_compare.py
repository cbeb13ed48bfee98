"""Layers made by the real worker: what is applied again is what was there."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import socket
import stat
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import zstandard

from orlop.content import ContentStore
from orlop.diff.apply import Applier, Limits
from orlop.diff.compare import UNCOMPRESSED, Comparer
from orlop.diff.decompress import decompress
from orlop.diff.packing import Wanted, packing
from orlop.errors import (
    Cancelled,
    InvalidArgument,
    OrlopError,
    ResourceExhausted,
    Unavailable,
    Unimplemented,
)
from orlop.events import Exchange
from orlop.fork.client import ForkServer
from orlop.metadata import Database
from orlop.oci import mediatypes
from orlop.oci.descriptor import Descriptor
from orlop.oci.digest import Digest
from orlop.rpc import CallContext
from orlop.sys.loop import mount_image
from orlop.sys.mount import MNT_DETACH, Mount, mount, mount_all, unmount
from orlop.tar.changes import Layer
from orlop.tar.reader import Entry
from tests import nasty_tree
from tests.tree import describe

pytestmark = pytest.mark.root

PLAIN = mediatypes.OCI_LAYER


@pytest.fixture(scope="module")
def forks() -> Iterator[ForkServer]:
    server = ForkServer()
    server.start()
    yield server
    server.stop()


class Bench:
    """A content store, and the two halves of the diff service."""

    def __init__(self, root: Path, forks: ForkServer) -> None:
        self.root = root
        self.database = Database(root / "meta.db")
        self.content = ContentStore(self.database, root / "content", Exchange())
        self.applier = Applier(self.content, forks)
        self.comparer = Comparer(self.content, forks)
        self._count = 0

    def folder(self, kind: str = "folder") -> Path:
        self._count += 1
        path = self.root / f"{kind}-{self._count}"
        path.mkdir()
        return path

    def compare(
        self, left: list[Mount], right: list[Mount], media_type: str = PLAIN, ref: str = ""
    ) -> Descriptor:
        ctx = CallContext(namespace="ns")
        return self.comparer.compare(left, right, ctx, media_type=media_type, ref=ref)

    def tar(self, layer: Descriptor) -> bytes:
        pieces = iter([self.content.read("ns", layer.digest), b""])
        plain = decompress(lambda: next(pieces), max_size=1 << 30, max_ratio=1000)
        return b"".join(plain)

    def names(self, layer: Descriptor) -> list[str]:
        with tarfile.open(fileobj=io.BytesIO(self.tar(layer))) as archive:
            return archive.getnames()

    def apply(self, layer: Descriptor, mounts: list[Mount]) -> None:
        self.applier.apply("ns", layer, mounts, CallContext(namespace="ns"))

    def ingests(self) -> list[str]:
        return [status.ref for status in self.content.statuses("ns")]


@pytest.fixture
def bench(tmp_path: Path, forks: ForkServer) -> Iterator[Bench]:
    made = Bench(tmp_path, forks)
    yield made
    assert made.ingests() == []
    made.database.close()
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


def bind(folder: Path, access: str = "rw") -> list[Mount]:
    return [Mount("bind", str(folder), options=("rbind", access))]


def overlay(bench: Bench, *lowers: Path, upper: Path | None = None, user: bool = False) -> Mount:
    options = ["userxattr"] if user else []
    if upper is not None:
        options += [f"upperdir={upper}", f"workdir={bench.folder('work')}"]
    return Mount("overlay", "overlay", options=(*options, f"lowerdir={':'.join(map(str, lowers))}"))


@contextmanager
def mounted(bench: Bench, mounts: list[Mount]) -> Iterator[Path]:
    where = bench.folder("mounted")
    mount_all(mounts, where)
    try:
        yield where
    finally:
        unmount(where)


def assert_same(found: Path, wanted: Path) -> None:
    assert describe(found) == describe(wanted)
    assert nasty_tree.times(found) == nasty_tree.times(wanted)


def test_copies_side_by_side(bench: Bench) -> None:
    before, after, applied = bench.folder(), bench.root / "after", bench.root / "applied"
    nasty_tree.build(before)
    subprocess.run(["cp", "-a", before, after], check=True)
    subprocess.run(["cp", "-a", before, applied], check=True)
    nasty_tree.change(after)
    layer = bench.compare(bind(before), bind(after))
    assert layer.digest == Digest.of(bench.tar(layer))
    assert "kept/file" not in bench.names(layer)
    assert "kept/second" not in bench.names(layer)
    bench.apply(layer, bind(applied))
    assert_same(applied, after)
    assert bench.compare(bind(before), bind(after)).digest == layer.digest


@pytest.mark.parametrize("user", [False, True])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_an_overlay_on_its_lower_layers(bench: Bench, layers: int, user: bool) -> None:
    """Its upper folder is read, and the result is that of both trees side by side."""
    base = bench.folder("base")
    nasty_tree.build(base)
    between = [bench.folder("between") for _ in range(layers - 1)]
    for folder in between:
        (folder / "between").mkdir()
        (folder / "between" / folder.name).write_text("between")
    lowers = [*between, base]
    upper = bench.folder("upper")
    right = [overlay(bench, *lowers, upper=upper, user=user)]
    left = bind(base, "ro") if layers == 1 else [overlay(bench, *lowers, user=user)]
    with mounted(bench, right) as merged:
        nasty_tree.change(merged)
        layer = bench.compare(left, right)  # while it is mounted, as by a running container
        assert "replaced/.wh..wh..opq" in bench.names(layer)
        copied = bench.folder("copied")
        subprocess.run(["cp", "-aT", merged, copied], check=True)
        walked = bench.compare(left, bind(copied))
        assert "replaced/.wh.old" in bench.names(walked)
        shutil.rmtree(copied)
        for made in (layer, walked):
            again = bench.folder("again")
            target = [overlay(bench, *lowers, upper=again, user=user)]
            bench.apply(made, target)
            with mounted(bench, target) as applied:
                assert_same(applied, merged)
    assert bench.compare(left, right).digest == layer.digest


def test_files_that_were_only_opened_are_no_change(bench: Bench) -> None:
    base, upper = bench.folder(), bench.folder()
    nasty_tree.build(base)
    right = [overlay(bench, base, upper=upper)]
    with mounted(bench, right) as merged:
        for path in ("kept/file", "odd/grown"):
            os.close(os.open(merged / path, os.O_WRONLY))
        (merged / "kept").chmod(0o755)
    assert (upper / "kept/file").exists()
    assert bench.names(bench.compare(bind(base), right)) == []


def test_a_renamed_folder_is_followed(bench: Bench) -> None:
    """overlayfs may leave a renamed folder's files where they were, and a changed file's data."""
    base, upper = bench.folder(), bench.folder()
    nasty_tree.build(base)
    plain = overlay(bench, base, upper=upper)
    right = [Mount("overlay", "overlay", "", (*plain.options, "redirect_dir=on", "metacopy=on"))]
    with mounted(bench, right) as merged:
        (merged / "kept").rename(merged / "moved")
        (merged / "odd/mode").chmod(0o600)
    assert "trusted.overlay.redirect" in os.listxattr(upper / "moved")
    layer = bench.compare(bind(base), right)
    applied = bench.root / "applied"
    subprocess.run(["cp", "-a", base, applied], check=True)
    bench.apply(layer, bind(applied))
    with mounted(bench, right) as merged:
        assert_same(applied, merged)


def test_unrelated_snapshots_of_one_store(bench: Bench) -> None:
    """Two active overlays with other layers each, both mounted all the while."""
    base = bench.folder()
    nasty_tree.build(base)
    one = [overlay(bench, base, upper=bench.folder())]
    two = [overlay(bench, bench.folder(), base, upper=bench.folder())]
    with mounted(bench, one) as before, mounted(bench, two) as after:
        (before / "only-one").write_text("1")
        nasty_tree.change(after)
        layer = bench.compare(one, two)
        assert ".wh.only-one" in bench.names(layer)
        assert "kept/file" not in bench.names(layer)
        applied = bench.folder()
        subprocess.run(["cp", "-aT", before, applied], check=True)
        bench.apply(layer, bind(applied))
        assert_same(applied, after)


def test_images_of_one_shape(bench: Bench, tmp_path: Path) -> None:
    """Inodes of one number, and ctimes that are mtimes: what tells two files apart elsewhere."""
    points = []
    try:
        for version in ("1", "2"):
            tree = bench.folder()
            (tree / "etc").mkdir()
            (tree / "etc/conf").write_text(f"version={version}\n")
            (tree / "etc/same").write_text("same")
            image = tmp_path / f"{version}.erofs"
            command = ["mkfs.erofs", "-T", "1500000000", "--all-root", str(image), str(tree)]
            subprocess.run(command, check=True, capture_output=True)
            mount_image(image, point := bench.folder("mounted"), "erofs")
            points.append(point)
        files = [(point / "etc/conf").stat() for point in points]
        assert len({(file.st_ino, file.st_ctime_ns) for file in files}) == 1
        assert bench.names(bench.compare(bind(points[0]), bind(points[1]))) == ["etc", "etc/conf"]
    finally:
        for point in points:
            unmount(point)


@pytest.mark.parametrize("right_is", ["bind", "overlay"])
def test_a_first_layer_of_nothing(bench: Bench, right_is: str) -> None:
    tree = bench.folder()
    nasty_tree.build(tree)
    right = bind(tree) if right_is == "bind" else [overlay(bench, tree, bench.folder())]
    layer = bench.compare([], right)
    applied = bench.folder()
    bench.apply(layer, bind(applied))
    assert_same(applied, tree)


def test_media_types_and_labels(bench: Bench) -> None:
    tree = bench.folder()
    nasty_tree.build(tree)
    plain = bench.compare([], bind(tree), PLAIN)
    assert UNCOMPRESSED not in bench.content.info("ns", plain.digest).labels
    for media_type in ("", PLAIN + "+gzip", PLAIN + "+zstd", mediatypes.DOCKER_LAYER + ".gzip"):
        layer = bench.compare([], bind(tree), media_type)
        assert layer.media_type == (media_type or PLAIN + "+gzip")
        assert layer.size < plain.size
        assert Digest.of(bench.tar(layer)) == plain.digest
        info = bench.content.info("ns", layer.digest)
        assert info.labels == {UNCOMPRESSED: plain.digest}
    for media_type in ("application/octet-stream", PLAIN + "+xz"):
        with pytest.raises(Unimplemented, match=r'media type "application/'):
            bench.compare([], bind(tree), media_type)


def test_labels_of_a_layer_that_was_there(bench: Bench) -> None:
    tree = bench.folder()
    (tree / "file").write_text("x")
    layer = bench.compare([], bind(tree), "")
    with bench.content.writer("other", "r") as writer:
        writer.write(bench.content.read("ns", layer.digest))
        writer.commit()
    ctx = CallContext(namespace="other")
    bench.comparer.compare([], bind(tree), ctx, labels={"mine": "1"})
    labels = bench.content.info("other", layer.digest).labels
    assert labels.keys() == {UNCOMPRESSED, "mine"}


def test_other_programs_read_it(bench: Bench, tmp_path: Path) -> None:
    """GNU tar takes the layer as it is, with attributes and all."""
    tree = bench.folder()
    nasty_tree.build(tree)
    nasty_tree.change(tree)
    layer = bench.compare([], bind(tree), PLAIN + "+zstd")
    unpacked = bench.folder()
    options = [
        "--xattrs",
        "--xattrs-include=*",
        "--numeric-owner",
        "-C",
        str(unpacked),
        "-xpf",
        "-",
    ]
    packed = zstandard.decompress(bench.content.read("ns", layer.digest), max_output_size=64 << 20)
    subprocess.run(["tar", *options], input=packed, check=True, capture_output=True)
    assert_same(unpacked, tree)


def test_holes_are_not_read(bench: Bench) -> None:
    """Not when a file is packed, nor when it is compared with another."""
    before, after = bench.folder(), bench.folder()
    for root in (before, after):
        with (root / "same").open("wb") as file:
            os.pwrite(file.fileno(), os.urandom(1000) if root is before else b"x", 5 << 30)
            file.truncate(32 << 30)
    sizes: list[int] = []

    class Counting:
        def entry(self, entry: Entry) -> None:
            pass

        def content(self, pieces: Iterable[bytes | memoryview], size: int) -> None:
            sizes.append(sum(map(len, pieces)))
            assert sizes[-1] == size

        def close(self) -> None:
            pass

    def compared() -> list[int]:
        sizes.clear()
        for root in (before, after):
            os.utime(root / "same", (1_000_000_000, 1_000_000_000))
        fds = [os.open(root, os.O_RDONLY) for root in (before, after)]
        already = _read_so_far()
        Layer(Counting()).write(*fds)
        assert _read_so_far() - already < 32 << 20
        for fd in fds:
            os.close(fd)
        return sizes.copy()

    assert compared() == [32 << 30]
    with (before / "same").open("r+b") as old, (after / "same").open("r+b") as new:
        os.pwrite(new.fileno(), os.pread(old.fileno(), 1000, 5 << 30), 5 << 30)
    assert compared() == []
    os.truncate(after / "same", 33 << 30)
    assert compared() == [33 << 30]


def _read_so_far() -> int:
    """Bytes that this process has got by read(2), holes and all."""
    return int(Path("/proc/self/io").read_text().split()[1])


def test_a_large_sparse_file_comes_and_goes(bench: Bench, forks: ForkServer) -> None:
    """As /var/log/lastlog: what is made here is taken here, though there are limits."""
    tree, applied = bench.folder(), bench.folder()
    with (tree / "lastlog").open("wb") as file:
        os.pwrite(file.fileno(), b"somebody", 100 << 20)
        file.truncate(200 << 20)
    layer = bench.compare([], bind(tree), PLAIN + "+gzip")
    assert layer.size < 1 << 20
    bench.applier = Applier(bench.content, forks, Limits(max_size=10 << 20))
    bench.apply(layer, bind(applied))
    found = applied / "lastlog"
    assert found.stat().st_blocks * 512 < 1 << 20
    subprocess.run(["cmp", tree / "lastlog", found], check=True)


def test_source_date_epoch(bench: Bench) -> None:
    before, after = bench.folder(), bench.folder()
    (before / "deleted").write_text("x")
    for name, mtime in (("old", 1_000), ("new", 2_000_000_000)):
        (after / name).write_text("x")
        os.utime(after / name, (mtime, mtime))
    ctx = CallContext(namespace="ns")
    epoch = 1_600_000_000_500_000_000
    layer = bench.comparer.compare(bind(before), bind(after), ctx, media_type=PLAIN, newest=epoch)
    with tarfile.open(fileobj=io.BytesIO(bench.tar(layer))) as archive:
        times = {member.name: member.mtime for member in archive}
    assert times == {".wh.deleted": epoch / 1e9, "new": epoch / 1e9, "old": 1_000}


def test_sockets_are_left_out(bench: Bench) -> None:
    before, after = bench.folder(), bench.folder()
    (before / "was-a-file").write_text("x")
    for name in ("socket", "was-a-file"):
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(after / name))
    assert bench.names(bench.compare(bind(before), bind(after))) == [".wh.was-a-file"]


def test_names_that_mean_deletions_in_a_layer(bench: Bench) -> None:
    before, after = bench.folder(), bench.folder()
    (after / "d").mkdir()
    (after / "d/.wh.file").write_text("x")
    with pytest.raises(InvalidArgument, match=r'"/d/\.wh\.file" cannot be in a layer'):
        bench.compare(bind(before), bind(after))


def test_links_are_never_followed(bench: Bench, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("secret")
    tree = bench.folder()
    (tree / "folder").symlink_to(secret)
    (tree / "file").symlink_to(secret / "key")
    layer = bench.compare([], bind(tree))
    assert bench.names(layer) == ["file", "folder"]
    assert b"\0secret" not in bench.tar(layer)


def test_a_path_that_is_too_deep(bench: Bench) -> None:
    tree = bench.folder()
    place = os.open(tree, os.O_RDONLY)
    try:
        for _ in range(9000):
            os.mkdir("d", dir_fd=place)
            below = os.open("d", os.O_RDONLY, dir_fd=place)
            os.close(place)
            place = below
    finally:
        os.close(place)
    try:
        with pytest.raises(OrlopError, match="goes deeper than the 4095 bytes"):
            bench.compare([], bind(tree))
    finally:
        subprocess.run(["rm", "-rf", tree], check=True)


def test_what_cannot_be_mounted(bench: Bench) -> None:
    with pytest.raises(OrlopError, match="/no/such/folder"):
        bench.compare([], [Mount("overlay", "overlay", "", ("lowerdir=/no/such/folder:/x",))])


def test_a_ref_belongs_to_one(bench: Bench) -> None:
    tree = bench.folder()
    (tree / "file").write_text("x")
    with bench.content.writer("ns", "mine") as writer:
        writer.write(b"data of an earlier try")
        with pytest.raises(Unavailable, match='ref "mine" locked'):
            bench.compare([], bind(tree), ref="mine")
    assert bench.ingests() == ["mine"]
    assert bench.names(bench.compare([], bind(tree), ref="mine")) == ["file"]


def test_many_at_once(bench: Bench) -> None:
    """As a builder does: many views of one base, and all of the same bytes."""
    base = bench.folder()
    nasty_tree.build(base)
    rights = []
    for number in range(12):
        right = [overlay(bench, base, upper=bench.folder())]
        with mounted(bench, right) as merged:
            (merged / "kept" / f"by-{number % 4}").write_text("x")
            os.utime(merged / "kept" / f"by-{number % 4}", ns=(1, 1))
            os.utime(merged / "kept", ns=(1, 1))
        rights.append(right)
    with ThreadPoolExecutor(12) as pool:
        made = list(pool.map(lambda right: bench.compare(bind(base, "ro"), right, ""), rights))
    assert len({layer.digest for layer in made}) == 4


def test_cancelled(bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    places = tmp_path / "places"
    places.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(places))
    tree = bench.folder()
    with (tree / "big").open("wb") as file:
        file.truncate(8 << 30)
    ctx = CallContext(namespace="ns")
    threading.Timer(0.3, ctx.cancel).start()
    began = time.monotonic()
    with pytest.raises(Cancelled):
        bench.comparer.compare([], bind(tree), ctx)
    assert time.monotonic() - began < 30
    assert list(places.iterdir()) == []


def test_who_reads_no_further_is_no_end_of_the_packer(tmp_path: Path, forks: ForkServer) -> None:
    """The reader knows why, as on a full disk; a packer that died would be told of instead."""
    (tmp_path / "big").write_bytes(os.urandom(8 << 20))
    with packing(forks, Wanted(bind(tmp_path))) as (packer, tar):
        tar.close()
        assert packer.result() == {"unread": True}


def test_a_full_disk(tmp_path: Path, forks: ForkServer) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount("tmpfs", small, "tmpfs", 0, "size=8m")
    try:
        bench = Bench(small, forks)
        tree = tmp_path / "tree"
        tree.mkdir()
        (tree / "noise").write_bytes(os.urandom(16 << 20))
        with pytest.raises(ResourceExhausted, match="no space left for content below"):
            bench.compare([], bind(tree))
        assert bench.ingests() == []
        (tree / "noise").write_bytes(os.urandom(1 << 20))
        bench.compare([], bind(tree))
        bench.database.close()
    finally:
        unmount(small, MNT_DETACH)


def test_a_file_that_shrinks_meanwhile(bench: Bench) -> None:
    """The error names it, or the file was read before; never a layer with a torn entry."""
    tree = bench.folder()
    busy = tree / "z-busy"
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            busy.write_bytes(bytes(3 << 20))
            busy.write_bytes(b"")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(5):
            try:
                layer = bench.compare([], bind(tree))
            except OrlopError as error:
                assert '"/z-busy" changed while it was read' in str(error)
            else:
                assert bench.names(layer) in (["z-busy"], [])
    finally:
        stop.set()
        writer.join()


def test_whiteouts_as_attributes(bench: Bench) -> None:
    """Newer overlayfs also takes an empty file with an attribute for a deletion."""
    base, upper = bench.folder(), bench.folder()
    for name in ("d/gone", "d/kept"):
        (base / name).parent.mkdir(exist_ok=True)
        (base / name).write_text("x")
    (upper / "d").mkdir()
    os.setxattr(upper / "d", "trusted.overlay.opaque", b"x")
    (upper / "d/gone").write_text("")
    os.setxattr(upper / "d/gone", "trusted.overlay.whiteout", b"")
    names = bench.names(bench.compare(bind(base), [overlay(bench, base, upper=upper)]))
    assert names == ["d", "d/.wh.gone"]


def test_devices_are_written_as_such(bench: Bench) -> None:
    tree = bench.folder()
    os.mknod(tree / "disk", stat.S_IFBLK | 0o600, os.makedev(8, 1))
    layer = bench.compare([], bind(tree))
    with tarfile.open(fileobj=io.BytesIO(bench.tar(layer))) as archive:
        (member,) = archive
    assert (member.isblk(), member.devmajor, member.devminor) == (True, 8, 1)
    assert hashlib.sha256(bench.tar(layer)).hexdigest() == layer.digest.partition(":")[2]

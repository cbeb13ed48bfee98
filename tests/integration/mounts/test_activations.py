"""Mounts that the daemon makes itself, on real images and devices."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage

from orlop.client import Connection, containers, leases
from orlop.client.stdio import Streams
from orlop.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    OrlopError,
    Unimplemented,
)
from orlop.sys.mount import Mount, mount_one, unmount_all
from orlop.wire.services import containers_pb2, leases_pb2
from orlop.wire.services import mounts_pb2 as wire
from orlop.wire.types_pb2 import Mount as WireMount
from tests.daemon_fixture import Orlopd

pytestmark = pytest.mark.root

SIZE = "X-containerd.mkfs.size=64MiB"


@pytest.fixture
def connection(orlopd: Orlopd) -> Iterator[Connection]:
    with orlopd.connect() as made:
        yield made


@pytest.fixture
def layer(tmp_path: Path) -> str:
    """An EROFS image with one file, made by Debian's program."""
    files = tmp_path / "files"
    files.mkdir()
    (files / "of-the-layer").write_text("cargo\n")
    image = tmp_path / "layer.erofs"
    subprocess.run(["mkfs.erofs", str(image), str(files)], check=True, capture_output=True)
    return str(image)


def activate(
    connection: Connection, name: str, mounts: Sequence[Mount], **more: Any
) -> wire.ActivateResponse:
    request = wire.ActivateRequest(
        name=name,
        mounts=[
            WireMount(type=m.type, source=m.source, target=m.target, options=m.options)
            for m in mounts
        ],
        **more,
    )
    return connection.mounts.activate(request)  # type: ignore[no-any-return]


def deactivate(connection: Connection, name: str) -> None:
    connection.mounts.deactivate(wire.DeactivateRequest(name=name))


def names(connection: Connection, *filters: str) -> list[str]:
    found = connection.mounts.list(wire.ListRequest(filters=filters))
    return [message.info.name for message in found]


def points(orlopd: Orlopd) -> list[str]:
    """What is mounted below the manager's folder."""
    folder = str(orlopd.state / "mounts")
    table = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line.split()[4] for line in table if line.split()[4].startswith(folder)]


def loops(image: str) -> list[str]:
    """The loop devices of an image, which go with their last user.

    That may be a mount namespace that another test's runtime has just copied.
    """
    found = []
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):  # another's has just gone
            if backing.read_text().rstrip("\n") == os.path.realpath(image):
                found.append(backing.parts[3])
    return found


def overlay_of(orlopd: Orlopd, layer: str) -> list[Mount]:
    """As an EROFS snapshotter of containerd asks: a layer, and an overlay that is to be made."""
    folder = orlopd.state / "made-for-a-test"
    folder.mkdir(exist_ok=True)
    upper, work = folder / "upper", folder / "work"
    return [
        Mount("erofs", layer, options=("ro",)),
        Mount(
            "format/mkdir/overlay",
            "overlay",
            options=(
                f"X-containerd.mkdir.path={upper}:755",
                f"X-containerd.mkdir.path={work}:711:0:0",
                "lowerdir={{ mount 0 }}",
                f"upperdir={upper}",
                f"workdir={work}",
            ),
        ),
    ]


@pytest.mark.fresh
def test_a_layer_under_an_overlay(
    orlopd: Orlopd, connection: Connection, layer: str, tmp_path: Path
) -> None:
    made = activate(connection, "one", overlay_of(orlopd, layer), labels={"a": "b"}).info
    assert (made.name, dict(made.labels)) == ("one", {"a": "b"})
    (active,) = made.active
    assert Path(active.mount_point, "of-the-layer").read_text() == "cargo\n"
    assert active.mounted_at.seconds > 0
    (left,) = made.system
    assert left.type == "overlay"
    assert f"lowerdir={active.mount_point}" in left.options
    assert not any("containerd" in option for option in left.options)

    root = tmp_path / "root"
    root.mkdir()
    mount_one(Mount(left.type, left.source, options=tuple(left.options)), root)
    try:
        assert (root / "of-the-layer").read_text() == "cargo\n"
        (root / "new").write_text("written")
        assert (orlopd.state / "made-for-a-test/upper/new").read_text() == "written"
    finally:
        unmount_all(root)
    assert connection.mounts.info(wire.InfoRequest(name="one")).info == made
    assert names(connection, "name==one") == ["one"]
    assert names(connection, "labels.a==c") == []
    with pytest.raises(Unimplemented):
        connection.mounts.update(wire.UpdateRequest(info=made))
    with pytest.raises(AlreadyExists):
        activate(connection, "one", overlay_of(orlopd, layer))

    deactivate(connection, "one")
    assert points(orlopd) == []
    assert not list((orlopd.state / "mounts").iterdir())
    assert loops(layer) == []
    with pytest.raises(NotFound):
        deactivate(connection, "one")
    with pytest.raises(NotFound):
        connection.mounts.info(wire.InfoRequest(name="one"))


@pytest.mark.fresh
def test_an_image_that_is_made_and_mounted_by_a_device(
    orlopd: Orlopd, connection: Connection
) -> None:
    """A writable layer of fixed size: made once, attached, formatted into the next mount."""
    image = str(orlopd.root / "rw.img")
    mounts = [
        Mount("mkfs/loop", image, options=(SIZE, "X-containerd.mkfs.fs=ext4")),
        Mount("format/ext4", "{{ mount 0 }}"),
    ]
    request = {"temporary": True}
    made = activate(connection, "rw", mounts, **request).info
    device, filesystem = made.active
    assert Path(device.mount_point).readlink() == Path("/dev", loops(image)[0])
    assert (made.system[0].type, made.system[0].source) == ("bind", filesystem.mount_point)
    Path(filesystem.mount_point, "kept").write_text("x")
    size = os.statvfs(filesystem.mount_point)
    assert 40 << 20 < size.f_blocks * size.f_frsize < 64 << 20
    deactivate(connection, "rw")
    orlopd.wait_for(lambda: (loops(image), points(orlopd)) == ([], []))  # see `loops`

    made = activate(connection, "rw", mounts, **request).info
    assert Path(made.active[1].mount_point, "kept").read_text() == "x"  # not made anew
    deactivate(connection, "rw")
    by_option = [Mount("ext4", image, options=("loop", "ro"))]
    made = activate(connection, "ro", by_option, **request).info
    assert Path(made.active[0].mount_point, "kept").read_text() == "x"
    with pytest.raises(OSError, match="Read-only"):
        Path(made.active[0].mount_point, "new").touch()
    deactivate(connection, "ro")
    orlopd.wait_for(lambda: (loops(image), points(orlopd)) == ([], []))


def test_what_needs_nothing_is_refused(connection: Connection, tmp_path: Path) -> None:
    """Clients take that for leave to mount as they always did."""
    with pytest.raises(Unimplemented):
        activate(connection, "plain", [Mount("bind", str(tmp_path), options=("rbind",))])
    assert names(connection) == []


BAD: list[tuple[Mount, type[OrlopError]]] = [
    (Mount("format/overlay", "overlay", options=("lowerdir={{ mount 7 }}",)), InvalidArgument),
    (Mount("format/overlay", "overlay", options=("lowerdir={{ evil }}",)), InvalidArgument),
    (Mount("format/bind", "{{ overlay 0 1 2 }}"), InvalidArgument),
    (Mount("mkdir/bind", "/", options=("X-containerd.mkdir.path=/etc/mine",)), InvalidArgument),
    (
        Mount("mkdir/bind", "/", options=("X-containerd.mkdir.path={state}/../../mine",)),
        InvalidArgument,
    ),
    (Mount("mkdir/bind", "/", options=("X-containerd.mkdir.path={state}/a:999",)), InvalidArgument),
    (Mount("mkdir/bind", "/", options=("X-containerd.mkdir.mode=7",)), InvalidArgument),
    (
        Mount("mkdir/bind", "/", options=("X-containerd.mkdir.path={state}/no/where",)),
        FailedPrecondition,
    ),
    (Mount("mkfs/loop", "/etc/image", options=(SIZE,)), InvalidArgument),
    (Mount("mkfs/loop", "{state}/image"), InvalidArgument),
    (
        Mount("mkfs/loop", "{state}/image", options=("X-containerd.mkfs.size=" + "9" * 400,)),
        InvalidArgument,
    ),
    (Mount("format/bind", "{{ mount " + "9" * 5000 + " }}"), InvalidArgument),
    (
        Mount("mkfs/loop", "{state}/image", options=(SIZE, "X-containerd.mkfs.fs=ntfs")),
        InvalidArgument,
    ),
    (
        Mount("mkfs/loop", "{state}/image", options=("X-containerd.mkfs.size=4KiB",)),
        FailedPrecondition,
    ),
    (Mount("loop", "{state}/nothing"), FailedPrecondition),
    (Mount("erofs", "/proc/version"), FailedPrecondition),
]


@pytest.mark.parametrize(("mount", "kind"), BAD)
def test_what_makes_no_sense_leaves_nothing(
    orlopd: Orlopd, connection: Connection, layer: str, mount: Mount, kind: type[OrlopError]
) -> None:
    def here(text: str) -> str:
        return text.replace("{state}", str(orlopd.state))

    bad = mount._replace(source=here(mount.source), options=tuple(map(here, mount.options)))
    with pytest.raises(kind):
        activate(connection, "bad", [Mount("erofs", layer), bad])
    assert (names(connection), points(orlopd), loops(layer)) == ([], [], [])
    assert not list((orlopd.state / "mounts").iterdir())
    assert not (orlopd.state / "image").exists()


def test_what_nothing_keeps_goes(orlopd: Orlopd, connection: Connection, layer: str) -> None:
    mounts = [Mount("erofs", layer)]
    lease = connection.leases.create(leases_pb2.CreateRequest(id="holder")).lease.id
    activate(connection.with_lease(lease), "leased", mounts)
    activate(connection, "rooted", mounts, labels={"containerd.io/gc.root": "yes"})
    activate(connection, "of", mounts, labels={"containerd.io/gc.bref.container": "box"})
    record = containers_pb2.Container(
        id="box", runtime=containers_pb2.Container.Runtime(name=containers.RUNTIME),
        spec=AnyMessage(type_url=containers.SPEC_TYPE, value=b"{}"),
    )  # fmt: skip
    connection.containers.create(containers_pb2.CreateContainerRequest(container=record))
    activate(connection, "alone", mounts)
    leases.collect(connection)
    orlopd.wait_for(lambda: names(connection) == ["leased", "of", "rooted"])
    assert len(points(orlopd)) == 3
    connection.leases.delete(leases_pb2.DeleteRequest(id="holder", sync=True))
    orlopd.wait_for(lambda: names(connection) == ["of", "rooted"])
    connection.containers.delete(containers_pb2.DeleteContainerRequest(id="box"))
    orlopd.wait_for(lambda: names(connection) == ["rooted"])
    deactivate(connection, "rooted")
    orlopd.wait_for(lambda: points(orlopd) == [])  # that of "of" goes after its record


def test_they_outlive_the_daemon_and_not_the_machine(orlopd: Orlopd, layer: str) -> None:
    labels = {"containerd.io/gc.root": "yes"}
    image = orlopd.root / "rw.img"
    writable = [Mount("mkfs/loop", str(image), options=(SIZE,)), Mount("ext4", "{{ mount 0 }}")]
    writable[1] = writable[1]._replace(type="format/ext4")
    bind = [Mount("bind", str(orlopd.state), options=("rbind",))]
    with orlopd.connect() as connection:
        activate(connection, "stays", [Mount("erofs", layer)], labels=labels)
        activate(connection, "device", writable, labels=labels, temporary=True)
        activate(connection, "bound", bind, labels=labels, temporary=True)
        gone = activate(connection, "gone", [Mount("erofs", layer)], labels=labels).info
    orlopd.kill9()
    unmount_all(Path(gone.active[0].mount_point))
    half = orlopd.state / "mounts/4711"  # of a daemon that was killed on the way
    (half / "0").mkdir(parents=True)
    mount_one(Mount("tmpfs", "tmpfs"), half / "0")
    elsewhere = image.rename(orlopd.root / "elsewhere.img")  # as a snapshot on its way out is
    orlopd.start()
    with orlopd.connect() as connection:
        assert names(connection) == ["bound", "device", "stays"]
        assert len(list((orlopd.state / "mounts").iterdir())) == 3
        assert not half.exists()
        for name in names(connection):
            deactivate(connection, name)
    orlopd.wait_for(lambda: (points(orlopd), loops(str(elsewhere))) == ([], []))


def test_a_device_goes_with_its_deleted_image(orlopd: Orlopd, connection: Connection) -> None:
    image = orlopd.root / "rw.img"
    loop = [Mount("mkfs/loop", str(image), options=(SIZE,))]
    made = activate(connection, "one", loop, labels={"containerd.io/gc.root": "yes"}).info
    device = Path(made.active[0].mount_point).readlink()
    backing = Path("/sys/block") / device.name / "loop/backing_file"
    assert str(image) in backing.read_text()
    image.unlink()
    deactivate(connection, "one")

    def shows_another() -> bool:
        try:
            return str(image) not in backing.read_text()
        except OSError:
            return True

    orlopd.wait_for(shows_another)  # who asks all devices what they show holds up its end


@pytest.mark.fresh
def test_one_image_for_two(orlopd: Orlopd, connection: Connection) -> None:
    """Both make it at once, and it is whole for both."""
    image = orlopd.root / "rw.img"
    mounts = [
        Mount("mkfs/loop", str(image), options=(SIZE,)),
        Mount("format/ext4", "{{ mount 0 }}", options=("ro",)),
    ]
    with ThreadPoolExecutor(4) as pool:
        made = list(
            pool.map(lambda n: activate(connection, f"n{n}", mounts, temporary=True).info, range(4))
        )
    devices = {Path(each.active[0].mount_point).stat().st_rdev for each in made}
    assert len(devices) == 4
    assert [each.name for each in orlopd.root.iterdir() if "rw.img" in each.name] == ["rw.img"]
    for each in made:
        assert Path(each.active[1].mount_point, "lost+found").is_dir()
        deactivate(connection, each.name)


@pytest.mark.fresh
def test_a_container_on_them(
    orlopd: Orlopd, connection: Connection, busybox: str, layer: str
) -> None:
    """As of a proxied snapshotter that leaves the mounts to the daemon."""
    orlopd.ctr("run", "-d", busybox, "box", "sleep", "1000")
    orlopd.ctr("tasks", "kill", "-s", "SIGKILL", "box")
    orlopd.wait_for(lambda: "STOPPED" in orlopd.ctr("tasks", "ls").stdout)
    orlopd.ctr("tasks", "rm", "box", check=False)
    layers = orlopd.root / "snapshots/overlayfs/snapshots"
    lowest = min(layers.iterdir(), key=lambda each: int(each.name)) / "fs"
    mounts = overlay_of(orlopd, layer)
    mounts[1] = mounts[1]._replace(
        options=tuple(
            option.replace("lowerdir=", f"lowerdir={lowest}:") for option in mounts[1].options
        )
    )
    wired = [WireMount(type=m.type, source=m.source, options=m.options) for m in mounts]
    containers.create_task(connection, "box", wired, Streams())
    assert names(connection) == ["box"]
    containers.start_task(connection, "box")
    told = orlopd.ctr("tasks", "exec", "--exec-id", "e", "box", "cat", "/of-the-layer")
    assert told.stdout == "cargo\n"
    with pytest.raises(AlreadyExists):
        containers.create_task(connection, "box", wired, Streams())
    assert names(connection) == ["box"]
    orlopd.ctr("tasks", "rm", "-f", "box")
    assert (names(connection), points(orlopd)) == ([], [])
    orlopd.ctr("containers", "rm", "box")

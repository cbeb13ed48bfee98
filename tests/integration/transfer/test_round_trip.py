"""An image that was made here, unpacked by umoci and by us: identical trees."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from orlop.sys.mount import Mount, mount_all, unmount
from orlop.wire.services import containers_pb2, snapshots_pb2
from tests import nasty_tree
from tests.daemon_fixture import BUSYBOX, Orlopd
from tests.registry_fixture import skopeo_copy
from tests.tree import Entry, describe

pytestmark = pytest.mark.root

NAMES = "registry.test/nasty:1", "registry.test/nasty:2"


def _changed(
    orlopd: Orlopd, container: str, where: Path, action: Callable[[Path], None]
) -> dict[str, Entry]:
    """Do something to a container's files; what they are then."""
    with orlopd.connect() as connection:
        record = connection.containers.get(containers_pb2.GetContainerRequest(id=container))
        found = record.container
        request = snapshots_pb2.MountsRequest(snapshotter=found.snapshotter, key=found.snapshot_key)
        mounts = connection.snapshots.mounts(request).mounts
    where.mkdir()
    mount_all([Mount(m.type, m.source, m.target, tuple(m.options)) for m in mounts], where)
    try:
        (where / "nasty").mkdir(exist_ok=True)
        action(where / "nasty")
        return describe(where)
    finally:
        unmount(where)


@pytest.mark.parametrize("snapshotter", ["overlayfs", "erofs", "native"])
def test_two_layers(
    orlopd: Orlopd, busybox_archive: Path, tmp_path: Path, snapshotter: str
) -> None:
    """What a container has made, and what another has made of that."""
    orlopd.ctr("images", "import", "--snapshotter", snapshotter, str(busybox_archive))
    image, wanted = BUSYBOX, {}
    for name, action in zip(NAMES, (nasty_tree.build, nasty_tree.change), strict=True):
        box = f"box-{name[-1]}"
        orlopd.orlop("create", "--snapshotter", snapshotter, "--name", box, image, "true")
        wanted = _changed(orlopd, box, tmp_path / box, action)
        orlopd.orlop("commit", box, name)
        orlopd.orlop("rm", box)
        image = name
    saved, layout, bundle = (tmp_path / name for name in ("saved.tar", "layout", "bundle"))
    orlopd.orlop("save", "-o", str(saved), image)
    skopeo_copy(f"oci-archive:{saved}", f"oci:{layout}:it")
    subprocess.run(["umoci", "unpack", "--image", f"{layout}:it", bundle], check=True)
    assert describe(bundle / "rootfs") == wanted

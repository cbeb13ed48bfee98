"""Containers whose writable layers are with a snapshotter of others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon_fixture import Orlopd, serving_with
from tests.metrics_fixture import scraped

pytestmark = pytest.mark.root

MIB = 1 << 20
_NAME = "orlop-overlayfs"


@pytest.fixture
def back() -> Iterator[Orlopd]:
    """An orlopd that serves its snapshotters."""
    daemon = Orlopd()
    config = daemon.folder / "config.toml"
    config.write_text(f'[snapshots]\nserve = "{daemon.folder}/guests.sock"\n')
    daemon.options += ["--config", str(config)]
    yield from serving_with(daemon)


def test_the_other_is_asked(tmp_path: Path, back: Orlopd, registry: str) -> None:
    image = f"{registry}/test/busybox:latest"
    more = f'[proxy_plugins."{_NAME}"]\ntype = "snapshot"\naddress = "{back.folder}/guests.sock"\n'
    unmeasured = "orlop_metrics_container_failures_total"
    with scraped(tmp_path, "filesystem_age = 1\n", more) as served:
        front, by = served.daemon, ("--snapshotter", _NAME)
        front.orlop("pull", "--plain-http", *by, image)
        script = "dd if=/dev/zero of=/file bs=1M count=8; sync; touch /ready; exec sleep 1000"
        front.orlop(
            "run", "-d", *by, "--network", "none", "--name", "one", image, "sh", "-c", script
        )
        looking = ("exec", "one", "ls", "/ready")
        front.wait_for(lambda: front.orlop(*looking, check=False).stdout != "", 90)

        def size() -> float:
            return max(served.scrape().all("container_fs_usage_bytes"), default=0)

        front.wait_for(lambda: size() == pytest.approx(8 * MIB, rel=0.05))
        found = served.scrape()
        assert found.one("container_fs_inodes") >= 3
        assert found.one("container_fs_measured_seconds") > 0
        assert found.total(unmeasured) == 0
        assert found.one("orlop_snapshots_undeleted", snapshotter=_NAME) == 0
        back.stop()
        front.wait_for(lambda: served.scrape().total(unmeasured, reason="unmeasured") >= 1)
        assert served.scrape().one("container_processes") == 1
        front.orlop("rm", "-f", "one")
        assert served.scrape().one("orlop_snapshots_undeleted", snapshotter=_NAME) == 1
        back.start()
        front.wait_for(
            lambda: served.scrape().one("orlop_snapshots_undeleted", snapshotter=_NAME) == 0, 70
        )
        front.orlop("rmi", image)
        front.wait_for(
            lambda: served.scrape().one("orlop_snapshot_seconds_count", operation="commit") == 1
        )

"""What the daemon says that it has done."""

from __future__ import annotations

import http.client
import resource
from contextlib import closing
from pathlib import Path

from tests.daemon_fixture import BUSYBOX
from tests.metrics_fixture import Metrics, Scraped, scraped


def test_work_is_counted(tmp_path: Path, registry: str) -> None:
    image = f"{registry}/test/busybox:latest"
    with scraped(tmp_path) as served:
        daemon = served.daemon
        before = served.scrape()
        daemon.orlop("pull", image)
        assert daemon.orlop("pull", f"{registry}/test/none:latest", check=False).returncode
        daemon.orlop("run", "-d", "--name", "one", "--network", "none", image, "sleep", "1000")
        daemon.wait_for(lambda: _started(served))
        after = served.scrape()
        daemon.orlop("rm", "-f", "one")
        daemon.wait_for(  # the shim tells of it after its answer, and takes a moment to go
            lambda: (
                served.scrape().one("orlop_shims") == 0
                and bool(
                    served.scrape().total("orlop_events_published_total", topic="/tasks/delete")
                )
            )
        )
        last = served.scrape(openmetrics=True)
    assert before.total("orlop_pull_seconds_count") == 0
    assert after.one("orlop_pull_seconds_count", outcome="done") == 1
    assert after.one("orlop_pull_seconds_count", outcome="failed") == 1
    fetched = after.one("orlop_pull_fetched_bytes_total")
    assert fetched == after.one("orlop_content_committed_bytes_total") > 10_000
    assert after.one("orlop_layer_seconds_count", outcome="done") >= 1
    shelf = {"snapshotter": "overlayfs"}
    snapshots = "orlop_snapshot_seconds_count"
    assert not before.all(snapshots, **shelf)
    for operation in ("prepare", "commit", "sync"):
        assert after.one(snapshots, operation=operation, **shelf) >= 1
    assert last.one(snapshots, operation="remove", **shelf) == 1
    blobs = after.one("orlop_events_published_total", topic="/content/create")
    assert after.one("orlop_content_seconds_count", operation="commit") == blobs >= 3
    assert after.total("orlop_registry_requests_total", host=registry, code="200") >= 3
    assert after.total("orlop_registry_requests_total", host=registry, code="404") >= 1
    assert after.one("orlop_events_published_total", topic="/tasks/start") == 1
    assert after.total("orlop_fork_seconds_count") >= 2
    assert after.one("orlop_shims") == after.one("orlop_tasks", namespace=daemon.namespace) == 1
    assert after.total("orlop_database_seconds_count", kind="write") > 5
    assert after.total("ttrpc_server_handled_total", ttrpc_method="Transfer", ttrpc_code="OK") == 1
    assert after.total("process_resident_memory_bytes") > 10 << 20
    assert last.one("containerd_gc_collections_total", status="success") >= 1
    assert last.one("orlop_shims") == 0
    assert last.total("orlop_tasks") == 0
    assert last.one("orlop_events_published_total", topic="/tasks/delete") == 1


def _started(served: Scraped) -> bool:
    """Whether a start has been counted: its shim tells of it after its answer."""
    return bool(served.scrape().total("orlop_events_published_total", topic="/tasks/start"))


def test_garbage_that_waits(tmp_path: Path, busybox_archive: Path) -> None:
    with scraped(tmp_path, more="[gc]\nstartup_delay = 3600.0\n") as served:
        daemon, waiting = served.daemon, "orlop_gc_waiting"
        daemon.ctr("images", "import", str(busybox_archive))
        assert served.scrape().one(waiting, reason="new") > 0
        daemon.ctr("images", "rm", BUSYBOX)
        assert served.scrape().one(waiting, reason="lost") > 0
        daemon.ctr("images", "import", str(busybox_archive))
        daemon.ctr("images", "rm", "--sync", BUSYBOX)
        found = served.scrape()
        assert found.total(waiting) == 0
        assert found.one("orlop_content_seconds_count", operation="delete") >= 1


def test_no_descriptor_is_left(tmp_path: Path, busybox_archive: Path) -> None:
    """Who has a connection already, as Prometheus has, is told what the daemon knows by itself."""
    with scraped(tmp_path, "filesystem_age = 0\n") as served:
        daemon = served.daemon
        daemon.ctr("images", "import", str(busybox_archive))
        daemon.ctr("run", "-d", BUSYBOX, "one", "/bin/sleep", "1000")
        with closing(http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)) as kept:

            def scrape() -> Metrics:
                kept.request("GET", "/metrics")
                answer = kept.getresponse()
                text = answer.read().decode()
                assert answer.status == 200, text
                return Metrics(text)

            assert scrape().one("container_pids_current") >= 1
            daemon.wait_for(lambda: _started(served))
            before = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
            resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (3, before[1]))
            try:
                found = scrape()
            finally:
                resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, before)
            assert not found.all("container_pids_current")
            assert found.one("orlop_tasks") == 1
            assert found.total("orlop_events_published_total", topic="/tasks/start") == 1
            assert found.total("orlop_metrics_container_failures_total") == 1
            assert scrape().one("container_pids_current") >= 1
        daemon.ctr("task", "rm", "-f", "one")
        daemon.ctr("container", "rm", "one")

"""What the daemon says that it has done."""

from __future__ import annotations

from pathlib import Path

from tests.metrics_fixture import scraped


def test_work_is_counted(tmp_path: Path, registry: str) -> None:
    image = f"{registry}/test/busybox:latest"
    with scraped(tmp_path) as served:
        daemon = served.daemon
        before = served.scrape()
        daemon.orlop("pull", image)
        assert daemon.orlop("pull", f"{registry}/test/none:latest", check=False).returncode
        daemon.orlop("run", "-d", "--name", "one", "--network", "none", image, "sleep", "1000")
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

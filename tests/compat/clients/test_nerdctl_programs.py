"""nerdctl: logs and networks by programs of its own."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from orlop.client import Connection
from orlop.errors import OrlopError
from orlop.wire.services import leases_pb2, tasks_pb2
from tests.compat.clients import nerdctl_hook, nerdctl_logger, work
from tests.compat.clients.nerdctl import create, remove
from tests.compat.clients.peer import HOLD, Peer, clear, tasks
from tests.compat.docker.engines import ENGINES, Harbour
from tests.daemon_fixture import Orlopd

pytestmark = pytest.mark.root

SOURCES = Path(__file__).parents[3]


# Logs


def test_logs_by_a_driver(busybox: Orlopd, peer: Connection, tmp_path: Path) -> None:
    nerdctl = program(tmp_path / "nerdctl", nerdctl_logger.__name__)
    container = create(peer, "logged", "sh", "-c", "echo out; echo err >&2; seq 2000")
    folder = tmp_path / "store" / peer.namespace / container.id
    folder.mkdir(parents=True)
    settings = {"driver": "json-file", "host": busybox.address}
    (folder / "log-config.json").write_text(json.dumps(settings))
    uri = f"binary://{nerdctl}?{nerdctl_logger.MAGIC}={tmp_path}/store"
    request = tasks_pb2.CreateTaskRequest(
        container_id=container.id, rootfs=container.mounts, stdout=uri, stderr=uri
    )
    peer.tasks.create(request)
    peer.tasks.start(tasks_pb2.StartRequest(container_id=container.id))
    ended = peer.tasks.wait(tasks_pb2.WaitRequest(container_id=container.id))
    assert ended.exit_status == 0
    busybox.wait_for((folder / "done").exists, 20)
    lines = [json.loads(line) for line in (folder / "log.json").read_text().splitlines()]
    assert {"stream": "stderr", "log": "err\n"} in lines
    assert [each["log"] for each in lines if each["stream"] == "stdout"] == [
        "out\n", *(f"{number}\n" for number in range(1, 2001))
    ]  # fmt: skip
    peer.tasks.delete(tasks_pb2.DeleteTaskRequest(container_id=container.id))
    remove(peer, container.id)


def program(path: Path, module: str) -> Path:
    """A module of these tests as a program."""
    path.write_text(f'#!/bin/sh\ncd {SOURCES} || exit 1\nexec {sys.executable} -m {module} "$@"\n')
    path.chmod(0o755)
    return path


# Networks


@pytest.fixture(params=list(ENGINES))
def networked(request: pytest.FixtureRequest) -> Iterator[tuple[Orlopd, Harbour]]:
    """Each of the daemons, in a network namespace that CNI's plugins may change."""
    engine = ENGINES[request.param]()
    try:
        harbour = Harbour(engine)
        engine.inside = harbour.inside
        engine.start()
        yield engine, harbour
        harbour.close()
        engine.close()
    finally:
        engine.discard()


def test_networks_by_hooks(
    networked: tuple[Orlopd, Harbour], busybox_archive: Path, tmp_path: Path
) -> None:
    engine, harbour = networked
    engine.ctr("images", "import", str(busybox_archive))
    pool = tmp_path / "pool"
    (tmp_path / "network.json").write_text(json.dumps(plugins(pool)))
    server = "mkdir /www; echo hello >/www/text; trap exit TERM; httpd -f -p 80 -h /www & wait"
    with closing(Peer(engine.address, engine.namespace)) as own:
        own.leases.create(leases_pb2.CreateRequest(id=HOLD))
        peer = own.with_lease(HOLD)
        for ending in ("TERM", "KILL"):
            labels = {"nerdctl/state-dir": str(tmp_path)}
            container = create(
                peer, f"web{ending}", "sh", "-c", server, labels=labels, hooks=hooks(tmp_path)
            )
            with work.Process(engine, peer, container.id) as task:
                pid = task.create(container.mounts).pid
                state = json.loads((tmp_path / "oci-hook.createRuntime.json").read_text())
                assert (state["id"], state["pid"]) == (container.id, pid)
                assert state["status"] in ("creating", "created")
                task.start()
                engine.wait_for(lambda: served(harbour) == "hello\n", 20)
                assert "CNI-DN-" in harbour.run("iptables", "-t", "nat", "-S")
                task.kill(9 if ending == "KILL" else 15)
                task.wait()
                task.delete()
            state = json.loads((tmp_path / "oci-hook.postStop.json").read_text())
            assert (state["id"], state["status"]) == (container.id, "stopped")
            assert "10.99.0." not in "".join(path.name for path in (pool / "net").glob("10.*"))
            assert "CNI-DN-" not in harbour.run("iptables", "-t", "nat", "-S")
            for event in ("createRuntime", "postStop"):
                (tmp_path / f"oci-hook.{event}.json").unlink()
            remove(peer, container.id)
        broken = {"nerdctl/state-dir": str(tmp_path), "nerdctl/hostname": "broken"}
        container = create(peer, "broken", "true", labels=broken, hooks=hooks(tmp_path))
        with work.Process(engine, peer, container.id) as task, pytest.raises(OrlopError) as refused:
            task.create(container.mounts)
        assert "hook" in str(refused.value) and tasks(peer) == set()
        remove(peer, container.id)
        clear(peer)


def hooks(folder: Path) -> dict[str, Any]:
    """Both hooks are the same program."""
    nerdctl = program(folder / "nerdctl-hook", nerdctl_hook.__name__)
    return {
        phase: [{"path": str(nerdctl), "args": ["nerdctl", event]}]
        for phase, event in (("createRuntime", "createRuntime"), ("poststop", "postStop"))
    }


def plugins(pool: Path) -> list[dict[str, Any]]:
    subnet = {"subnet": "10.99.0.0/24", "gateway": "10.99.0.1"}
    ipam = {"type": "host-local", "dataDir": str(pool), "ranges": [[subnet]]}
    ports = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
    common = {"cniVersion": "0.4.0", "name": "net"}
    return [
        {**common, "type": "bridge", "bridge": "nerdctl0", "isGateway": True, "ipam": ipam},
        {**common, "type": "portmap", "runtimeConfig": {"portMappings": ports}},
    ]


def served(harbour: Harbour) -> str:
    return harbour.run("sh", "-c", "busybox wget -q -O- http://10.99.0.1:8080/text || true")

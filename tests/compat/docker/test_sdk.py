"""The Python `docker` SDK: containers, images, networks and volumes."""

from __future__ import annotations

import io
import tarfile
import threading
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from docker import errors
from docker.types import IPAMConfig, IPAMPool, LogConfig, Mount, Ulimit

from tests.compat.docker.dockerd import SLEEP, Dockerd
from tests.patience import patient

pytestmark = pytest.mark.root


@pytest.fixture
def client(dockerd: Dockerd) -> Any:
    return dockerd.client


def archive(name: str, content: bytes) -> bytes:
    """A tar with one file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as writer:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        writer.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def test_who_is_there(client: Any, dockerd: Dockerd) -> None:
    assert client.ping()
    assert client.version()["ApiVersion"] >= "1.41"
    info = client.info()
    assert info["Containers"] == 0
    assert info["CgroupDriver"] == "cgroupfs"
    engine = next(each for each in client.version()["Components"] if each["Name"] == "containerd")
    told = dockerd.engine.ctr("version").stdout
    assert engine["Version"] in told
    assert client.df()["Images"]


def test_run_to_the_end(client: Any) -> None:
    output = client.containers.run("busybox", ["echo", "ahoy"], remove=True)
    assert output == b"ahoy\n"
    both = client.containers.run(
        "busybox", ["sh", "-c", "echo out; echo err >&2"], remove=True, stderr=True
    )
    assert sorted(both.split()) == [b"err", b"out"]
    with pytest.raises(errors.ContainerError) as failed:
        client.containers.run("busybox", ["sh", "-c", "echo why >&2; exit 4"], remove=True)
    assert failed.value.exit_status == 4
    assert failed.value.stderr == b"why\n"  # type: ignore[comparison-overlap]
    with pytest.raises(errors.ImageNotFound):
        client.images.get("no/such:image")
    assert client.containers.list(all=True) == []


def test_a_container_s_life(client: Any, dockerd: Dockerd) -> None:
    boat = client.containers.run(
        "busybox", SLEEP, name="boat", detach=True, mem_limit="32m", pids_limit=20,
        labels={"deck": "low"}, ulimits=[Ulimit(name="nofile", soft=99, hard=100)],
        log_config=LogConfig(type=LogConfig.types.JSON, config={"max-size": "1m"}),
    )  # fmt: skip
    assert [each.name for each in client.containers.list(filters={"label": "deck=low"})] == ["boat"]
    dockerd.ready("boat")
    boat.reload()
    assert boat.status == "running"
    assert boat.top()["Titles"][1] == "PID"
    stats = boat.stats(stream=False)
    assert stats["memory_stats"]["limit"] == 32 << 20
    assert stats["pids_stats"]["current"] == 2
    first, second = (next(boat.stats(decode=True)) for _ in range(2))
    used = [each["cpu_stats"]["cpu_usage"]["total_usage"] for each in (first, second)]
    assert 0 < used[0] <= used[1]
    boat.pause()
    boat.reload()
    assert boat.status == "paused"
    boat.unpause()
    boat.update(mem_limit="48m", memswap_limit="96m")
    assert boat.stats(stream=False)["memory_stats"]["limit"] == 48 << 20
    boat.rename("ship")
    boat.restart(timeout=5)
    dockerd.ready("ship", 2)
    boat.kill("SIGTERM")
    assert boat.wait(timeout=patient(30))["StatusCode"] == 0
    boat.start()
    boat.stop(timeout=5)
    boat.reload()
    assert (boat.status, boat.name) == ("exited", "ship")
    boat.remove()
    with pytest.raises(errors.NotFound):
        client.containers.get("ship")


def test_exec(client: Any) -> None:
    boat = client.containers.run("busybox", SLEEP, detach=True)
    code, output = boat.exec_run(["sh", "-c", "echo $CARGO; id -un; exit 3"], user="sailor",
                                 environment={"CARGO": "tea"}, workdir="/tmp")  # fmt: skip
    assert (code, output) == (3, b"tea\nsailor\n")
    demuxed = boat.exec_run(["sh", "-c", "echo out; echo err >&2"], demux=True).output
    assert demuxed == (b"out\n", b"err\n")
    stream = boat.exec_run(["sh", "-c", "echo one; sleep 0.2; echo two"], stream=True).output
    assert b"".join(stream) == b"one\ntwo\n"
    made = client.api.exec_create(boat.id, ["cat"], stdin=True, tty=True)
    client.api.exec_start(made["Id"], detach=True)
    client.api.exec_resize(made["Id"], height=20, width=70)
    assert client.api.exec_inspect(made["Id"])["Running"]


def test_attached_socket(client: Any) -> None:
    boat = client.containers.create("busybox", ["cat"], stdin_open=True, tty=False)
    raw = boat.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    boat.start()
    raw._sock.sendall(b"ahoy\n")
    header = raw.read(8)
    assert header[0] == 1
    assert raw.read(header[-1]) == b"ahoy\n"
    raw.close()
    boat.stop(timeout=0)


def test_logs_follow(client: Any) -> None:
    boat = client.containers.run(
        "busybox", ["sh", "-c", "for n in 1 2 3; do echo $n; sleep 0.1; done"], detach=True
    )
    assert b"".join(boat.logs(stream=True, follow=True)) == b"1\n2\n3\n"
    assert boat.logs(tail=1) == b"3\n"


def test_attach_and_its_size(client: Any, dockerd: Dockerd) -> None:
    boat = client.containers.run("busybox", ["cat"], detach=True, stdin_open=True, tty=True)
    output = boat.attach(stream=True)
    boat.resize(height=21, width=71)
    size = ["sh", "-c", "stty size </proc/1/fd/0"]
    dockerd.wait_for(lambda: boat.exec_run(size).output == b"21 71\n")
    raw = boat.attach_socket(params={"stdin": 1, "stream": 1})
    raw._sock.sendall(b"ahoy\n")
    dockerd.wait_for(lambda: boat.logs() == b"ahoy\r\nahoy\r\n")
    raw._sock.sendall(b"\x04")  # only now: Debian's shim may lose what is said at the last moment
    assert b"".join(output) == b"ahoy\r\nahoy\r\n"
    raw.close()
    boat.wait(timeout=patient(30))
    assert boat.logs() == b"ahoy\r\nahoy\r\n"


def test_exec_by_socket_on_a_terminal_and_detached(client: Any, dockerd: Dockerd) -> None:
    boat = client.containers.run("busybox", SLEEP, detach=True)
    raw = boat.exec_run(["sh", "-c", "read x; echo $x $x"], socket=True, stdin=True).output
    raw._sock.settimeout(patient(30))
    raw._sock.sendall(b"aye\n")
    header = raw.read(8)
    assert (header[0], raw.read(header[-1])) == (1, b"aye aye\n")
    raw.close()
    # Not in its last moment, of which Debian's shim may lose what is said.
    assert boat.exec_run(["sh", "-c", "tty; sleep 1"], tty=True).output == b"/dev/pts/0\r\n"
    assert not boat.exec_run(["sh", "-c", "echo made | tee /done"], detach=True).output
    dockerd.wait_for(lambda: boat.exec_run(["ls", "/done"]).exit_code == 0)


def test_wait_for_conditions(client: Any) -> None:
    boat = client.containers.create("busybox", ["sh", "-c", "exit 5"])
    assert boat.wait(timeout=patient(60), condition="not-running")["StatusCode"] == 0
    told: list[int] = []
    waiting = wait_meanwhile(boat, "next-exit", told)
    while waiting.is_alive():  # for whom the first one came too early
        boat.start()
        assert boat.wait(timeout=patient(60))["StatusCode"] == 5
        waiting.join(1)
    assert told == [5]
    while told == [5]:
        waiting = wait_meanwhile(boat, "removed", told)
        boat.start()
        boat.wait(timeout=patient(60))
        boat.remove()
        waiting.join(patient(60))
        boat = client.containers.create("busybox", ["sh", "-c", "exit 5"])
    assert told == [5, 5]


def wait_meanwhile(boat: Any, condition: str, told: list[int]) -> threading.Thread:
    """Wait in a thread; nothing is told if the container was gone before."""

    def wait() -> None:
        with suppress(errors.NotFound):
            told.append(boat.wait(timeout=patient(60), condition=condition)["StatusCode"])

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def test_logs_of_a_time(client: Any) -> None:
    boat = client.containers.run(
        "busybox", ["sh", "-c", "echo one; sleep 2.5; echo two"], detach=True
    )
    boat.wait(timeout=patient(60))
    stamps, words = zip(
        *(line.split() for line in boat.logs(timestamps=True).decode().splitlines()), strict=True
    )
    assert words == ("one", "two")
    first, last = (datetime.fromisoformat(each[:26] + "+00:00").timestamp() for each in stamps)
    between = (first + last) / 2
    assert boat.logs(since=between) == b"two\n"
    assert boat.logs(until=between) == b"one\n"


def test_prunes_tell_what_they_removed(client: Any, tmp_path: Path) -> None:
    boat = client.containers.run("busybox", ["sh", "-c", "head -c 5000 /dev/zero >/x"], detach=True)
    boat.wait(timeout=patient(60))
    lane = client.networks.create("lane")
    client.volumes.create("hold")
    answer = client.containers.prune()
    assert answer["ContainersDeleted"] == [boat.id]
    assert answer["SpaceReclaimed"] >= 5000
    assert client.networks.prune()["NetworksDeleted"] == [lane.name]
    assert client.volumes.prune()["VolumesDeleted"] == ["hold"]
    (tmp_path / "Dockerfile").write_text("FROM busybox\nLABEL deck=low\n")
    image, _ = client.images.build(path=str(tmp_path))
    deleted = client.images.prune()["ImagesDeleted"]
    assert image.id in {each.get("Deleted") for each in deleted}


def test_archives_and_changes(client: Any) -> None:
    boat = client.containers.run("busybox", SLEEP, detach=True)
    assert boat.put_archive("/home", archive("cargo", b"tea\n"))
    assert boat.exec_run(["cat", "/home/cargo"]).output == b"tea\n"
    stream, facts = boat.get_archive("/home/cargo")
    assert facts["size"] == 4
    with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as reader:
        assert reader.getnames() == ["cargo"]
    changed = {each["Path"] for each in boat.diff()}
    assert changed == {"/home", "/home/cargo"}
    with tarfile.open(fileobj=io.BytesIO(b"".join(boat.export()))) as reader:
        assert "home/cargo" in reader.getnames()
    image = boat.commit("laden", tag="1", changes='CMD ["cat", "/home/cargo"]')
    assert client.containers.run(image.id, remove=True) == b"tea\n"


def test_images(client: Any, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nARG A\nRUN echo $A >/a\nLABEL deck=low\n")
    image, log = client.images.build(path=str(tmp_path), tag="ship:1", buildargs={"A": "oak"})
    assert any("Successfully built" in str(line.get("stream")) for line in log)
    assert client.containers.run("ship:1", ["cat", "/a"], remove=True) == b"oak\n"
    with pytest.raises(errors.BuildError):
        client.images.build(fileobj=io.BytesIO(b"FROM busybox\nRUN false\n"), rm=True)
    assert image.tag("hold/ship", "2")
    image.reload()
    assert sorted(image.tags) == ["hold/ship:2", "ship:1"]
    assert image.history()[0]["CreatedBy"]
    saved = b"".join(image.save(named="hold/ship:2"))
    client.images.remove("hold/ship:2")
    client.images.remove("ship:1")
    assert client.images.load(saved)[0].tags == ["hold/ship:2"]
    assert len(client.images.list(filters={"label": "deck=low"})) == 1
    client.containers.prune()
    client.images.prune(filters={"dangling": False})
    with pytest.raises(errors.ImageNotFound):
        client.images.get("hold/ship:2")


def test_networks(client: Any) -> None:
    pool = IPAMPool(subnet="10.78.0.0/24", gateway="10.78.0.1")
    lane = client.networks.create("lane", driver="bridge", ipam=IPAMConfig(pool_configs=[pool]),
                                  labels={"sea": "north"}, internal=True)  # fmt: skip
    boat = client.containers.run("busybox", SLEEP, detach=True, name="boat", network="lane")
    ship = client.containers.run("busybox", SLEEP, detach=True, name="ship")
    lane.connect(ship, aliases=["vessel"], ipv4_address="10.78.0.77")
    lane.reload()
    assert {each.name for each in lane.containers} == {"boat", "ship"}
    found = boat.exec_run(["nslookup", "vessel"]).output
    assert b"10.78.0.77" in found
    lane.disconnect(ship)
    lane.disconnect(boat, force=True)
    assert [each.name for each in client.networks.list(names=["lane"])] == ["lane"]
    lane.remove()
    with pytest.raises(errors.NotFound):
        client.networks.get("lane")


def test_volumes(client: Any, tmp_path: Path) -> None:
    hold = client.volumes.create("hold", labels={"deck": "low"})
    mounts = [Mount("/hold", "hold"), Mount("/here", str(tmp_path), type="bind"),
              Mount("/quick", None, type="tmpfs", tmpfs_size=1 << 20)]  # fmt: skip
    client.containers.run(
        "busybox", ["sh", "-c", "echo tea >/hold/x && cp /hold/x /here && cp /hold/x /quick"],
        mounts=mounts, remove=True,
    )  # fmt: skip
    assert (tmp_path / "x").read_text() == "tea\n"
    shown = client.containers.run(
        "busybox", ["cat", "/x/x"], volumes={"hold": {"bind": "/x", "mode": "ro"}}, remove=True
    )
    assert shown == b"tea\n"
    assert [each.name for each in client.volumes.list(filters={"label": "deck=low"})] == ["hold"]
    hold.remove()
    assert client.volumes.list() == []


def test_events(client: Any) -> None:
    wanted = {"type": "container", "label": "deck=heard"}  # a label that no other test gives
    events = client.events(decode=True, filters=wanted, since=1)
    told: list[str] = []
    ready = threading.Event()

    def listen() -> None:
        ready.set()
        for event in events:
            told.append(event["Action"])
            if event["Action"] == "destroy":
                return

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        ready.wait()
        client.containers.run("busybox", "true", labels={"deck": "heard"}, remove=True)
        listener.join(patient(30))
        assert told == ["create", "start", "die", "destroy"]
    finally:
        events.close()

"""Checkpoints and restores as far as they go without a criu that knows this kernel.

The runtime is a script that takes its command line down and runs the real runc, or, where a test
says so, does what criu would have done: writes images, or fails with a log. `tests/vm` has the real
criu.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from orlop.client import leases
from orlop.errors import AlreadyExists, InvalidArgument, NotFound, OrlopError, Unknown
from orlop.rpc.convert import pack
from orlop.wire.runc_pb2 import CheckpointOptions, Options
from orlop.wire.services import containers_pb2, content_pb2, leases_pb2, tasks_pb2
from orlop.wire.task_types_pb2 import CREATED, RUNNING, STOPPED
from orlop.wire.types_pb2 import Descriptor
from tests.daemon_fixture import Orlopd
from tests.events_heard import hearing
from tests.killing import kill

pytestmark = pytest.mark.root

IMAGES = "application/vnd.containerd.container.criu.checkpoint.criu.tar"
CONFIG = "application/vnd.containerd.container.checkpoint.config.v1+proto"

RUNTIME = """#!/bin/sh
echo "$@" >> {folder}/calls
all="$*"
while [ $# -gt 0 ]; do
  case "$1" in
    --image-path) images=$2 ;;
    --work-path) work=$2 ;;
    --log) log=$2 ;;
    --bundle) bundle=$2 ;;
    --pid-file) pid_file=$2 ;;
    checkpoint|restore) verb=$1 ;;
  esac
  shift
done
test -z "$verb" && exec runc $all
test -n "$CRIU_CONFIG_FILE" && cat "$CRIU_CONFIG_FILE" >> {folder}/told-criu
if [ -e {folder}/fail-$verb ]; then
  name=restore; test $verb = checkpoint && name=dump
  mkdir -p "$images" "$work"; echo torn > "$images/torn.img"
  echo "(00.001) Warn  (criu/x.c:1): a warning" > "$work/$name.log"
  echo "(00.002) Error (criu/y.c:2): the first reason" >> "$work/$name.log"
  echo "(00.003) Error (criu/z.c:3): the last reason" >> "$work/$name.log"
  echo '{{"level":"error","msg":"criu failed: type NOTIFY errno 0"}}' > "$log"
  exit 1
fi
case $verb in
  checkpoint)
    mkdir -p "$images" "$work"
    echo state > "$images/pages-1.img"; echo x > "$images/inventory.img" ;;
  restore)
    cat "$images/pages-1.img" > {folder}/restored
    sleep 1000 <&- >/dev/null 2>&1 &
    echo $! > "$pid_file" ;;
esac
"""


class Box:
    """A running container of such a runtime."""

    def __init__(self, orlopd: Orlopd, folder: Path) -> None:
        self.orlopd = orlopd
        self.folder = folder
        with orlopd.connect() as connection:
            connection.leases.create(leases_pb2.CreateRequest(id="box"))
        self.connection = orlopd.connect(lease="box")  # holds the checkpoints
        self.tasks = self.connection.tasks

    def calls(self, verb: str) -> list[str]:
        lines = (self.folder / "calls").read_text().splitlines()
        return [line for line in lines if f" {verb} " in line]

    def fail(self, verb: str) -> None:
        (self.folder / f"fail-{verb}").touch()

    def checkpoint(self, options: CheckpointOptions | None = None) -> list[Descriptor]:
        request = tasks_pb2.CheckpointTaskRequest(container_id="box")
        if options is not None:
            request.options.CopyFrom(pack(options))
        return list(self.tasks.checkpoint(request).descriptors)

    def status(self) -> int:
        request = tasks_pb2.GetRequest(container_id="box")
        return int(self.tasks.get(request).process.status)

    def kill(self) -> None:
        """Its process, which after a restore the real runtime does not know."""
        found = self.tasks.get(tasks_pb2.GetRequest(container_id="box")).process
        kill(found.pid)
        self.tasks.wait(tasks_pb2.WaitRequest(container_id="box"))
        self.tasks.delete(tasks_pb2.DeleteTaskRequest(container_id="box"))

    def create(self, checkpoint: Descriptor | None, options: Options | None = None) -> int:
        request = tasks_pb2.CreateTaskRequest(container_id="box", checkpoint=checkpoint)
        if options is not None:
            request.options.CopyFrom(pack(options))
        return int(self.tasks.create(request).pid)

    def start(self) -> int:
        return int(self.tasks.start(tasks_pb2.StartRequest(container_id="box")).pid)

    def work(self) -> list[str]:
        """What the daemon keeps for the task."""
        place = f"io.containerd.runtime.v2.task/{self.orlopd.namespace}/box"
        return [path.name for path in (self.orlopd.root / place).iterdir()]


@pytest.fixture
def box(orlopd: Orlopd, busybox: str, tmp_path: Path) -> Iterator[Box]:
    runtime = tmp_path / "runtime"
    runtime.write_text(RUNTIME.format(folder=tmp_path))
    runtime.chmod(0o755)
    orlopd.ctr("run", "-d", "--null-io", "--runc-binary", str(runtime), busybox, "box",
        "sleep", "1000")  # fmt: skip
    made = Box(orlopd, tmp_path)
    yield made
    made.connection.close()
    orlopd.ctr("tasks", "rm", "-f", "box", check=False)
    orlopd.ctr("containers", "rm", "box", check=False)


def _read(box: Box, digest: str) -> bytes:
    parts = box.connection.content.read(content_pb2.ReadContentRequest(digest=digest))
    return b"".join(part.data for part in parts)


def test_a_checkpoint_becomes_content(box: Box) -> None:
    images, config = box.checkpoint()
    assert (images.media_type, config.media_type) == (IMAGES, CONFIG)
    assert b"pages-1.img" in _read(box, images.digest)
    record = box.connection.containers.get(containers_pb2.GetContainerRequest(id="box")).container
    assert _read(box, config.digest) == record.spec.SerializeToString()
    assert box.work() == []
    (call,) = box.calls("checkpoint")
    assert call.endswith("--leave-running box")
    assert box.status() == RUNNING


def test_all_options_reach_the_runtime(box: Box, tmp_path: Path) -> None:
    options = CheckpointOptions(
        exit=True,
        open_tcp=True,
        external_unix_sockets=True,
        terminal=True,
        file_locks=True,
        empty_namespaces=["network"],
        cgroups_mode="full",
        image_path=str(tmp_path / "images"),
        work_path=str(tmp_path / "work"),
    )
    assert box.checkpoint(options) == []
    flags = (
        "--tcp-established --ext-unix-sk --shell-job --file-locks --empty-ns network "
        "--manage-cgroups-mode full"
    )
    (call,) = box.calls("checkpoint")
    folders = f"--image-path {tmp_path}/images --work-path {tmp_path}/work"
    assert call.endswith(f" checkpoint {folders} {flags} box")
    assert (tmp_path / "images/inventory.img").exists()
    box.kill()
    assert box.create(None, Options(
        binary_name=str(tmp_path / "runtime"),
        criu_image_path=str(tmp_path / "images"),
        criu_work_path=str(tmp_path / "again"),
        no_pivot_root=True,
    )) == 0  # fmt: skip
    assert box.start() > 0
    (call,) = box.calls("restore")
    assert "--detach --no-subreaper" in call
    assert "--no-pivot" in call
    folders = f"--image-path {tmp_path}/images --work-path {tmp_path}/again"
    assert call.endswith(f"{folders} {flags} box")
    box.kill()


def test_a_restored_task_is_there_once_it_starts(box: Box) -> None:
    images, _ = box.checkpoint()
    box.kill()
    assert box.create(images) == 0
    assert box.status() == CREATED
    assert not (box.folder / "restored").exists()
    with pytest.raises(NotFound):
        box.tasks.kill(tasks_pb2.KillRequest(container_id="box", signal=9))
    pid = box.start()
    assert (box.folder / "restored").read_text() == "state\n"
    assert box.status() == RUNNING
    # The runtime tells the pid of what it has forked, which becomes the program a moment later.
    box.orlopd.wait_for(lambda: Path(f"/proc/{pid}/comm").read_text() == "sleep\n")
    kill(pid, signal.SIGTERM)
    ended = box.tasks.wait(tasks_pb2.WaitRequest(container_id="box"))
    assert ended.exit_status == 128 + signal.SIGTERM
    assert box.status() == STOPPED
    box.tasks.delete(tasks_pb2.DeleteTaskRequest(container_id="box"))


def test_a_restored_task_that_is_never_started(box: Box) -> None:
    images, _ = box.checkpoint()
    box.kill()
    box.create(images)
    box.tasks.delete(tasks_pb2.DeleteTaskRequest(container_id="box"))
    box.create(images)
    box.orlopd.restart()
    box.connection = box.orlopd.connect()
    box.tasks = box.connection.tasks
    assert box.status() == CREATED
    assert box.start() > 0
    box.kill()


@pytest.mark.parametrize("where", ["content", "new folder", "folder with files"])
def test_a_checkpoint_that_fails(box: Box, where: str, tmp_path: Path) -> None:
    """The container goes on, nothing is left, and criu's own words are told."""
    box.fail("checkpoint")
    options = CheckpointOptions(exit=True)
    if where != "content":
        options.image_path = str(tmp_path / "images")
    if where == "folder with files":
        (tmp_path / "images").mkdir()
        (tmp_path / "images/mine").write_text("mine")
    leases.collect(box.connection)  # what nothing keeps must not go meanwhile
    before = list(box.connection.content.list(content_pb2.ListContentRequest()))
    with pytest.raises(Unknown) as failure:
        box.checkpoint(options)
    told = str(failure.value)
    assert "OCI runtime checkpoint failed: criu failed: type NOTIFY errno 0" in told
    assert "criu: (criu/y.c:2): the first reason; criu: (criu/z.c:3): the last reason" in told
    assert "a warning" not in told
    assert box.status() == RUNNING
    assert box.work() == []
    kept = ["mine"] if where == "folder with files" else []
    assert [path.name for path in (tmp_path / "images").glob("*")] == kept
    assert (tmp_path / "images").exists() == (where == "folder with files")
    assert list(box.connection.content.list(content_pb2.ListContentRequest())) == before
    (tmp_path / "fail-checkpoint").unlink()
    assert len(box.checkpoint(CheckpointOptions())) == 2


def test_a_restore_that_fails(box: Box, tmp_path: Path) -> None:
    images, _ = box.checkpoint()
    box.kill()
    box.fail("restore")
    box.create(images)
    with pytest.raises(Unknown) as failure:
        box.start()
    assert "OCI runtime restore failed: criu failed" in str(failure.value)
    assert "criu: (criu/z.c:3): the last reason" in str(failure.value)
    assert box.status() == CREATED
    (tmp_path / "fail-restore").unlink()
    assert box.start() > 0  # another try
    box.kill()
    box.fail("restore")
    box.create(images)
    with pytest.raises(Unknown):
        box.start()
    box.tasks.delete(tasks_pb2.DeleteTaskRequest(container_id="box"))


def test_what_is_no_checkpoint(box: Box, tmp_path: Path) -> None:
    images, config = box.checkpoint()
    with pytest.raises(InvalidArgument, match='image path "here" is not an absolute path'):
        box.checkpoint(CheckpointOptions(image_path="here"))
    with pytest.raises(NotFound, match='task "nobody"'):
        box.tasks.checkpoint(tasks_pb2.CheckpointTaskRequest(container_id="nobody"))
    box.kill()
    with pytest.raises(InvalidArgument, match="checkpoint of unsupported type"):
        box.create(config)
    lost = Descriptor(media_type=IMAGES, digest="sha256:" + "0" * 64, size=1)
    with pytest.raises(NotFound, match="content"):
        box.create(lost)
    with pytest.raises(InvalidArgument, match="layer"):
        box.create(Descriptor(media_type=IMAGES, digest=config.digest, size=config.size))
    with pytest.raises(NotFound, match=f'checkpoint "{tmp_path}/none"'):
        box.create(None, Options(criu_image_path=str(tmp_path / "none")))
    assert box.create(images) == 0
    with pytest.raises(Unknown, match="cannot checkpoint a created process"):
        box.checkpoint()
    box.tasks.delete(tasks_pb2.DeleteTaskRequest(container_id="box"))


def test_streams_that_are_fifos(box: Box, busybox: str, tmp_path: Path) -> None:
    """criu is told that they are outside, and what to put in their place."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        _run_again(box, busybox, f"file://{fifo}")
        images, _ = box.checkpoint()
        (line,) = (tmp_path / "told-criu").read_text().splitlines()
        assert line == f"external file[{_mount_of(reader):x}:{fifo.stat().st_ino:x}]"
        box.kill()
        box.create(images)
        box.start()
        name = line.partition(" ")[2]
        assert (tmp_path / "told-criu").read_text().splitlines()[1:] == [f"inherit-fd fd[1]:{name}"]
        box.kill()
    finally:
        os.close(reader)


def test_streams_that_are_pipes_or_nothing(box: Box, busybox: str, tmp_path: Path) -> None:
    """The runtime tells criu of them; a file of the host's is behind a pipe."""
    box.checkpoint()
    _run_again(box, busybox, f"file://{tmp_path}/log")
    images, _ = box.checkpoint()
    box.kill()
    box.create(images)
    box.start()
    box.kill()
    assert not (tmp_path / "told-criu").exists()


def _run_again(box: Box, image: str, log: str) -> None:
    box.kill()
    box.orlopd.ctr("containers", "rm", "box")
    options = ("-d", "--runc-binary", str(box.folder / "runtime"), "--log-uri", log)
    box.orlopd.ctr("run", *options, image, "box", "sleep", "1000")


def _mount_of(fd: int) -> int:
    facts = Path(f"/proc/self/fdinfo/{fd}").read_text()
    return int(facts.partition("mnt_id:")[2].split()[0])


def test_events(box: Box) -> None:
    with hearing(box.orlopd) as heard:
        box.checkpoint()
        box.orlopd.wait_for(lambda: "/tasks/checkpointed" in heard.topics(), 20)
        line = next(line for line in heard.lines() if "checkpointed" in line)
    assert json.loads(line[line.index("{") :])["container_id"] == "box"


def test_ctr_as_it_is(box: Box) -> None:
    """Debian's client: `ctr c checkpoint` and `restore` with all of their options."""
    reference = "docker.io/library/box:checkpoint"
    orlopd = box.orlopd
    orlopd.ctr("containers", "checkpoint", "--task", "--rw", "--image", "box", reference)
    assert box.status() == RUNNING
    box.kill()
    orlopd.ctr("containers", "rm", "box")
    orlopd.ctr("containers", "restore", "--rw", "--live", "box", reference)
    assert box.status() == RUNNING
    assert (box.folder / "restored").read_text() == "state\n"
    box.kill()
    orlopd.ctr("images", "rm", reference)


def test_orlop_as_docker(box: Box, tmp_path: Path) -> None:
    orlop = box.orlopd.orlop
    with pytest.raises(OrlopError):
        box.connection.tasks.get(tasks_pb2.GetRequest(container_id="nobody"))
    assert orlop("checkpoint", "create", "--leave-running", "box", "one").stdout == "one\n"
    assert orlop("checkpoint", "create", "--leave-running", "box", "two").stdout == "two\n"
    assert orlop("checkpoint", "ls", "box").stdout.split()[-2:] == ["one", "two"]
    refused = orlop("checkpoint", "create", "box", "one", check=False)
    assert str(AlreadyExists('checkpoint "one" of container "box"')) in refused.stderr
    folder = str(tmp_path / "kept")
    orlop("checkpoint", "create", "--checkpoint-dir", folder, "--tcp-established", "box", "three")
    assert (tmp_path / "kept/three/inventory.img").exists()
    assert not box.calls("checkpoint")[-1].endswith("--leave-running box")
    listed = orlop("checkpoint", "ls", "--checkpoint-dir", folder, "box").stdout
    assert listed.split()[-1] == "three"
    box.kill()
    orlop("start", "--checkpoint", "one", "box")
    assert box.status() == RUNNING
    box.kill()
    assert orlop("restore", "box").stdout == "box\n"
    box.kill()
    orlop("start", "--checkpoint", "three", "--checkpoint-dir", folder, "box")
    assert f"--image-path {folder}/three" in box.calls("restore")[-1]
    box.kill()
    refused = orlop("restore", "box", "none", check=False)
    assert 'checkpoint "none" of container "box": not found' in refused.stderr
    for name in ("one", "two"):
        orlop("checkpoint", "rm", "box", name)
    assert orlop("checkpoint", "rm", "box", "one", check=False).returncode == 1
    orlop("checkpoint", "rm", "--checkpoint-dir", folder, "box", "three")
    assert 'checkpoint of container "box"' in orlop("restore", "box", check=False).stderr


def test_a_container_that_ends_by_a_checkpoint_is_not_started_again(box: Box) -> None:
    policy, stopped = "containerd.io/restart.policy", "containerd.io/restart.explicitly-stopped"
    box.orlopd.ctr("containers", "label", "box", f"{policy}=always")

    def is_stopped() -> str:
        request = containers_pb2.GetContainerRequest(id="box")
        labels = box.connection.containers.get(request).container.labels
        return str(labels.get(stopped, ""))

    box.fail("checkpoint")
    assert box.orlopd.orlop("checkpoint", "create", "box", "one", check=False).returncode == 1
    assert is_stopped() == "false"
    (box.folder / "fail-checkpoint").unlink()
    box.orlopd.orlop("checkpoint", "create", "box", "one")
    assert is_stopped() == "true"

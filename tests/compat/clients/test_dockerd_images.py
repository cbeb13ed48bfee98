"""dockerd with the containerd image store (25 and later): images, layers and leases live below.

What Debian's dockerd does, with containers alone, is in `tests/compat/docker`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.field_mask_pb2 import FieldMask

from orlop.client import Connection
from orlop.client import images as client_images
from orlop.client.containers import RUNTIME
from orlop.errors import AlreadyExists, NotFound, OrlopError, Unimplemented, Unknown
from orlop.wire import events_pb2
from orlop.wire.runc_pb2 import CheckpointOptions, Options
from orlop.wire.services import (
    containers_pb2,
    content_pb2,
    diff_pb2,
    images_pb2,
    leases_pb2,
    mounts_pb2,
    snapshots_pb2,
    tasks_pb2,
)
from orlop.wire.task_types_pb2 import RUNNING
from orlop.wire.types_pb2 import Descriptor
from tests import archive_fixture
from tests.compat.clients import work
from tests.compat.clients.peer import (
    HOLD,
    SNAPSHOTTER,
    Peer,
    blobs,
    clear,
    containers,
    images,
    leases,
    resources,
    snapshots,
    tasks,
)
from tests.compat.docker.engines import ENGINES
from tests.daemon_fixture import BUSYBOX, Orlopd, serving

pytestmark = pytest.mark.root

BUNDLE = "com.docker/engine.bundle.path"
PARENT = "org.mobyproject.image.parent"
CHECKPOINT = "application/vnd.containerd.container.criu.checkpoint.criu.tar"
SHIM = "io.containerd.runc.v2"


def image(name: str, target: Descriptor, **labels: str) -> images_pb2.Image:
    return images_pb2.Image(name=name, target=target, labels=labels)


def target_of(peer: Connection, text: str) -> Descriptor:
    digest = work.put(peer, text.encode())
    return Descriptor(media_type=archive_fixture.MANIFEST, digest=digest, size=len(text))


def create(peer: Connection, wanted: images_pb2.Image) -> None:
    peer.images.create(images_pb2.CreateImageRequest(image=wanted))


def delete(peer: Connection, name: str, *, sync: bool = False) -> None:
    peer.images.delete(images_pb2.DeleteImageRequest(name=name, sync=sync))


# Images


def test_images_are_found(peer: Connection) -> None:
    """By name, digest, the beginning of a digest, repository, and label."""
    one, two = target_of(peer, "one"), target_of(peer, "two")
    repository = "docker.io/library/one"
    create(peer, image(f"{repository}:latest", one, **{PARENT: "sha256:parent"}))
    create(peer, image(f"{repository}:v1.0_a-b", two))
    create(peer, image("docker.io/library/one-more:latest", one))
    create(peer, image(f"moby-dangling@{two.digest}", two))
    named = {f"{repository}:latest", f"{repository}:v1.0_a-b"}
    tag = r"[\w][\w.-]{0,127}"
    pattern = f"^{re.escape(repository)}:{tag}$"
    assert set(images(peer, f"name~={quoted(pattern)}")) == named
    short = one.digest.removeprefix("sha256:")[:12]
    pattern = f"^sha256:{short}[0-9a-fA-F]{{{64 - len(short)}}}$"
    by_id = f"target.digest~={quoted(pattern)}"
    wanted = {f"{repository}:latest", "docker.io/library/one-more:latest"}
    assert set(images(peer, f'name=="docker.io/library/{short}:latest"', by_id)) == wanted
    assert set(images(peer, f"target.digest=={one.digest}")) == wanted
    labelled = f"target.digest=={one.digest},labels.{PARENT}"
    assert set(images(peer, labelled)) == {f"{repository}:latest"}
    assert set(images(peer, "name~=^moby-dangling@")) == {f"moby-dangling@{two.digest}"}
    assert not images(peer, "name==nobody")
    with pytest.raises(NotFound):
        client_images.get(peer, f"{repository}:v2")


def quoted(text: str) -> str:
    """As Go quotes it."""
    return json.dumps(text)


def test_a_tag_moves(peer: Connection) -> None:
    """What a name meant before stays, as a dangling image."""
    old, new = target_of(peer, "old"), target_of(peer, "new")
    name, dangling = "docker.io/library/moved:latest", f"moby-dangling@{old.digest}"
    create(peer, image(name, old, **{"io.containerd.image.name": name, "kept": "yes"}))
    with pytest.raises(AlreadyExists):
        create(peer, image(name, new))
    assert client_images.get(peer, name).target.digest == old.digest
    create(peer, image(dangling, old, kept="yes"))
    with pytest.raises(AlreadyExists):
        create(peer, image(dangling, old))
    delete(peer, name)
    with pytest.raises(NotFound):
        delete(peer, name)
    create(peer, image(name, new))
    changed = images_pb2.UpdateImageRequest(
        image=image(name, old, **{PARENT: "sha256:parent"}), update_mask=FieldMask(paths=["labels"])
    )
    updated = peer.images.update(changed).image
    assert (updated.target.digest, dict(updated.labels)) == (new.digest, {PARENT: "sha256:parent"})
    assert images(peer) == {name: new.digest, dangling: old.digest}
    delete(peer, dangling, sync=True)
    assert images(peer) == {name: new.digest}


def test_content_is_walked(peer: Connection) -> None:
    """For the sources of blobs, of which a push makes mounts from other repositories."""
    source = "containerd.io/distribution.source.docker.io"
    one, two = work.put(peer, b"one", {source: "library/a,me/b"}), work.put(peer, b"two")
    assert set(blobs(peer, f'labels."{source}"~="me/b"')) == {one}
    with pytest.raises(NotFound):
        work.info(peer, archive_fixture.digest_of(b"nobody's"))
    label = content_pb2.Info(digest=two, labels={source: "library/c"})
    mask = FieldMask(paths=[f"labels.{source}"])
    peer.content.update(content_pb2.UpdateRequest(info=label, update_mask=mask))
    assert {digest: found[source] for digest, found in blobs(peer).items()} == {
        one: "library/a,me/b", two: "library/c"
    }  # fmt: skip


# Layers


class Layer:
    """A container's writable layer, as dockerd makes it, under a lease of the container's name."""

    def __init__(self, peer: Connection, id: str) -> None:
        self.id = id
        view = client_images.view(peer, client_images.get(peer, BUSYBOX))
        self._peer = peer
        peer.leases.create(leases_pb2.CreateRequest(id=id))
        held = peer.with_lease(id)
        with work.mounted(work.prepare(held, f"{id}-init-key", view.chain_id)) as root:
            (root / "etc/resolv.conf").touch()
            (root / ".dockerenv").touch()
        work.commit(held, f"{id}-init", f"{id}-init-key")
        self.mounts = work.prepare(held, id, f"{id}-init")

    def release(self) -> None:
        """All that dockerd does is to end the lease, and to wait for the collector."""
        self._peer.leases.delete(leases_pb2.DeleteRequest(id=self.id, sync=True))


def usage(peer: Connection, key: str) -> tuple[int, int]:
    """Bytes and inodes of a snapshot, and of it with all below it."""
    own = total = int(_usage(peer, key).size)
    while key := work.stat(peer, key).parent:
        total += int(_usage(peer, key).size)
    return own, total


def _usage(peer: Connection, key: str) -> snapshots_pb2.UsageResponse:
    request = snapshots_pb2.UsageRequest(snapshotter=SNAPSHOTTER, key=key)
    found: snapshots_pb2.UsageResponse = peer.snapshots.usage(request)
    return found


def test_layers_of_containers(busybox: Orlopd, peer: Connection) -> None:
    base = client_images.view(peer, client_images.get(peer, BUSYBOX)).chain_id
    layer = Layer(peer, "c" * 64)
    kind = f"snapshots/{SNAPSHOTTER}"
    # Committing moves the resource to the new name.
    assert resources(peer, layer.id) >= {(kind, layer.id), (kind, f"{layer.id}-init")}
    assert leases(peer, f"id=={layer.id}") == {layer.id} and not leases(peer, "id==nobody")
    assert work.stat(peer, layer.id).parent == f"{layer.id}-init"
    assert work.stat(peer, f"{layer.id}-init").parent == base
    with work.mounted(layer.mounts) as root:
        (root / "written").write_bytes(os.urandom(50_000))
    own, whole = usage(peer, layer.id)
    assert 50_000 <= own < 100_000 < whole
    found = snapshots(peer, f"parent=={layer.id}-init", 'name~="^nobody"')
    assert set(found) == {layer.id} and found[layer.id].kind == snapshots_pb2.ACTIVE
    with pytest.raises(AlreadyExists):
        peer.leases.create(leases_pb2.CreateRequest(id=layer.id))
    with pytest.raises(NotFound):
        work.stat(peer, "nobody")
    # `docker diff` and `export` mount a view, beside the layer that may be in use.
    with work.mounted(work.view(peer, f"{layer.id}-parent", f"{layer.id}-init")) as below:
        assert (below / ".dockerenv").exists() and not (below / "written").exists()
    work.remove(peer, f"{layer.id}-parent")
    # What a commit makes of it.
    lower = work.view(peer, f"{layer.id}-view", f"{layer.id}-init")
    diff = diff_pb2.DiffRequest(left=lower, right=layer.mounts)
    made = peer.diff.diff(diff).diff
    assert work.info(peer, made.digest).labels["containerd.io/uncompressed"]
    work.remove(peer, f"{layer.id}-view")
    layer.release()
    assert leases(peer) == set()
    assert set(snapshots(peer)) == {base}


def test_remapped_layers(busybox: Orlopd, peer: Connection) -> None:
    """With userns-remap the files of a layer get other owners, and a task sees its own."""
    layer = Layer(peer, "d" * 64)
    with work.mounted(layer.mounts) as root:
        for folder, _, names in os.walk(root):
            for path in (Path(folder), *(Path(folder, name) for name in names)):
                info = path.lstat()
                os.lchown(path, info.st_uid + 100_000, info.st_gid + 100_000)
    document = work.spec(peer.namespace, layer.id, "sh", "-c", "id -u; touch /mine; ls -ln /mine")
    ids = [{"containerID": 0, "hostID": 100_000, "size": 65_536}]
    document["linux"]["namespaces"].append({"type": "user"})
    document["linux"] |= {"uidMappings": ids, "gidMappings": ids}
    with work.mounted(layer.mounts) as root, work.Process(busybox, peer, layer.id) as task:
        document["root"]["path"] = str(root)
        work.create_container(peer, layer.id, document)
        options = Options(io_uid=100_000, io_gid=100_000, root=str(busybox.folder / "runc"))
        task.create((), options)
        task.start()
        assert task.wait() == 0
        task.delete()
        first, second = task.output.decode().splitlines()
        assert first == "0" and re.match(r"\S+ +\d +0 +0 ", second)
    with work.mounted(layer.mounts) as root:
        assert (root / "mine").stat().st_uid == 100_000
    work.delete_container(peer, layer.id)
    layer.release()


def test_mounts_need_no_activation(peer: Connection) -> None:
    """A daemon that has nothing to activate says so, and clients mount for themselves."""
    mounts = work.prepare(peer, "plain")
    with closing(Peer(peer.address, peer.namespace)) as other:
        activation = other.service(mounts_pb2.DESCRIPTOR.services_by_name["Mounts"])
        with pytest.raises(Unimplemented):
            activation.activate(mounts_pb2.ActivateRequest(name="plain", mounts=mounts))


# Containers


def test_a_container(busybox: Orlopd, peer: Connection, tmp_path: Path) -> None:
    """The record tells of the bundle; the root is a folder that dockerd has mounted itself."""
    layer = Layer(peer, "e" * 64)
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    only = f"namespace=={peer.namespace},topic~=|^/tasks/|"
    with work.mounted(layer.mounts) as root, work.Events(peer, only, about=layer.id) as events:
        document = work.spec(
            peer.namespace, layer.id, "sh", "-c", "echo ready; read x; echo $x; exit 3",
            rootfs=str(root),
        )  # fmt: skip
        options = Options(binary_name="runc", root=str(busybox.folder / "runc"))
        runtime = containers_pb2.Container.Runtime(name=SHIM, options=packed(options))
        labels = {BUNDLE: str(bundle)}
        work.create_container(peer, layer.id, document, runtime=runtime, labels=labels)
        assert containers(peer, f'labels."{BUNDLE}"') == {layer.id}
        with work.Process(busybox, peer, layer.id, stdin=True) as task:
            task.create((), options)
            pid = task.start()
            task.says(b"ready")
            listed = peer.tasks.list(tasks_pb2.ListTasksRequest()).tasks
            assert [(each.id, each.pid, each.status) for each in listed] == [
                (layer.id, pid, RUNNING)
            ]
            with work.Process(busybox, peer, layer.id, "f" * 64) as more:
                more.exec({**document["process"], "args": ["sh", "-c", "exit 4"]})
                more.start()
                assert (more.wait(), more.delete()) == (4, 4)
            with work.Process(busybox, peer, layer.id, "nothing") as nothing:
                nothing.exec({**document["process"], "args": ["/nobody/s"]})
                with pytest.raises(OrlopError, match="no such file or directory"):
                    nothing.start()
                nothing.delete()
            task.type(b"typed\n")
            assert task.wait() == 3
            task.delete()
            assert task.output == b"ready\ntyped\n"
        events.until("/tasks/delete")
        topics = events.topics()
        started = ["/tasks/create", "/tasks/start"]
        execs = ["/tasks/exec-added", "/tasks/exec-started", "/tasks/exit", "/tasks/exec-added"]
        assert topics == [*started, *execs, "/tasks/exit", "/tasks/delete"]
        assert {each.namespace for each in events.seen} == {peer.namespace}
        ends = [each for each in events.seen if each.topic == "/tasks/exit"]
        told = [events_pb2.TaskExit.FromString(each.event.value) for each in ends]
        assert [(each.id, each.exit_status) for each in told if each.id != "nothing"] == [
            ("f" * 64, 4), (layer.id, 3)
        ]  # fmt: skip
    work.delete_container(peer, layer.id)
    layer.release()


def packed(options: Any) -> AnyMessage:
    name = options.DESCRIPTOR.full_name
    return AnyMessage(type_url=name, value=options.SerializeToString())


@pytest.fixture(params=list(ENGINES))
def lone(request: pytest.FixtureRequest, busybox_archive: Path) -> Iterator[Orlopd]:
    """A daemon that a test may stop and start."""
    for engine in serving_one(ENGINES[request.param]()):
        engine.ctr("images", "import", str(busybox_archive))
        yield engine


def serving_one(engine: Orlopd) -> Iterator[Orlopd]:
    try:
        engine.start()
        yield engine
        engine.close()
    finally:
        engine.discard()


def test_the_daemon_below_is_restarted(lone: Orlopd) -> None:
    """Containers run on; dockerd waits until it serves again, and hears of what ends then."""
    only = f"namespace=={lone.namespace},topic~=|^/tasks/|"
    with closing(Peer(lone.address, lone.namespace)) as peer:
        peer.leases.create(leases_pb2.CreateRequest(id=HOLD))
        layer = Layer(peer, "a" * 64)
        document = work.spec(peer.namespace, layer.id, "sleep", "1000")
        work.create_container(peer, layer.id, document)
        request = tasks_pb2.CreateTaskRequest(container_id=layer.id, rootfs=layer.mounts)
        peer.tasks.create(request)
        pid = peer.tasks.start(tasks_pb2.StartRequest(container_id=layer.id)).pid
        with work.Events(peer, only) as events:
            lone.restart()
            lone.wait_for(lambda: not events.listens)
    with closing(Peer(lone.address, lone.namespace)) as peer, work.Events(peer, only) as events:
        found = peer.tasks.get(tasks_pb2.GetRequest(container_id=layer.id)).process
        assert (found.pid, found.status) == (pid, RUNNING)
        assert work.stat(peer, layer.id).kind == snapshots_pb2.ACTIVE
        assert leases(peer, f"id=={layer.id}") == {layer.id}
        peer.tasks.kill(tasks_pb2.KillRequest(container_id=layer.id, signal=9))
        events.until("/tasks/exit")
        assert peer.tasks.wait(tasks_pb2.WaitRequest(container_id=layer.id)).exit_status == 137
        peer.tasks.delete(tasks_pb2.DeleteTaskRequest(container_id=layer.id))
        clear(peer)


def test_checkpoints(busybox: Orlopd, peer: Connection) -> None:
    """Where there is no criu for the kernel, one is refused, and the container runs on.

    What they do where there is one is tested in the virtual machine.
    """
    layer = Layer(peer, "b" * 64)
    document = work.spec(peer.namespace, layer.id, "sleep", "1000")
    work.create_container(peer, layer.id, document)
    with work.Process(busybox, peer, layer.id) as task:
        task.create(layer.mounts)
        task.start()
        options = packed(CheckpointOptions(exit=True))
        request = tasks_pb2.CheckpointTaskRequest(container_id=layer.id, options=options)
        try:
            made = peer.tasks.checkpoint(request).descriptors
        except Unknown as refused:
            assert "criu failed: type DUMP" in str(refused)
            assert tasks(peer) == {layer.id}
            task.kill()
        else:
            assert (
                made[0].media_type
                == "application/vnd.containerd.container.criu.checkpoint.criu.tar"
            )
        task.wait()
        task.delete()
    work.delete_container(peer, layer.id)
    layer.release()


# What is no more


def test_the_first_runtime_is_gone() -> None:
    """The runtime of containerd 1.0, which containerd 2 has not either: the error names it."""
    for engine in serving():
        with closing(Peer(engine.address, engine.namespace)) as peer:
            runtime = containers_pb2.Container.Runtime(name="io.containerd.runtime.v1.linux")
            document = work.spec(peer.namespace, "old", "true")
            work.create_container(peer, "old", document, runtime=runtime)
            with pytest.raises(OrlopError, match=r'"io\.containerd\.runtime\.v1\.linux"') as told:
                peer.tasks.create(tasks_pb2.CreateTaskRequest(container_id="old"))
            assert RUNTIME in str(told.value)
            clear(peer)

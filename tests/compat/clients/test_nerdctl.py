"""nerdctl: names and networks by labels, the life of a container, commits and transfers."""

from __future__ import annotations

import json
import re
from contextlib import closing
from io import BytesIO
from pathlib import Path

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.field_mask_pb2 import FieldMask

from orlop.client import Connection, transfers
from orlop.client import images as client_images
from orlop.client.bytestreams import Download, Upload
from orlop.client.containers import SPEC_TYPE
from orlop.client.streams import Progress
from orlop.errors import FailedPrecondition, InvalidArgument, NotFound, OrlopError, Unimplemented
from orlop.oci.chain import chain_ids
from orlop.wire import cgroups_v1_pb2, cgroups_v2_pb2, events_pb2
from orlop.wire import transfer_types_pb2 as types
from orlop.wire.runc_pb2 import Options
from orlop.wire.services import (
    containers_pb2,
    diff_pb2,
    images_pb2,
    introspection_pb2,
    leases_pb2,
    namespaces_pb2,
    snapshots_pb2,
    tasks_pb2,
)
from orlop.wire.task_types_pb2 import CREATED, PAUSED, RUNNING, STOPPED
from orlop.wire.types_pb2 import Descriptor
from tests import archive_fixture
from tests.compat.clients import work
from tests.compat.clients.nerdctl import NAME, create, remove
from tests.compat.clients.peer import (
    SNAPSHOTTER,
    Peer,
    blobs,
    clear,
    containers,
    images,
    snapshots,
    tasks,
)
from tests.compat.docker.engines import Containerd
from tests.daemon_fixture import BUSYBOX, Orlopd

pytestmark = pytest.mark.root

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


# Records


def test_namespaces(peer: Connection) -> None:
    name = f"{peer.namespace}-other"
    wanted = namespaces_pb2.Namespace(name=name, labels={"nerdctl/volumes": "{}", "a.b/c": "d"})
    peer.namespaces.create(namespaces_pb2.CreateNamespaceRequest(namespace=wanted))
    get = namespaces_pb2.GetNamespaceRequest(name=name)
    assert dict(peer.namespaces.get(get).namespace.labels) == dict(wanted.labels)
    changed = namespaces_pb2.Namespace(name=name, labels={"a.b/c": "e"})
    peer.namespaces.update(
        namespaces_pb2.UpdateNamespaceRequest(
            namespace=changed, update_mask=FieldMask(paths=["labels.a.b/c"])
        )
    )
    assert peer.namespaces.get(get).namespace.labels["a.b/c"] == "e"
    listed = peer.namespaces.list(namespaces_pb2.ListNamespacesRequest()).namespaces
    assert name in {each.name for each in listed}
    with closing(Peer(peer.address, name)) as other:
        digest = work.put(other, b"blob", {"containerd.io/gc.root": "now"})
        delete = namespaces_pb2.DeleteNamespaceRequest(name=name)
        with pytest.raises(FailedPrecondition):
            peer.namespaces.delete(delete)
        assert set(blobs(other)) == {digest}
        clear(other)
    with pytest.raises(NotFound):
        peer.namespaces.delete(delete)


def test_containers_are_found(busybox: Orlopd, peer: Connection) -> None:
    """By name, or by the beginning of the id, in one call."""
    one, two = create(peer, "one", "true"), create(peer, "two", "true")
    assert find(peer, "one") == {one.id}
    assert find(peer, one.id[:10]) == {one.id} and find(peer, one.id[1:10]) == set()
    assert find(peer, "t.o") == set()
    assert containers(peer, f'labels."{NAME}"~="^t"') == {two.id}
    assert containers(peer, 'labels."nerdctl/networks"', "id==none") == {one.id, two.id}
    assert containers(peer, f"image=={BUSYBOX},runtime.name~=runc") == {one.id, two.id}
    with pytest.raises(InvalidArgument):
        containers(peer, 'labels."nerdctl/name"==')
    rename(peer, one.id, "three")
    assert find(peer, "one") == set() and find(peer, "three") == {one.id}
    found = get(peer, one.id)
    assert json.loads(found.spec.value) == one.spec and found.runtime.options.value
    assert found.spec.type_url == SPEC_TYPE
    extension = found.extensions["nerdctl.io/mark"]
    assert (extension.type_url, extension.value) == ("any/thing", b"\x00\xffraw")
    # Its `update` writes the whole record back, with another spec.
    found.spec.value = json.dumps({**one.spec, "hostname": "renamed"}).encode()
    peer.containers.update(containers_pb2.UpdateContainerRequest(container=found))
    again = get(peer, one.id)
    assert json.loads(again.spec.value)["hostname"] == "renamed"
    assert again.extensions["nerdctl.io/mark"].value == b"\x00\xffraw"
    for each in (one, two):
        remove(peer, each.id)
        with pytest.raises(NotFound):
            get(peer, each.id)
        with pytest.raises(NotFound):
            remove(peer, each.id)


def find(peer: Connection, wanted: str) -> set[str]:
    return containers(peer, f'labels."{NAME}"=={wanted}', f"id~=^{re.escape(wanted)}.*$")


def get(peer: Connection, id: str) -> containers_pb2.Container:
    request = containers_pb2.GetContainerRequest(id=id)
    found: containers_pb2.Container = peer.containers.get(request).container
    return found


def rename(peer: Connection, id: str, name: str) -> None:
    changed = containers_pb2.Container(id=id, labels={NAME: name})
    mask = FieldMask(paths=[f"labels.{NAME}"])
    request = containers_pb2.UpdateContainerRequest(container=changed, update_mask=mask)
    assert peer.containers.update(request).container.labels[NAME] == name


def test_restart_policies_are_offered(engine: Orlopd, peer: Connection) -> None:
    request = introspection_pb2.PluginsRequest(filters=["id==restart"])
    (plugin,) = peer.introspection.plugins(request).plugins
    policies = {"always", "on-failure", "unless-stopped"}
    # containerd tells since 1.7; nerdctl takes silence for all of them
    assert set(plugin.capabilities) >= (set() if isinstance(engine, Containerd) else policies)


# Tasks


def test_a_life(busybox: Orlopd, peer: Connection) -> None:
    """run, ps, stats, pause, update, top, cp, stop, start and rm, with the events between."""
    container = create(peer, "life", "sh", "-c", "sleep 1000 & echo ready; wait")
    with (
        work.Events(peer, about=container.id) as events,
        work.Process(busybox, peer, container.id) as task,
    ):
        task.create(container.mounts, Options(binary_name="runc"))
        assert status(peer, container.id) == CREATED
        pid = task.start()
        task.says(b"ready")
        found = peer.tasks.get(tasks_pb2.GetRequest(container_id=container.id)).process
        assert (found.status, found.pid) == (RUNNING, pid)
        assert found.stdout == task.fifos.streams.stdout
        assert Path(f"/proc/{pid}/root/bin/busybox").exists()  # where `nerdctl cp` looks
        assert stats(peer, container.id) > 0
        with pytest.raises(NotFound):
            peer.tasks.get(tasks_pb2.GetRequest(container_id="nobody"))
        peer.tasks.pause(tasks_pb2.PauseTaskRequest(container_id=container.id))
        assert status(peer, container.id) == PAUSED
        peer.tasks.resume(tasks_pb2.ResumeTaskRequest(container_id=container.id))
        resources = {"pids": {"limit": 50}}
        url = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources"
        wanted = AnyMessage(type_url=url, value=json.dumps(resources).encode())
        peer.tasks.update(tasks_pb2.UpdateTaskRequest(container_id=container.id, resources=wanted))
        pids = peer.tasks.list_pids(tasks_pb2.ListPidsRequest(container_id=container.id)).processes
        assert pid in {each.pid for each in pids} and len(pids) == 2
        task.kill(15)
        task.kill(9)
        assert task.wait() == 137
        assert status(peer, container.id) == STOPPED
        assert task.delete() == 137
        events.until("/tasks/delete")
        ours = [each for each in events.seen if each.topic.startswith("/tasks")]
        assert [each.topic for each in ours] == [
            "/tasks/create", "/tasks/start", "/tasks/paused", "/tasks/resumed", "/tasks/exit",
            "/tasks/delete",
        ]  # fmt: skip
        ended = events_pb2.TaskExit.FromString(ours[-2].event.value)
        assert ours[-2].event.type_url == "containerd.events.TaskExit"
        assert (ended.container_id, ended.id, ended.pid) == (container.id, container.id, pid)
        assert (ended.exit_status, ours[-2].namespace) == (137, peer.namespace)
    # A container that has stopped is copied from by its snapshot.
    request = snapshots_pb2.MountsRequest(snapshotter=SNAPSHOTTER, key=container.id)
    with work.mounted(list(peer.snapshots.mounts(request).mounts)) as root:
        assert (root / "bin/busybox").exists()
    with work.Process(busybox, peer, container.id) as task:  # nerdctl start
        task.create(container.mounts)
        task.start()
        task.kill()
        task.wait()
        task.delete()
    remove(peer, container.id)


def status(peer: Connection, id: str) -> int:
    return int(peer.tasks.get(tasks_pb2.GetRequest(container_id=id)).process.status)


def stats(peer: Connection, id: str) -> int:
    """The memory that a container uses, out of either version's metrics."""
    request = tasks_pb2.MetricsRequest(filters=[f"id=={id}"])
    (metric,) = peer.tasks.metrics(request).metrics
    assert metric.id == id and metric.timestamp.seconds
    if metric.data.type_url == "io.containerd.cgroups.v1.Metrics":
        return int(cgroups_v1_pb2.Metrics.FromString(metric.data.value).memory.usage.usage)
    assert metric.data.type_url == "io.containerd.cgroups.v2.Metrics"
    return int(cgroups_v2_pb2.Metrics.FromString(metric.data.value).memory.usage)


# commit


def test_commit(busybox: Orlopd, peer: Connection) -> None:
    container = create(peer, "changed", "sh", "-c", "echo made >/made; rm /etc/group; sleep 1000")
    view = client_images.get(peer, BUSYBOX)
    base = client_images.manifest(peer, view.target)
    config = client_images.config(peer, view)
    parent = client_images.view(peer, view).chain_id
    with work.Process(busybox, peer, container.id) as task:
        task.create(container.mounts)
        task.start()
        path = Path(f"/proc/{peer_pid(peer, container.id)}/root")
        busybox.wait_for(lambda: (path / "made").exists() and not (path / "etc/group").exists(), 20)
        peer.tasks.pause(tasks_pb2.PauseTaskRequest(container_id=container.id))
        lease = peer.leases.create(leases_pb2.CreateRequest()).lease.id
        under = peer.with_lease(lease)
        assert work.stat(under, container.id).parent == parent
        lower = work.view(under, f"{parent}-parent-view", parent)
        request = snapshots_pb2.MountsRequest(snapshotter=SNAPSHOTTER, key=container.id)
        upper = under.snapshots.mounts(request).mounts
        made = under.diff.diff(diff_pb2.DiffRequest(left=lower, right=upper)).diff
        work.remove(under, f"{parent}-parent-view")
        peer.tasks.resume(tasks_pb2.ResumeTaskRequest(container_id=container.id))
        task.kill()
        task.wait()
        task.delete()
    info = work.info(under, made.digest)
    diff_id = info.labels["containerd.io/uncompressed"]
    config["rootfs"]["diff_ids"].append(diff_id)
    chain = str(chain_ids(config["rootfs"]["diff_ids"])[-1])
    layer = Descriptor(media_type=DOCKER_LAYER, digest=made.digest, size=info.size)
    mounts = work.prepare(under, f"123-abc= {chain}", parent)
    under.diff.apply(diff_pb2.ApplyRequest(diff=layer, mounts=mounts))
    work.commit(under, chain, f"123-abc= {chain}")
    config_digest = work.put_json(
        under, config, {f"containerd.io/gc.ref.snapshot.{SNAPSHOTTER}": chain}
    )
    layers = [*base["layers"],
              {"mediaType": DOCKER_LAYER, "digest": made.digest, "size": info.size}]  # fmt: skip
    document = {
        "schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "layers": layers,
        "config": {"mediaType": DOCKER_CONFIG, "digest": config_digest,
                   "size": work.info(under, config_digest).size},
    }  # fmt: skip
    digests = [config_digest, *(each["digest"] for each in layers)]
    labels = {f"containerd.io/gc.ref.content.{n}": each for n, each in enumerate(digests)}
    manifest = work.put_json(under, document, labels)
    target = Descriptor(
        media_type=DOCKER_MANIFEST, digest=manifest, size=work.info(under, manifest).size
    )
    image = images_pb2.Image(name="docker.io/library/committed:latest", target=target)
    with pytest.raises(NotFound):
        under.images.update(images_pb2.UpdateImageRequest(image=image))
    under.images.create(images_pb2.CreateImageRequest(image=image))
    peer.leases.delete(leases_pb2.DeleteRequest(id=lease, sync=True))
    remove(peer, container.id)
    # What holds it all now is the image.
    stored = client_images.get(peer, "docker.io/library/committed:latest")
    assert client_images.view(peer, stored).chain_id == chain
    with work.mounted(work.view(peer, "look", chain)) as root:
        assert (root / "made").read_text() == "made\n" and not (root / "etc/group").exists()


def peer_pid(peer: Connection, id: str) -> int:
    return int(peer.tasks.get(tasks_pb2.GetRequest(container_id=id)).process.pid)


# Images


def test_transfers(engine: Orlopd, peer: Connection, registry: str, tmp_path: Path) -> None:
    """pull, push, tag, save, load; on a daemon without transfers nerdctl does all that itself."""
    name = "registry.test/test/busybox:latest"  # where that is, only the folder of hosts tells
    seen: list[Progress] = []
    hosts = tmp_path / "hosts" / "registry.test"
    hosts.mkdir(parents=True)
    (hosts / "hosts.toml").write_text(
        f'server = "http://{registry}"\n[host."http://{registry}"]\ncapabilities = ["pull"]\n'
    )
    resolver = types.RegistryResolver(host_dir=str(hosts.parent))
    source = types.OCIRegistry(reference=name, resolver=resolver)
    platform = transfers.wire_platform()
    store = types.ImageStore(
        name=name, platforms=[platform],
        unpacks=[types.UnpackConfiguration(platform=platform, snapshotter=SNAPSHOTTER)],
    )  # fmt: skip
    if isinstance(engine, Containerd):
        with pytest.raises(Unimplemented):
            transfers.transfer(peer, source, store)
        return
    transfers.transfer(
        peer, source, store, answer=lambda host, reference: None, on_progress=seen.append
    )
    image = client_images.get(peer, name)
    chain = client_images.view(peer, image).chain_id
    assert work.stat(peer, chain).kind == snapshots_pb2.COMMITTED
    assert seen and {each.event for each in seen} >= {"extracted"}
    layers = client_images.manifest(peer, image.target)["layers"]
    told = {each.digest for each in seen if each.digest}
    assert {layer["digest"] for layer in layers} <= told
    (label,) = blobs(peer, f"digest=={layers[0]['digest']}").values()
    assert any(key.startswith("containerd.io/distribution.source.") for key in label)
    other = f"{registry}/test/tagged:one"
    transfers.transfer(peer, types.ImageStore(name=name), types.ImageStore(name=other))
    assert images(peer)[other] == image.target.digest
    pushed = types.OCIRegistry(
        reference=other, resolver=types.RegistryResolver(default_scheme="http")
    )
    pushing = types.ImageStore(name=other, platforms=[platform])
    transfers.transfer(peer, pushing, pushed, on_progress=seen.append)
    archive = BytesIO()
    with closing(Download(peer, archive)) as download:
        target = types.ImageExportStream(stream=download.id)
        transfers.transfer(peer, types.ImageStore(name=other), target)
        download.finish()
    for each in (name, other):
        peer.images.delete(images_pb2.DeleteImageRequest(name=each, sync=True))
    archive.seek(0)
    with closing(Upload(peer, archive)) as upload:
        prefix = types.ImageReference(name=f"{registry}/test", is_prefix=True, allow_overwrite=True)
        loading = types.ImageStore(extra_references=[prefix], unpacks=store.unpacks)
        transfers.transfer(peer, types.ImageImportStream(stream=upload.id), loading)
    assert images(peer) == {other: image.target.digest}
    again = types.OCIRegistry(
        reference=other, resolver=types.RegistryResolver(default_scheme="http")
    )
    pulled = types.ImageStore(name="pulled", platforms=[platform])
    transfers.transfer(peer, again, pulled)
    assert images(peer)["pulled"] == image.target.digest


def test_prune(busybox: Orlopd, peer: Connection) -> None:
    """Of containers those that do not run go, and of images those that no container has."""
    gone, stays = create(peer, "gone", "true"), create(peer, "stays", "sleep", "1000")
    data = archive_fixture.single_image("docker.io/library/unused:latest")
    unused = busybox.folder / "unused.tar"
    unused.write_bytes(data)
    busybox.ctr("images", "import", str(unused))
    with (
        work.Process(busybox, peer, stays.id) as task,
        work.Process(busybox, peer, gone.id) as done,
    ):
        for each, container in ((task, stays), (done, gone)):
            each.create(container.mounts)
            each.start()
        done.wait()
        with pytest.raises(OrlopError):
            peer.tasks.delete(tasks_pb2.DeleteTaskRequest(container_id=stays.id))
        done.delete()
        for key in containers(peer) - tasks(peer):
            remove(peer, key)
        used = {get(peer, key).image for key in containers(peer)}
        for name in set(images(peer)) - used:
            peer.images.delete(images_pb2.DeleteImageRequest(name=name, sync=True))
        assert set(images(peer)) == {BUSYBOX}
        assert containers(peer) == {stays.id} and gone.id not in snapshots(peer)
        work.stat(peer, stays.id)
        task.kill()
        task.wait()
        task.delete()
    remove(peer, stays.id)

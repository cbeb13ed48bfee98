"""Snapshotters of others, and ours for others."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from pathlib import Path

import pytest
from google.protobuf.empty_pb2 import Empty

from orlop.client.pull import pull_image
from orlop.errors import AlreadyExists, OrlopError
from orlop.events import Exchange
from orlop.metadata import Database
from orlop.rpc import CallContext, ServiceTable
from orlop.rpc.grpc.server import GrpcServer
from orlop.rpc.reactor import Reactor
from orlop.snapshots import OverlayDriver, SnapshotIds, SnapshotStore
from orlop.snapshots.guests import NAMESPACE, GuestSnapshotsService
from orlop.sys.mount import mount_all, unmount
from orlop.wire.services import snapshots_pb2 as pb
from tests.containerd_fixture import run_containerd
from tests.daemon_fixture import Orlopd, serving_with
from tests.patience import patient

pytestmark = pytest.mark.root

REF = "containerd.io/snapshot.ref"


def _configured(text: str) -> Orlopd:
    daemon = Orlopd()
    config = daemon.folder / "config.toml"
    config.write_text(text.format(folder=daemon.folder))
    daemon.options += ["--config", str(config)]
    return daemon


@pytest.fixture
def back() -> Iterator[Orlopd]:
    """An orlopd that serves its snapshotters."""
    yield from serving_with(_configured('[snapshots]\nserve = "{folder}/guests.sock"\n'))


def _plugin(name: str, address: object, more: str = "") -> str:
    return f'{more}[proxy_plugins."{name}"]\ntype = "snapshot"\naddress = "{address}"\n'


@pytest.fixture(params=["overlayfs", "erofs", "native"])
def by(request: pytest.FixtureRequest) -> tuple[str, str]:
    """The option that names a snapshotter of the other's."""
    return "--snapshotter", f"orlop-{request.param}"


@pytest.fixture
def front(by: tuple[str, str], back: Orlopd) -> Iterator[Orlopd]:
    """An orlopd that has it as a proxy plugin."""
    more = f'[snapshots]\ndefault = "{by[1]}"\n'
    yield from serving_with(_configured(_plugin(by[1], back.folder / "guests.sock", more)))


def _kept(back: Orlopd) -> list[str]:
    """What guests have there."""
    with back.connect(NAMESPACE) as connection:
        return [
            info.name
            for name in ("overlayfs", "erofs", "native")
            for each in connection.snapshots.list(pb.ListSnapshotsRequest(snapshotter=name))
            for info in each.info
        ]


def test_all_of_a_containers_life(
    front: Orlopd, back: Orlopd, registry: str, by: tuple[str, str]
) -> None:
    name = f"{registry}/test/busybox:latest"
    front.ctr("images", "pull", "--plain-http", *by, name)
    assert front.ctr("run", "--rm", *by, name, "one", "echo", "there").stdout == "there\n"
    back.wait_for(lambda: len(_kept(back)) == 1)
    front.orlop("run", "-d", *by, "--name", "two", name, "sh", "-c", "echo x > /made; sleep 600")
    back.kill9()
    back.start()
    front.wait_for(lambda: front.orlop("exec", "two", "cat", "/made", check=False).stdout == "x\n")
    assert front.orlop("run", "--rm", *by, name, "echo", "again").stdout == "again\n"
    front.orlop("commit", "two", "mine:1")
    front.orlop("rm", "-f", "two")
    assert front.orlop("run", "--rm", *by, "mine:1", "cat", "/made").stdout == "x\n"
    for image in (name, "mine:1"):
        front.orlop("rmi", image)
    front.wait_for(lambda: not _kept(back))


def test_while_the_other_is_away(
    front: Orlopd, back: Orlopd, registry: str, by: tuple[str, str]
) -> None:
    """An error that says so; what was to be removed meanwhile is, when it is back."""
    name = f"{registry}/test/busybox:latest"
    front.orlop("pull", "--plain-http", *by, name)
    front.orlop("create", "--name", "one", *by, name, "true")
    assert len(_kept(back)) == 2
    back.stop()
    failed = front.orlop("run", "--rm", *by, name, "true", check=False)
    assert failed.returncode != 0
    assert "guests.sock" in failed.stderr
    pruned = front.orlop("system", "prune", "-a", "-f")
    assert [line for line in pruned.stderr.splitlines() if "guests.sock" in line] == [
        line for line in pruned.stderr.splitlines() if line.startswith('orlop: container "one" is')
    ]
    assert {"one", name} <= set(pruned.stdout.splitlines())
    front.stop()
    front.start()
    back.start()
    front.wait_for(lambda: not _kept(back), 70)


def test_debians_containerd_on_our_snapshotters(
    back: Orlopd, tmp_path: Path, busybox_archive: Path
) -> None:
    name, by = "docker.io/library/busybox:latest", ("--snapshotter", "orlop-erofs")
    plugin = _plugin("orlop-erofs", back.folder / "guests.sock")
    with run_containerd(tmp_path, more=plugin) as containerd:
        containerd.ctr("images", "import", *by, str(busybox_archive))
        done = containerd.ctr("run", "--rm", *by, name, "one", "echo", "there")
        assert done.stdout == "there\n"
        containerd.ctr("run", *by, name, "two", "sh", "-c", "echo x > /made")
        containerd.ctr("snapshots", *by, "commit", "mine", "two")
        assert "mine" in containerd.ctr("snapshots", *by, "ls").stdout
        assert "Committed" in containerd.ctr("snapshots", *by, "info", "mine").stdout
        containerd.ctr("containers", "rm", "two")
        containerd.ctr("snapshots", *by, "rm", "mine")
        containerd.ctr("images", "rm", "--sync", name)
        back.wait_for(lambda: not _kept(back))
        containerd.assert_clean()


class _Lazy(GuestSnapshotsService):
    """A snapshotter that has layers by itself, for those whose chain it is told, like stargz's."""

    def __init__(self, store: SnapshotStore) -> None:
        super().__init__({"lazy": store}, "lazy")
        self.store = store
        self.has: set[str] = set()
        self.told: list[dict[str, str]] = []
        self.removing, self.may_remove = threading.Event(), threading.Event()
        self.removed = threading.Event()
        self.committed, self.may_answer = threading.Event(), threading.Event()
        self.may_remove.set()
        self.may_answer.set()

    def prepare(
        self, request: pb.PrepareSnapshotRequest, ctx: CallContext
    ) -> pb.PrepareSnapshotResponse:
        labels = dict(request.labels)
        target = labels.get(REF, "")
        if target:
            self.told.append(labels)
        if target not in self.has:
            return super().prepare(request, ctx)
        mounts = self.store.prepare(NAMESPACE, request.key, request.parent)
        mount_all(mounts, self.target)
        try:
            (self.target / "bin").mkdir()
            (self.target / "bin/remote").write_text("lazily\n")
        finally:
            unmount(self.target)
        self.store.commit(NAMESPACE, target, request.key, {**labels, "containerd.io/gc.root": "x"})
        self.committed.set()
        self.may_answer.wait(30)
        raise AlreadyExists(f'snapshot "{target}"')

    def remove(self, request: pb.RemoveSnapshotRequest, ctx: CallContext) -> Empty:
        if not request.key.endswith("target"):
            return super().remove(request, ctx)
        self.removing.set()
        self.may_remove.wait(30)
        answer = super().remove(request, ctx)
        self.removed.set()
        return answer

    target: Path


@pytest.fixture
def lazy(tmp_path: Path) -> Iterator[tuple[_Lazy, Path]]:
    reactor, address = Reactor(), tmp_path / "lazy.sock"
    with closing(reactor), closing(Database(tmp_path / "meta.db")) as database:
        driver = OverlayDriver(tmp_path / "lazy")
        store = SnapshotStore(database, SnapshotIds(database), "lazy", driver, Exchange())
        with closing(store):
            service = _Lazy(store)
            service.target = tmp_path / "target"
            service.target.mkdir()
            server = GrpcServer(ServiceTable(service), reactor)
            server.add_unix(address, 0o600)
            server.start()
            yield service, address
            server.stop(grace=0.2)


def _chain(orlopd: Orlopd, name: str) -> str:
    """The chain ID of the one layer of an image, by pulling it otherwise."""
    orlopd.ctr("images", "pull", "--plain-http", "--snapshotter", "native", name)
    (line,) = orlopd.ctr("snapshots", "--snapshotter", "native", "ls").stdout.splitlines()[1:]
    orlopd.ctr("images", "rm", "--sync", name)
    return line.split()[0]


@pytest.fixture
def guest(lazy: tuple[_Lazy, Path]) -> Iterator[Orlopd]:
    """An orlopd that has it as a proxy plugin."""
    yield from serving_with(_configured(_plugin("lazy", lazy[1])))


BY = ("--snapshotter", "lazy")


def _pull(orlopd: Orlopd, name: str) -> int:
    """How many blobs there are then."""
    with orlopd.connect() as connection:
        pull_image(connection, name, snapshotter="lazy")
    return len(orlopd.ctr("content", "ls", "-q").stdout.split())


def test_layers_that_a_snapshotter_has_are_not_fetched(
    lazy: tuple[_Lazy, Path], guest: Orlopd, registry: str
) -> None:
    service, _ = lazy
    name = f"{registry}/test/busybox:latest"
    chain = _chain(guest, name)
    fetched = _pull(guest, name)  # it has not: the layer is fetched and unpacked
    done = guest.ctr("run", "--rm", *BY, name, "one", "echo", "whole")
    assert done.stdout == "whole\n"
    assert all(each[REF] == chain for each in service.told)
    guest.ctr("images", "rm", "--sync", name)
    guest.wait_for(lambda: not service.store.list(NAMESPACE))

    service.has.add(chain)
    assert _pull(guest, name) == fetched - 1
    assert chain in guest.ctr("snapshots", *BY, "ls").stdout
    assert [info.name for info in service.store.list(NAMESPACE)] == [chain]
    told = service.told[-1]
    assert told["containerd.io/snapshot/cri.image-ref"] == name
    assert told["containerd.io/snapshot/cri.layer-digest"].startswith("sha256:")
    assert told["containerd.io/snapshot/cri.image-layers"].startswith("sha256:")
    assert _pull(guest, name) == fetched - 1
    guest.ctr("images", "rm", "--sync", name)
    guest.wait_for(lambda: not service.store.list(NAMESPACE))


def test_what_a_crash_leaves_is_removed(lazy: tuple[_Lazy, Path], guest: Orlopd) -> None:
    """A snapshot that was made there, and the daemon ended before its record was written."""
    service, _ = lazy
    made, held = threading.Event(), threading.Event()
    original = service.store.prepare

    def prepare(*arguments: object, **more: object) -> object:
        mounts = original(*arguments, **more)  # type: ignore[arg-type]
        made.set()
        held.wait(30)
        return mounts

    service.store.prepare = prepare  # type: ignore[method-assign,assignment]
    command = guest.ctr_command("snapshots", *BY, "prepare", "work")
    caller = guest.spawn(command, guest.folder / "caller.log")
    assert made.wait(30)
    guest.kill9()
    held.set()
    caller.wait(30)
    assert len(service.store.list(NAMESPACE)) == 1
    guest.start()
    guest.wait_for(lambda: not service.store.list(NAMESPACE), 30)


def _begin_to_remove(service: _Lazy, orlopd: Orlopd) -> None:
    """The service has been asked to, and waits until it may."""
    service.may_remove.clear()
    orlopd.ctr("snapshots", *BY, "rm", "target")
    assert service.removing.wait(30)


def test_a_service_that_hangs_does_not_hold_up_the_end(
    lazy: tuple[_Lazy, Path], guest: Orlopd
) -> None:
    service, _ = lazy
    guest.ctr("snapshots", *BY, "prepare", "target")
    _begin_to_remove(service, guest)
    try:
        assert guest.stop() < patient(15)  # the service has 30 s
    finally:
        service.may_remove.set()
    guest.start()
    guest.wait_for(lambda: not service.store.list(NAMESPACE), 30)


def _ask_for(orlopd: Orlopd, target: str) -> str:
    """Prepare a layer that the service may have; what the answer is."""
    labels = {REF: target, "containerd.io/gc.root": "x"}
    request = pb.PrepareSnapshotRequest(snapshotter="lazy", key="work", labels=labels)
    with orlopd.connect() as connection:
        try:
            connection.snapshots.prepare(request)
        except OrlopError as error:
            return type(error).__name__
    return "mounts"


def test_what_it_committed_by_itself_before_a_crash_is_removed(
    lazy: tuple[_Lazy, Path], guest: Orlopd
) -> None:
    service, _ = lazy
    service.has.add("target")
    service.may_answer.clear()
    with ThreadPoolExecutor() as threads:
        asked = threads.submit(_ask_for, guest, "target")
        assert service.committed.wait(30)
        guest.kill9()
        service.may_answer.set()
        assert asked.result(30) == "Unavailable"
    assert [info.name for info in service.store.list(NAMESPACE)] == ["target"]
    guest.start()
    guest.wait_for(lambda: not service.store.list(NAMESPACE), 30)


def test_a_layer_that_is_wanted_again_while_it_is_removed(
    lazy: tuple[_Lazy, Path], guest: Orlopd
) -> None:
    """It is there in the end, whoever comes first."""
    service, _ = lazy
    service.has.add("target")
    assert _ask_for(guest, "target") == "AlreadyExists"
    _begin_to_remove(service, guest)
    with ThreadPoolExecutor() as threads:
        asked = threads.submit(_ask_for, guest, "target")
        wait([asked], 1)  # it should not have an answer yet, and would be wrong
        service.may_remove.set()
        assert asked.result(30) == "AlreadyExists"
    assert service.removed.wait(30)
    assert "target" in guest.ctr("snapshots", *BY, "ls").stdout
    assert "target" in [info.name for info in service.store.list(NAMESPACE)]
    guest.ctr("snapshots", *BY, "rm", "target")
    guest.wait_for(lambda: not service.store.list(NAMESPACE), 30)

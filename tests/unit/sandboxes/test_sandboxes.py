from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.any_pb2 import Any

from orlop.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from orlop.events import Exchange
from orlop.metadata import Database
from orlop.namespaces.store import NamespaceStore
from orlop.sandboxes import Sandbox, SandboxStore
from tests import old_database

SPACE = "default"
SPEC = Any(type_url="x/spec", value=b"{}")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(tmp_path / "metadata.db")
    yield made
    made.close()


@pytest.fixture
def store(database: Database) -> SandboxStore:
    return SandboxStore(database)


def _pod(name: str = "pod", **more: object) -> Sandbox:
    return Sandbox(name, "io.containerd.runc.v2", **more)  # type: ignore[arg-type]


def test_what_is_put_in_comes_out(store: SandboxStore) -> None:
    wanted = _pod(
        spec=SPEC, runtime_options=SPEC, sandboxer="shim", labels={"a": "b", "none": ""},
        extensions={"x": SPEC},
    )  # fmt: skip
    made = store.create(SPACE, wanted)
    assert made.created_at == made.updated_at > 0
    assert made.labels == {"a": "b"}
    assert store.get(SPACE, "pod") == made
    with pytest.raises(AlreadyExists, match='sandbox "pod"'):
        store.create(SPACE, wanted)
    with pytest.raises(NotFound):
        store.get("other", "pod")
    store.delete(SPACE, "pod")
    with pytest.raises(NotFound):
        store.delete(SPACE, "pod")
    assert store.list(SPACE) == []


def test_filters(store: SandboxStore) -> None:
    store.create(SPACE, _pod("one", sandboxer="shim", labels={"app": "web"}))
    store.create(SPACE, _pod("two", sandboxer="podsandbox"))

    def names(*filters: str) -> list[str]:
        return [each.id for each in store.list(SPACE, filters)]

    assert names() == ["one", "two"]
    assert names("id==two") == ["two"]
    assert names("sandboxer==shim") == ["one"]
    assert names("labels.app==web", "id~=^two") == ["one", "two"]
    assert names("runtime.name==io.containerd.runc.v2") == ["one", "two"]


def test_updates(store: SandboxStore) -> None:
    store.create(SPACE, _pod(labels={"a": "1", "b": "2"}, sandboxer="shim", spec=SPEC))
    changed = _pod(labels={"a": "9", "c": "3"}, sandboxer="another", extensions={"x": SPEC})
    updated = store.update(SPACE, changed, ["labels.a", "labels.b", "extensions.x"])
    assert updated.labels == {"a": "9"}
    assert updated.extensions == {"x": SPEC}
    assert updated.spec == SPEC
    whole = store.update(SPACE, changed)
    assert whole.labels == {"a": "9", "c": "3"}
    assert whole.spec is None
    assert whole.sandboxer == "shim"  # it has no say in who runs it
    assert whole.updated_at >= whole.created_at
    for bad in ("sandboxer", "id", "created_at", "labels."):
        with pytest.raises(InvalidArgument):
            store.update(SPACE, changed, [bad])
    with pytest.raises(NotFound):
        store.update(SPACE, _pod("none"))


@pytest.mark.parametrize(
    "bad",
    [_pod(""), _pod("a b"), _pod("x" * 77), Sandbox("pod", ""), _pod(extensions={"": SPEC}),
     _pod(labels={"k": "v" * 5000})],
)  # fmt: skip
def test_what_is_refused(store: SandboxStore, bad: Sandbox) -> None:
    with pytest.raises(InvalidArgument):
        store.create(SPACE, bad)
    assert store.list(SPACE) == []


def test_a_namespace_with_a_sandbox_stays(database: Database, store: SandboxStore) -> None:
    namespaces = NamespaceStore(database, Exchange(), str)
    store.create(SPACE, _pod())
    with pytest.raises(FailedPrecondition, match="sandboxes"):
        namespaces.delete(SPACE)
    store.delete(SPACE, "pod")
    namespaces.delete(SPACE)


def test_a_database_of_before(tmp_path: Path) -> None:
    """One of schema version 1 is brought up to date, with what it holds."""
    with old_database.of_version(tmp_path / "metadata.db", 1) as before:
        before.execute("INSERT INTO namespaces VALUES ('kept')")
    database = Database(tmp_path / "metadata.db")
    assert [each.name for each in NamespaceStore(database, Exchange(), str).list()] == ["kept"]
    assert SandboxStore(database).create("kept", _pod()).id == "pod"
    database.close()

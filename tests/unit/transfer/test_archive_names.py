"""What images in archives are called."""

from __future__ import annotations

import pytest

from orlop.errors import InvalidArgument
from orlop.transfer.archive import Naming, Prefix
from orlop.transfer.archive.names import FULL_NAME, REF_NAME, from_docker, named, to_docker

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("prefix", "annotations", "names"),
    [
        (Prefix("a/b"), {REF_NAME: "1.2"}, ["a/b:1.2"]),
        (Prefix("a/b"), {REF_NAME: "a/b:1"}, ["a/b:1"]),
        (Prefix("a/b"), {REF_NAME: "a/bc:1"}, []),
        (Prefix("a/b"), {REF_NAME: "a/b/c:1"}, ["a/b/c:1"]),
        (Prefix("nginx"), {REF_NAME: "docker.io/library/nginx:1"}, ["docker.io/library/nginx:1"]),
        (Prefix("a/b", allow_overwrite=True), {REF_NAME: "c/d:1"}, ["c/d:1"]),
        (Prefix("a/b"), {FULL_NAME: "a/b:1", REF_NAME: "2"}, ["a/b:1"]),
        (Prefix("a/b"), {FULL_NAME: "tag", REF_NAME: "2"}, []),
        (Prefix("a/b", add_digest=True), {REF_NAME: "1"}, ["a/b:1", f"a/b@{DIGEST}"]),
        (Prefix("a/b", add_digest=True), {}, [f"a/b@{DIGEST}"]),
        (Prefix("a", add_digest=True, skip_named_digest=True), {REF_NAME: "1"}, ["a:1"]),
        (Prefix("a", add_digest=True, skip_named_digest=True), {}, [f"a@{DIGEST}"]),
        (Prefix(""), {REF_NAME: "1"}, []),
    ],
)  # fmt: skip
def test_names(prefix: Prefix, annotations: dict[str, str], names: list[str]) -> None:
    assert Naming(prefixes=(prefix,)).of_image(annotations, DIGEST) == names


def test_several_prefixes_and_the_index() -> None:
    naming = Naming(("i:1",), ("j",), (Prefix("a"), Prefix("b"), Prefix("a")))
    assert naming.of_image({REF_NAME: "1"}, DIGEST) == ["a:1", "b:1"]
    assert naming.of_index(DIGEST) == ["i:1", f"j@{DIGEST}"]


@pytest.mark.parametrize("name", ["a/b:" + "x" * 5000, "a/b:\n", "a/b:\x1b[31m"])
def test_bad_names(name: str) -> None:
    with pytest.raises(InvalidArgument, match="has a bad name"):
        Naming(prefixes=(Prefix("a/b"),)).of_image({REF_NAME: name}, DIGEST)


@pytest.mark.parametrize(
    ("name", "ref"),
    [
        ("docker.io/library/a:1", "1"),
        ("host:5000/a:1", "1"),
        (f"host/a@{DIGEST}", f"@{DIGEST}"),
        (f"host/a:1@{DIGEST}", f"1@{DIGEST}"),
        ("host/a", ""),
        ("a:latest", "a:latest"),
        ("a:1", ""),  # a host with a port
        (f"import@{DIGEST}", f"import@{DIGEST}"),
    ],
)
def test_what_the_annotations_say(name: str, ref: str) -> None:
    assert named(name) == {FULL_NAME: name, REF_NAME: ref}


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("busybox:latest", "docker.io/library/busybox:latest"),
        ("team/a:1", "docker.io/team/a:1"),
        ("host:5000/a:1", "host:5000/a:1"),
        (f"a@{DIGEST}", f"docker.io/library/a@{DIGEST}"),
    ],
)
def test_docker_names(short: str, full: str) -> None:
    assert from_docker(short) == full
    assert to_docker(full) == short


def test_docker_names_that_are_none() -> None:
    assert from_docker(f"a:1@{DIGEST}") == f"docker.io/library/a@{DIGEST}"
    assert to_docker("no such Name") is None
    with pytest.raises(InvalidArgument):
        from_docker("no such Name")

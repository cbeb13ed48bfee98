"""Pushes from orlopd into Debian's docker-registry, looked at by skopeo."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orlop.client import details, images
from orlop.client.pull import pull_image
from orlop.client.push import push_image
from orlop.client.streams import Progress
from orlop.errors import NotFound
from tests.archive_fixture import (
    MANIFEST,
    Files,
    add,
    attestation,
    image,
    index,
    layout,
    named,
    tar_of,
)
from tests.daemon_fixture import Orlopd
from tests.registry_fixture import run_registry, skopeo_copy

pytestmark = pytest.mark.root

NAME = "example.com/test/both:1"


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[str]:
    """A registry of its own, with nothing in it."""
    folder = tmp_path / "registry"
    folder.mkdir()
    with run_registry(folder) as host:
        yield host


@pytest.fixture
def both(orlopd: Orlopd, tmp_path: Path) -> str:
    """An image for two platforms that orlopd has; its digest."""
    files: Files = {}
    target = index(files, image(files, "amd64"), image(files, "arm64"))
    archive = tmp_path / "both.tar"
    archive.write_bytes(tar_of(layout(files, named(target, NAME, "io.containerd.image.name"))))
    orlopd.ctr("images", "import", "--all-platforms", "--no-unpack", str(archive))
    return str(target["digest"])


def _raw(name: str) -> bytes:
    command = ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{name}"]
    return subprocess.run(command, capture_output=True, check=True, timeout=30).stdout


def _digest(name: str) -> str:
    command = ["skopeo", "manifest-digest", "/dev/stdin"]
    done = subprocess.run(command, input=_raw(name), capture_output=True, check=True, timeout=30)
    return done.stdout.decode().strip()


def test_all_platforms(orlopd: Orlopd, both: str, empty: str, tmp_path: Path) -> None:
    events: list[Progress] = []
    with orlopd.connect() as connection:
        push_image(connection, NAME, f"{empty}/test/both:1", on_progress=events.append)
    assert _digest(f"{empty}/test/both:1") == both
    subprocess.run(
        ["skopeo", "copy", "--quiet", "--all", "--src-tls-verify=false", "--insecure-policy",
         f"docker://{empty}/test/both:1", f"oci:{tmp_path}/copy"],
        check=True, timeout=60,
    )  # fmt: skip
    assert len(list((tmp_path / "copy/blobs/sha256").iterdir())) == 7
    last = {event.name: event.event for event in events if event.name}
    assert len(last) == 7
    assert set(last.values()) == {"complete"}


def test_a_second_time_and_elsewhere(orlopd: Orlopd, both: str, empty: str) -> None:
    with orlopd.connect() as connection:
        push_image(connection, NAME, f"{empty}/test/both:1")
        again: list[Progress] = []
        push_image(connection, NAME, f"{empty}/test/both:1", on_progress=again.append)
        assert {e.event for e in again if e.name} == {"waiting", "already exists"}
        mounted: list[Progress] = []
        push_image(connection, NAME, f"{empty}/other/place:2", on_progress=mounted.append)
    outcomes = [e.event for e in mounted if e.name and e.event != "waiting"]
    assert sorted(outcomes) == ["complete"] * 3 + ["mounted"] * 4
    assert _digest(f"{empty}/other/place:2") == both


def test_one_platform(orlopd: Orlopd, both: str, empty: str) -> None:
    with orlopd.connect() as connection:
        push_image(connection, NAME, f"{empty}/test/one:1", platform_names=["linux/arm64"])
        with pytest.raises(NotFound, match="platform windows/amd64"):
            push_image(connection, NAME, f"{empty}/test/one:1", platform_names=["windows/amd64"])
    manifest = json.loads(_raw(f"{empty}/test/one:1"))
    assert "config" in manifest


def test_what_is_not_here(orlopd: Orlopd, both: str, empty: str) -> None:
    with orlopd.connect() as connection:
        push_image(connection, NAME, f"{empty}/test/both:1")
        again = f"{empty}/test/both:1"
        pull_image(connection, again, platform="linux/amd64", unpack=False)
        orlopd.ctr("images", "rm", NAME)
        for digest in orlopd.ctr("content", "ls", "-q").stdout.split():
            if digest not in str(_raw(again)) and digest != both:
                orlopd.ctr("content", "rm", digest)
        with pytest.raises(NotFound, match=r"for linux/\w+ is not here; pull it for all platforms"):
            push_image(connection, again, f"{empty}/test/copy:1")
        with pytest.raises(NotFound, match="nothing:1"):
            push_image(connection, f"{empty}/test/nothing:1")


def test_debians_ctr_pushes(orlopd: Orlopd, both: str, empty: str) -> None:
    orlopd.ctr("images", "push", "--plain-http", f"{empty}/test/ctr:1", NAME)
    assert _digest(f"{empty}/test/ctr:1") == both


def test_a_pushed_image_runs(orlopd: Orlopd, busybox: str, empty: str) -> None:
    name = f"{empty}/test/busybox:1"
    with orlopd.connect() as connection:
        push_image(connection, busybox, name)
        pull_image(connection, name)
    assert orlopd.orlop("run", "--rm", name, "echo", "afloat").stdout == "afloat\n"


def test_an_artifact_that_refers_to_an_image(orlopd: Orlopd, empty: str, tmp_path: Path) -> None:
    """docker-registry 2.8 knows no referrers: they are listed under a tag."""
    files: Files = {}
    subject = image(files)
    subject.pop("platform")
    notes = []
    for text in ("one", "two"):
        note = image(files, text=text)
        path = f"blobs/{note['digest'].replace(':', '/')}"
        document = json.loads(files.pop(path))
        document |= {"artifactType": "application/x-note", "subject": subject}
        data = json.dumps(document).encode()
        notes.append(add(files, data, MANIFEST))
    key = "io.containerd.image.name"
    described = [
        named(subject, "example.com/x:1", key),
        *(named(n, f"example.com/note:{i}", key) for i, n in enumerate(notes)),
    ]
    archive = tmp_path / "notes.tar"
    archive.write_bytes(tar_of(layout(files, *described)))
    orlopd.ctr("images", "import", "--all-platforms", "--no-unpack", str(archive))
    with orlopd.connect() as connection:
        push_image(connection, "example.com/x:1", f"{empty}/x:1")
        for _ in range(2):
            for number in range(2):
                push_image(connection, f"example.com/note:{number}", f"{empty}/x:note{number}")
    listed = json.loads(_raw(f"{empty}/x:{subject['digest'].replace(':', '-')}"))
    assert [each["digest"] for each in listed["manifests"]] == [n["digest"] for n in notes]
    assert listed["manifests"][0]["artifactType"] == "application/x-note"


def test_platforms_of_a_pull(orlopd: Orlopd, both: str, empty: str) -> None:
    """What was asked for comes, and the image says what is not here."""
    name = f"{empty}/test/both:1"
    with orlopd.connect() as connection:
        push_image(connection, NAME, name)

    def complete(**wanted: Any) -> dict[str, bool]:
        with orlopd.connect("elsewhere") as connection:
            pull_image(connection, name, unpack=False, **wanted)
            found = details.platforms_of(connection, images.get(connection, name))
            return {each.platform: not each.missing for each in found}

    assert complete(platform_names=["linux/arm64"]) == {"linux/amd64": False, "linux/arm64": True}
    assert complete(all_platforms=True) == {"linux/amd64": True, "linux/arm64": True}


@pytest.fixture
def attested(empty: str, tmp_path: Path) -> str:
    """In the registry: an image for two platforms with attestations, as BuildKit builds them."""
    files: Files = {}
    images_ = [image(files, "amd64"), image(files, "arm64")]
    target = index(files, *images_, *(attestation(files, each) for each in images_))
    archive = tmp_path / "attested.tar"
    archive.write_bytes(tar_of(layout(files, named(target, "1"))))
    name = f"{empty}/test/attested:1"
    skopeo_copy(f"oci-archive:{archive}:1", f"docker://{name}", "--all")
    return name


def test_what_was_pulled_in_full_can_go_on(orlopd: Orlopd, attested: str, tmp_path: Path) -> None:
    """With its attestations, whose layers nobody unpacks."""
    copy = attested.replace("attested:1", "copy:1")
    orlopd.orlop("pull", "--all-platforms", attested)
    orlopd.orlop("tag", attested, copy)
    done = orlopd.orlop("push", copy)
    assert "of one platform" not in done.stderr
    assert _raw(copy) == _raw(attested)
    saved = tmp_path / "saved.tar"
    orlopd.orlop("save", "--all-platforms", "-o", str(saved), copy)
    folders = tmp_path / "pushed", tmp_path / "saved"
    for source, folder in zip((f"docker://{copy}", f"oci-archive:{saved}"), folders, strict=True):
        skopeo_copy(source, f"oci:{folder}:1", "--all")
    pushed, exported = ({p.name for p in (f / "blobs/sha256").iterdir()} for f in folders)
    assert pushed == exported
    assert len(pushed) == 1 + 4 * 3


def test_one_platform_is_pushed_where_only_that_is_here(orlopd: Orlopd, attested: str) -> None:
    orlopd.orlop("pull", attested)
    for number, options in enumerate(([], ["--platform", "linux/amd64"])):
        copy = attested.replace("attested:1", f"copy:{number}")
        orlopd.orlop("tag", attested, copy)
        done = orlopd.orlop("push", *options, copy)
        assert ("only linux/amd64 is here" in done.stderr) == (not options)
        assert "config" in json.loads(_raw(copy))
    refused = orlopd.orlop("push", "--all-platforms", copy, check=False)
    assert refused.returncode == 1
    assert "is not here; pull it for all platforms" in refused.stderr

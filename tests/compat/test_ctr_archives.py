"""Archives as containerd imports and exports them: the same names, digests and bytes.

Debian's ctr does both by the content API, against containerd and against orlopd; orlop's own import
and export are compared with it.
"""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orlop.client.archive import export_images, import_images
from tests.archive_fixture import (
    Files,
    docker,
    image,
    index,
    layout,
    link_to,
    named,
    tar_of,
)
from tests.compat.clients.peer import Peer, collect
from tests.containerd_fixture import Containerd, run_containerd
from tests.daemon_fixture import Orlopd
from tests.registry_fixture import skopeo_copy

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("containerd") is None, reason="needs containerd"),
]

NAME, SINGLE = "registry.test/team/ship:1", "registry.test/team/ship/dinghy:1"


@pytest.fixture(scope="module")
def containerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containerd]:
    with run_containerd(tmp_path_factory.mktemp("containerd")) as made:
        yield made


def _records(text: str) -> dict[str, tuple[str, str]]:
    """Names with media types and digests, as `ctr images ls` lists them."""
    rows = [line.split() for line in text.splitlines()[1:]]
    return {name: (kind, digest) for name, kind, digest, *_ in rows}


def _archives(folder: Path, source: Path) -> dict[str, Path]:
    """All kinds of archives that the tests know."""
    files: Files = {}
    many = index(files, image(files), image(files, "arm64"))
    single = image(files, text="single")
    old = docker("ship:1", "registry.test:5000/a/b", text="old")
    link = link_to("one/layer.tar", "../two/layer.tar")
    rest = {**old, "two/layer.tar": old["one/layer.tar"]}
    del rest["one/layer.tar"]
    made: dict[str, bytes] = {
        "tag": tar_of(layout(files, named(single, "1.2"), many)),
        "full": tar_of(layout(files, named(many, NAME), named(single, SINGLE))),
        "both": tar_of({**layout(files, named(single, "t")), **old}),
        "docker": tar_of(old),
        "unnamed": tar_of(docker()),
        "links": tar_of([link, *rest.items()]),
    }
    paths = {}
    for name, data in made.items():
        paths[name] = folder / f"{name}.tar"
        paths[name].write_bytes(data)
    for kind, target in ("oci", "ship:latest"), ("docker", "ship:latest"):
        paths[f"skopeo-{kind}"] = folder / f"skopeo-{kind}.tar"
        skopeo_copy(f"oci:{source}:latest", f"{kind}-archive:{folder}/skopeo-{kind}.tar:{target}")
    paths["umoci"] = folder / "umoci.tar"
    subprocess.run(["tar", "-C", source, "-cf", paths["umoci"], "."], check=True)
    return paths


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory, layout: Path) -> dict[str, Path]:
    return _archives(tmp_path_factory.mktemp("archives"), layout)


# Archive, ctr's flags, and what import_images takes in their place.
CASES: list[tuple[str, list[str], dict[str, Any]]] = [
    ("tag", ["--base-name", "registry.test/x"], {"base_name": "registry.test/x"}),
    ("tag", ["--base-name", "registry.test/x", "--digests"],
     {"base_name": "registry.test/x", "digests": True}),
    ("full", ["--base-name", "registry.test/team/ship"], {"base_name": "registry.test/team/ship"}),
    ("full", ["--base-name", "registry.test/team/sh", "--digests"],
     {"base_name": "registry.test/team/sh", "digests": True}),
    ("both", ["--base-name", "b", "--index-name", "i"], {"base_name": "b", "index_name": "i"}),
    ("docker", ["--digests"], {"digests": True}),
    ("docker", ["--index-name", "registry.test/i:1"], {"index_name": "registry.test/i:1"}),
    ("unnamed", ["--digests"], {"digests": True}),
    ("links", [], {}),
    ("skopeo-oci", ["--base-name", "a/b"], {"base_name": "a/b"}),
    ("skopeo-docker", [], {}),
    ("umoci", ["--base-name", "registry.test/u"], {"base_name": "registry.test/u"}),
]  # fmt: skip


def _forget(daemon: Containerd | Orlopd) -> None:
    if names := daemon.ctr("images", "ls", "-q").stdout.split():
        daemon.ctr("images", "rm", "--sync", *names)


def test_names_are_those_that_containerd_gives(
    orlopd: Orlopd, containerd: Containerd, archives: dict[str, Path]
) -> None:
    for archive, flags, options in CASES:
        path = str(archives[archive])
        arguments = ("images", "import", "--no-unpack", "--all-platforms", *flags, path)
        containerd.ctr(*arguments)
        theirs = _records(containerd.ctr("images", "ls").stdout)
        orlopd.ctr(*arguments)
        assert _records(orlopd.ctr("images", "ls").stdout) == theirs, (archive, flags)
        _forget(orlopd)
        with orlopd.connect() as connection, archives[archive].open("rb") as file:
            names = import_images(connection, file, unpack=False, **options)
        assert _records(orlopd.ctr("images", "ls").stdout) == theirs, (archive, flags)
        assert sorted(names) == sorted(theirs), (archive, flags)
        _forget(orlopd)
        _forget(containerd)


def test_ctr_imports_by_platform(
    orlopd: Orlopd, containerd: Containerd, archives: dict[str, Path]
) -> None:
    """Labels are what keeps the content of the chosen platforms: they are the same, too."""
    listings = []
    for daemon in (containerd, orlopd):
        for digest in daemon.ctr("content", "ls", "-q").stdout.split():
            daemon.ctr("content", "rm", digest)
        path = str(archives["full"])
        daemon.ctr("images", "import", "--no-unpack", "--platform", "linux/arm64", path)
        with Peer(daemon.address, daemon.namespace) as peer:
            collect(peer)  # what the chosen platform does not need goes, now or in its time
        lines = daemon.ctr("content", "ls").stdout.splitlines()[1:]
        labels = {line.split()[0]: sorted(line.split("\t")[-1].split(",")) for line in lines}
        listings.append((_records(daemon.ctr("images", "ls").stdout), labels))
        _forget(daemon)
    theirs, ours = listings
    assert ours[0] == theirs[0]
    assert ours[1] == theirs[1]


def test_exports_are_the_same_to_the_byte(
    orlopd: Orlopd, containerd: Containerd, archives: dict[str, Path], tmp_path: Path
) -> None:
    path, out = str(archives["full"]), tmp_path / "theirs.tar"
    for daemon in (containerd, orlopd):
        daemon.ctr("images", "import", "--no-unpack", "--all-platforms", "--index-name", "i", path)
    flags: tuple[list[str], dict[str, Any]]
    for flags in (
        ([], {}),
        (["--platform", "linux/arm64"], {"platform_names": ["linux/arm64"]}),
        (["--all-platforms"], {"all_platforms": True}),
    ):
        for names in ([NAME], ["i"]) if flags[0] == ["--all-platforms"] else ([NAME],):
            containerd.ctr("images", "export", *flags[0], str(out), *names)
            ours = io.BytesIO()
            with orlopd.connect() as connection:
                export_images(connection, names, ours, **flags[1])
            assert ours.getvalue() == out.read_bytes(), flags
            orlopd.ctr("images", "export", *flags[0], str(out), *names)
            assert ours.getvalue() == out.read_bytes(), flags
    _forget(containerd)


def test_there_and_back_again(
    orlopd: Orlopd, containerd: Containerd, archives: dict[str, Path], tmp_path: Path
) -> None:
    """From containerd to orlopd, where it runs, and back."""
    first, second = tmp_path / "first.tar", tmp_path / "second.tar"
    containerd.ctr("images", "import", str(archives["skopeo-docker"]))
    name = "docker.io/library/ship:latest"
    containerd.ctr("images", "export", str(first), name)
    with orlopd.connect() as connection, first.open("rb") as file, second.open("wb") as out:
        assert import_images(connection, file) == [name]
        export_images(connection, [name], out)
    assert first.read_bytes() == second.read_bytes()
    assert "complete (2/2)" in orlopd.ctr("images", "check").stdout
    assert orlopd.ctr("run", "--rm", name, "job", "echo", "came over").stdout == "came over\n"
    before = _records(containerd.ctr("images", "ls").stdout)
    _forget(containerd)
    containerd.ctr("images", "import", str(second))
    assert _records(containerd.ctr("images", "ls").stdout) == before
    _forget(containerd)

"""Images: loaded, imported, built, committed, copied to and from, and removed."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from tests.compat.docker.dockerd import Dockerd

pytestmark = pytest.mark.root


def test_load_save_and_tag(dockerd: Dockerd, tmp_path: Path) -> None:
    archive = tmp_path / "saved.tar"
    dockerd.docker("tag", "busybox", "hold/box:1")
    dockerd.docker("save", "--output", str(archive), "hold/box:1")
    dockerd.docker("rmi", "hold/box:1")
    with tarfile.open(archive) as saved:
        manifest = json.load(saved.extractfile("manifest.json"))  # type: ignore[arg-type]
    assert manifest[0]["RepoTags"] == ["hold/box:1"]
    assert dockerd.out("load", "--input", str(archive)) == "Loaded image: hold/box:1"
    assert dockerd.out("run", "--rm", "hold/box:1", "echo", "ahoy") == "ahoy"
    listed = dockerd.out("images", "--format", "{{.Repository}}:{{.Tag}}").split()
    assert sorted(listed) == ["busybox:latest", "hold/box:1"]


def test_export_and_import(dockerd: Dockerd, tmp_path: Path) -> None:
    tree = tmp_path / "tree.tar"
    dockerd.docker("run", "--name", "boat", "busybox", "sh", "-c", "echo tea >/cargo")
    dockerd.docker("export", "--output", str(tree), "boat")
    change = 'CMD ["cat", "/cargo"]'
    dockerd.docker("import", "--change", change, "--message", "laden", str(tree), "laden:1")
    assert dockerd.out("run", "--rm", "laden:1") == "tea"
    assert len(dockerd.inspect("laden:1")["RootFS"]["Layers"]) == 1


DOCKERFILE = """
FROM busybox AS yard
ARG WOOD=oak
RUN echo $WOOD >/keel && mkdir /deck
FROM busybox
LABEL line=first
ENV PORT=Hull
COPY --from=yard /keel /keel
COPY --chown=sailor cargo /cargo
ADD more.tar /hold/
WORKDIR /home
RUN id -u >/who; rm -r /tmp
USER sailor
VOLUME /hold
EXPOSE 80
HEALTHCHECK CMD true
ENTRYPOINT ["sh", "-c"]
CMD ["cat /keel /cargo /who /hold/more; id -un; echo $PORT $PWD"]
"""


def test_build(dockerd: Dockerd, tmp_path: Path) -> None:
    """By the classic builder, each of whose steps is a container that is committed."""
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(DOCKERFILE)
    (context / "cargo").write_text("tea\n")
    (tmp_path / "more").write_text("more\n")
    with tarfile.open(context / "more.tar", "w") as archive:
        archive.add(tmp_path / "more", "more")

    def build(*options: str) -> str:
        return dockerd.docker(
            "build", "--tag", "ship", *options, str(context), env={"DOCKER_BUILDKIT": "0"}
        ).stdout

    assert "Using cache" not in build()
    assert dockerd.out("run", "--rm", "ship").split() == [
        "oak", "tea", "0", "more", "sailor", "Hull", "/home"
    ]  # fmt: skip
    assert build().count("Using cache") >= 10
    assert "Using cache" in build("--build-arg", "WOOD=pine", "--memory", "64m")
    assert dockerd.out("run", "--rm", "ship", "cat /keel; ls -d /tmp 2>&1 || true").startswith(
        "pine"
    )
    assert "HEALTHCHECK" in dockerd.out("history", "--no-trunc", "ship")
    failed = dockerd.docker(
        "build", "-", input="FROM busybox\nRUN exit 9\n", check=False, env={"DOCKER_BUILDKIT": "0"}
    )
    assert "returned a non-zero code: 9" in failed.stderr


def test_build_by_its_own_buildkit(dockerd: Dockerd, tmp_path: Path) -> None:
    """Which runs steps by runC itself, beside the daemon below."""
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN echo tea >/cargo\n")
    build = ["build", "--tag", "ship", str(tmp_path)]
    dockerd.docker(*build, env={"DOCKER_BUILDKIT": "1"})
    assert dockerd.out("run", "--rm", "ship", "cat", "/cargo") == "tea"
    dockerd.docker("builder", "prune", "--force", "--all")


def test_commit_and_diff(dockerd: Dockerd) -> None:
    dockerd.sleeper("boat")
    dockerd.docker("exec", "boat", "sh", "-c", "echo tea >/cargo; rm /etc/group; touch /etc/passwd")
    changes = dockerd.out("diff", "boat").splitlines()
    assert sorted(changes) == ["A /cargo", "C /etc", "C /etc/passwd", "D /etc/group"]
    change = 'CMD ["cat", "/cargo"]'
    dockerd.docker("commit", "--author", "cook", "--change", change, "boat", "laden")
    assert dockerd.out("run", "--rm", "laden") == "tea"
    assert dockerd.inspect("laden")["Author"] == "cook"


def test_copying(dockerd: Dockerd, tmp_path: Path) -> None:
    dockerd.sleeper("boat")
    (tmp_path / "crate").mkdir()
    (tmp_path / "crate" / "tea").write_text("black")
    dockerd.docker("cp", str(tmp_path / "crate"), "boat:/hold")
    assert dockerd.out("exec", "boat", "cat", "/hold/tea") == "black"
    dockerd.docker("cp", "boat:/etc/passwd", str(tmp_path / "passwd"))
    assert "sailor" in (tmp_path / "passwd").read_text()
    dockerd.docker("stop", "boat")
    dockerd.docker("cp", "boat:/hold/tea", str(tmp_path / "back"))
    assert (tmp_path / "back").read_text() == "black"


def test_what_takes_room_is_told_and_removed(dockerd: Dockerd) -> None:
    dockerd.docker("build", "--tag", "ship", "-", input="FROM busybox\nRUN echo 1 >/one\n",
                   env={"DOCKER_BUILDKIT": "0"})  # fmt: skip
    dockerd.docker("run", "--name", "boat", "-v", "hold:/hold", "busybox", "true")
    dockerd.docker("network", "create", "lane")
    table = dockerd.out("system", "df", "--verbose")
    assert all(name in table for name in ("ship", "boat", "hold"))
    told = dockerd.out("system", "prune", "--force", "--all", "--volumes")
    assert "lane" in told
    assert "untagged: ship:latest" in told
    assert dockerd.out("ps", "--all", "--quiet") == dockerd.out("volume", "ls", "--quiet") == ""

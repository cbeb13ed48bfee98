"""`docker run` of a dockerd on either daemon: one, and many at once."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from benchmarks.api import at_once
from benchmarks.measure import Result, at_most
from benchmarks.rivals import NAMESPACE, Rival, await_, folder, run
from benchmarks.stage import Stage, name

_CROWD = 20
_PLUGINS = Path("/run/docker/plugins")  # every dockerd makes it
_ALONE = ("unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "sh")


def bench_docker(stage: Stage) -> list[Result]:
    """`docker run --rm busybox true`, on dockerd's bridge and without a network."""
    rounds = 5 if stage.quick else 20
    with ExitStack() as stack:
        ours, theirs = (stack.enter_context(dockerd(stage, rival)) for rival in stage.rivals)

        def one(docker: list[str], *options: str) -> Callable[[], object]:
            command = [*docker, "run", "--rm", *options, "busybox", "true"]
            return lambda: run(command)

        def many(docker: list[str]) -> Callable[[], object]:
            return lambda: at_once(_CROWD, lambda _: one(docker)(), [name()] * _CROWD)

        return [
            *stage.compare(
                "docker run --rm busybox true", one(ours), one(theirs), rounds=rounds,
                budget=at_most(0.9),
            ),
            *stage.compare(
                "docker run --rm --network none busybox true",
                one(ours, "--network", "none"), one(theirs, "--network", "none"), rounds=rounds,
            ),
            *stage.compare(
                f"{_CROWD} docker run --rm busybox true at once, each", many(ours), many(theirs),
                rounds=1 if stage.quick else 3, per=_CROWD, budget=at_most(0.9),
            ),
        ]  # fmt: skip


@contextmanager
def dockerd(stage: Stage, rival: Rival, inside: Sequence[str] = _ALONE) -> Iterator[list[str]]:
    """A dockerd on a daemon, in a network namespace of its own; the command line of its docker.

    `inside` is what its command line begins with, to get it there.
    """
    with folder(f"dockerd-{rival.name}") as path:
        host = f"unix://{path}/docker.sock"
        docker = ["/usr/bin/docker", "--host", host, "--config", str(path / "cli")]
        (path / "daemon.json").write_text(f'{{"deprecated-key-path": "{path}/key.json"}}')
        command = [
            "dockerd", "--containerd", rival.address, "--host", host,
            "--containerd-namespace", f"{NAMESPACE}-docker",
            "--containerd-plugins-namespace", f"{NAMESPACE}-plugins",
            "--cgroup-parent", f"/{NAMESPACE}-docker",
            "--data-root", f"{path}/data", "--exec-root", f"{path}/exec",
            "--pidfile", f"{path}/pid", "--config-file", f"{path}/daemon.json",
        ]  # fmt: skip
        with (path / "log").open("wb") as log:
            process = subprocess.Popen([*inside, *command], stdout=log, stderr=log)
        try:
            await_(lambda: _works([*docker, "version"]), "dockerd")
            archive = path / "busybox.tar"
            save(stage.small, archive)
            run([*docker, "load", "--input", str(archive)])
            yield docker
        finally:
            process.terminate()
            process.wait()
            _clear(path)


def _works(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def save(image: str, archive: Path) -> None:
    """The registry's image as an archive, for who has no way to the registry."""
    target = f"docker-archive:{archive}:busybox:latest"
    run(["skopeo", "copy", "--quiet", "--insecure-policy", "--src-tls-verify=false",
         f"docker://{image}", target])  # fmt: skip


def _clear(path: Path) -> None:
    """Remove what a dockerd leaves: mounts of its own, cgroups, and a folder for plugins."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for point in reversed([each for each in points if each.startswith(f"{path}/")]):
        run(["umount", "--lazy", point])
    for group in Path("/sys/fs/cgroup").glob(f"*/{NAMESPACE}-docker"):
        with suppress(OSError):
            group.rmdir()
    for each in (_PLUGINS, _PLUGINS.parent):
        with suppress(OSError):
            each.rmdir()

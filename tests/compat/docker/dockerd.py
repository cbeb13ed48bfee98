"""A private dockerd: folders, sockets, cgroups and network of its own, on a private daemon."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from docker import DockerClient
from docker.errors import APIError

from orlop.sys.mount import unmount, unmount_all
from tests.compat.docker.engines import Harbour
from tests.daemon_fixture import Orlopd
from tests.patience import patient

_CLI = "/usr/bin/docker"
SLEEP = ("sh", "-c", "trap 'exit 0' TERM; sleep 1000 & echo ready; wait")
"""Sleeps, and ends when it is told to: that it is once it is ready."""
_PLUGINS = Path("/run/docker/plugins")  # where every dockerd looks for plugins, and makes it


class Dockerd:
    """Debian's dockerd on `engine`, which runs; both are in the harbour's network namespace.

    With `systemd` it is systemd that makes the cgroups.
    """

    def __init__(
        self, engine: Orlopd, harbour: Harbour, busybox: Path, *, systemd: bool = False
    ) -> None:
        self.engine, self.harbour, self._busybox = engine, harbour, busybox
        self._cgroups = ["--exec-opt", "native.cgroupdriver=systemd"] if systemd else [
            "--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", f"/{engine.namespace}"
        ]  # fmt: skip
        self.folder = engine.folder / "docker"
        self.folder.mkdir()
        self.socket = self.folder / "docker.sock"
        self.host = f"unix://{self.socket}"
        self.log = self.folder / "log"
        self.exec_root = self.folder / "exec"
        self._settings = self.folder / "daemon.json"
        self._process: subprocess.Popen[bytes] | None = None
        self._client: DockerClient | None = None
        self._configure(live_restore=False)

    # Life

    def start(self) -> None:
        """Start it and wait until it answers."""
        namespace = self.engine.namespace
        self._process = self.engine.spawn(
            ["dockerd", "--containerd", self.engine.address, "--host", self.host,
             "--containerd-namespace", namespace,
             "--containerd-plugins-namespace", f"plugins-{namespace}",
             *self._cgroups,
             "--data-root", str(self.folder / "data"), "--exec-root", str(self.exec_root),
             "--pidfile", str(self.folder / "pid"), "--config-file", str(self._settings),
             "--shutdown-timeout", "30", "--experimental"],
            self.log,
        )  # fmt: skip
        self.wait_for(self._answers, 30)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()
        return self.docker("version", check=False).returncode == 0

    def stop(self) -> None:
        """End it with SIGTERM; it stops its containers, unless they are to live on."""
        assert self._process is not None
        self._process.terminate()
        assert self._process.wait(patient(30)) == 0, self.log.read_text()
        self._process = None

    def kill9(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None
        (self.folder / "pid").unlink(
            missing_ok=True
        )  # the number may be somebody else's when it starts again

    def revive(self) -> None:
        """Start again what a test that failed has left dead: this dockerd, the daemon below."""
        if not self.engine.runs:
            self.engine.start()
        if self._process is not None and self._process.poll() is not None:
            self.kill9()
        if self._process is None:
            self.start()

    def live_restore(self, wanted: bool) -> None:
        """Have it leave containers alone when it ends, or not; it reads that while it runs."""
        self._configure(live_restore=wanted)
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)
        self.wait_for(lambda: self.client.info()["LiveRestoreEnabled"] is wanted)

    def _configure(self, *, live_restore: bool) -> None:
        settings = {"live-restore": live_restore, "deprecated-key-path": f"{self.folder}/key.json"}
        self._settings.write_text(json.dumps(settings))

    # Use

    @property
    def client(self) -> DockerClient:
        """The Python SDK's client."""
        if self._client is None:
            self._client = DockerClient(self.host, timeout=int(patient(60)))
        return self._client

    def command(self, *arguments: str) -> list[str]:
        """The command line of Debian's docker, to be started otherwise."""
        return [_CLI, "--host", self.host, "--config", str(self.folder / "cli"), *arguments]

    def docker(
        self,
        *arguments: str,
        check: bool = True,
        input: str = "",
        timeout: float = 60,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run Debian's `docker`; with `check`, its failure fails the test."""
        return self._run(self.command(*arguments), check, input, timeout, env)

    def out(self, *arguments: str, input: str = "") -> str:
        """What `docker` prints, without the last line's end."""
        return self.docker(*arguments, input=input).stdout.rstrip("\n")

    def compose(self, folder: Path, *arguments: str) -> str:
        """What Debian's `docker-compose` prints for the project in a folder."""
        command = ["docker-compose", "--project-directory", str(folder), "--file",
                   str(folder / "docker-compose.yml"), "--no-ansi", *arguments]  # fmt: skip
        return self._run(command, True, "", 120, {"DOCKER_HOST": self.host}).stdout

    def _run(
        self,
        command: list[str],
        check: bool,
        input: str,
        timeout: float,
        env: Mapping[str, str] | None,
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command, input=input, capture_output=True, text=True, timeout=patient(timeout),
            check=False, env={**os.environ, **(env or {})},
        )  # fmt: skip
        if check:
            assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}\n{self.logs()}"
        return done

    def inspect(self, name: str) -> dict[str, Any]:
        """What `docker inspect` says of one object."""
        found: list[dict[str, Any]] = json.loads(self.out("inspect", name))
        return found[0]

    def status(self, name: str) -> str:
        return self.out("inspect", "--format", "{{.State.Status}}", name)

    def sleeper(self, name: str, *options: str) -> str:
        """A detached container that sleeps, and ends when it is told to; its id."""
        made = self.out("run", "--detach", "--name", name, *options, "busybox", *SLEEP)
        self.ready(name)
        return made

    def ready(self, name: str, times: int = 1) -> None:
        """Wait until a container has said that it is `ready`, in each of its lives."""
        container = self.client.containers.get(name)
        self.wait_for(lambda: container.logs().count(b"ready") >= times)

    def wait_for(self, condition: Callable[[], bool], timeout: float = 20) -> None:
        self.engine.wait_for(condition, timeout)

    def logs(self) -> str:
        """The last lines of what both daemons have logged."""
        return "\n".join(
            line
            for path in (self.log, self.engine.log)
            for line in [f"{path}:", *path.read_text().splitlines()[-15:]]
        )

    # The end

    def clear(self) -> None:
        """Remove what a test has made; what stays, or comes, is the image `busybox`."""

        def is_empty() -> bool:
            found = self.client.containers.list(all=True, ignore_removed=True)
            for container in found:
                with suppress(APIError):  # it may be on its way out
                    container.remove(force=True, v=True)
            return not found

        self.wait_for(is_empty, 60)
        self.client.networks.prune()
        self.client.volumes.prune()
        for image in self.client.images.list():
            if image.id is not None and "busybox:latest" not in image.tags:
                self.client.images.remove(image.id, force=True)
        if not self.client.images.list("busybox:latest"):
            self.docker("load", "--input", str(self._busybox))

    def close(self) -> None:
        """Stop it, and fail if containers of it are left in the daemon below."""
        for namespace in (self.engine.namespace, f"plugins-{self.engine.namespace}"):
            for what in ("containers", "tasks"):
                left = self.engine.ctr(what, "ls", "-q", namespace=namespace).stdout
                assert not left, f"{what} left: {left}\n{self.logs()}"
        self.stop()
        self._release()

    def discard(self) -> None:
        """Remove what is there after a failure, without a word."""
        if self._process is not None:
            self.kill9()
        self._release()

    def _release(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
        for group in Path("/sys/fs/cgroup").glob(f"*/{self.engine.namespace}/buildkit"):
            with suppress(OSError):
                group.rmdir()  # its builder leaves it, empty
        # What it keeps for ever, or until it ends in peace; what is below the data is not its own.
        unmount_all(self.exec_root)
        with suppress(OSError):
            unmount(self.folder / "data")
        for folder in (_PLUGINS, _PLUGINS.parent):
            with suppress(OSError):
                folder.rmdir()  # others may be using it


@contextmanager
def dockerd_on(engine: Orlopd, busybox: Path, *, systemd: bool = False) -> Iterator[Dockerd]:
    """A dockerd that has busybox; at its end nothing of it or of the daemon below may be left."""
    try:
        harbour = Harbour(engine)
        engine.inside = harbour.inside
        engine.start()
        dockerd = Dockerd(engine, harbour, busybox, systemd=systemd)
        try:
            dockerd.start()
            dockerd.clear()
            yield dockerd
            dockerd.close()
        finally:
            dockerd.discard()
        harbour.close()
        engine.close()
    finally:
        engine.discard()


def identifier(text: str) -> bool:
    """Whether this is the id of a container."""
    return re.fullmatch(r"[0-9a-f]{64}", text) is not None

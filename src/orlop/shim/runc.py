"""The driver of runc, or of any OCI runtime with runc's command line.

Every command is one child process, started with posix_spawn; nothing else runs. The error text of
a failed command comes from the JSON log that it was told to write.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any

from orlop.errors import NotFound, Unknown
from orlop.shim.files import read_or_empty, remove
from orlop.shim.host import Host
from orlop.wire.runc_pb2 import Options

_WIPE_TRIES = _KILL_TRIES = 3
_PAUSE_TRIES, _PAUSE_DELAY = 5, 0.1  # seconds
DEFAULT_BINARY = "runc"
DEFAULT_ROOT = "/run/containerd/runc"
NULL = 0
"""Descriptor 0 of a shim is /dev/null, open for reading and writing."""

_NOT_FROZEN = ("unable to freeze", "while freezing")

# Python ignores these, and an ignored signal would stay ignored in the container.
RESTORED_SIGNALS = tuple(
    map(
        int,
        (
            signal.SIGPIPE,
            signal.SIGXFSZ,
            signal.SIGTERM,
            signal.SIGINT,
            signal.SIGHUP,
            signal.SIGCHLD,
        ),
    )
)


# What a service manager tells the daemon is not for runc, which would take it for itself.
_DAEMON_ONLY = (b"NOTIFY_SOCKET", b"LISTEN_PID", b"LISTEN_FDS", b"LISTEN_FDNAMES")
ENVIRONMENT = {key: value for key, value in os.environb.items() if key not in _DAEMON_ONLY}
"""The daemon's environment, which runtimes inherit; read before the fork, shared by all shims."""


Environment = Mapping[bytes, bytes]


OURS_ALONE: set[int] = set()
"""Descriptors that no program has, not even while it is being started.

Close-on-exec comes too late for who counts the ends of a pipe: `posix_spawn` returns before it.
"""


class RuncError(Unknown):
    """A command of the runtime failed; the message is the runtime's own."""


def spawn(
    argv: list[str],
    fds: dict[int, int],
    env: Mapping[bytes, bytes] = ENVIRONMENT,
    *,
    own_group: bool = False,
) -> int:
    """Start a program with exactly the descriptors `{target: source}` and default signals.

    `argv[0]` is looked up in PATH. Sources that are also targets of others must not occur. With
    `own_group` it outlives a kill of the shim's process group. Raises OSError when there is no such
    program.
    """
    # First: a target may have the number of one of them.
    actions: list[tuple[int, ...]] = [(os.POSIX_SPAWN_CLOSE, fd) for fd in OURS_ALONE]
    actions += [(os.POSIX_SPAWN_DUP2, source, target) for target, source in fds.items()]
    group: dict[str, Any] = {"setpgroup": 0} if own_group else {}
    return os.posix_spawnp(
        argv[0], argv, env, file_actions=actions, setsigdef=RESTORED_SIGNALS, **group
    )


class Runc:
    """One runtime binary with one state root, for the containers of a shim's namespace.

    `scratch` is a folder for the short-lived log files of its commands.
    """

    def __init__(self, host: Host, options: Options, *, scratch: str) -> None:
        self.binary = options.binary_name or DEFAULT_BINARY
        self.root = f"{options.root or DEFAULT_ROOT}/{host.namespace}"
        self._host = host
        self._scratch = scratch
        self._number = itertools.count(1)
        self._pivot_flags = ["--no-pivot"] if options.no_pivot_root else []
        self._create_flags = [*self._pivot_flags]
        if options.no_new_keyring:
            self._create_flags.append("--no-new-keyring")
        self._global_flags = ["--systemd-cgroup"] if options.systemd_cgroup else []

    async def create(
        self, id: str, bundle: str, pid_file: str, stdio: Sequence[int], console: str
    ) -> None:
        """Create a container whose init has the descriptors `stdio`, or a console socket's."""
        flags = [*_place(pid_file, console), *self._create_flags, "--bundle", bundle]
        await self._run("create", *flags, id, stdio=stdio)

    async def start(self, id: str) -> None:
        await self._run("start", id)

    async def exec(
        self, id: str, process_file: str, pid_file: str, stdio: Sequence[int], console: str
    ) -> None:
        """Start the process that `process_file` (JSON) describes, in the container."""
        flags = [*_place(pid_file, console), "--process", process_file]
        await self._run("exec", "--detach", *flags, id, stdio=stdio)

    async def delete(self, id: str) -> None:
        """Remove a stopped container's state and cgroups; one already gone is fine."""
        try:
            await self._run("delete", id)
        except RuncError as error:
            if "does not exist" not in error.message:
                raise

    async def wipe(self, id: str) -> None:
        """Remove what a `create` may have left that did not come to its end."""
        for left in reversed(range(_WIPE_TRIES)):
            if not os.path.isdir(f"{self.root}/{id}"):
                return
            try:
                await self._run("delete", "--force", id)
            except RuncError:
                if not left:
                    raise

    async def kill(self, id: str, signal: int, *, all: bool = False) -> None:
        """Send a signal; NotFound when there is no process to receive it."""
        flags = ["--all"] if all else []
        for left in reversed(range(_KILL_TRIES)):
            try:
                await self._run("kill", *flags, id, str(signal))
            except RuncError as error:
                # One of the container's own cgroups went while runc looked into it.
                if not left or "no such device" not in error.message:
                    raise _kill_error(id, error) from error
            else:
                return

    async def pause(self, id: str) -> None:
        """Freeze all processes.

        By cgroup v1 that fails while one of them is being forked or comes in; then they go on.
        """
        for left in reversed(range(_PAUSE_TRIES)):
            try:
                await self._run("pause", id)
            except RuncError as error:
                if not left or not any(text in error.message for text in _NOT_FROZEN):
                    raise
                await self._host.loop.sleep(_PAUSE_DELAY)
            else:
                return

    async def resume(self, id: str) -> None:
        await self._run("resume", id)

    async def checkpoint(
        self, id: str, images: str, work: str, flags: Sequence[str], env: Environment | None = None
    ) -> None:
        """Write criu's images of all processes to `images`, and its log to `work`/dump.log."""
        folders = ["--image-path", images, "--work-path", work]
        await self._run("checkpoint", *folders, *flags, id, env=env)

    async def restore(
        self,
        id: str,
        bundle: str,
        pid_file: str,
        stdio: Sequence[int],
        console: str,
        *,
        images: str,
        work: str,
        flags: Sequence[str],
        env: Environment | None = None,
    ) -> None:
        """Make a container that goes on where the images were made; `work`/restore.log tells."""
        where = [*_place(pid_file, console), *self._pivot_flags, "--bundle", bundle]
        folders = ["--image-path", images, "--work-path", work]
        detached = ["--detach", "--no-subreaper"]
        await self._run("restore", *detached, *where, *folders, *flags, id, stdio=stdio, env=env)

    async def update(self, id: str, resources: bytes) -> None:
        """Change limits; `resources` is the JSON of the runtime spec's LinuxResources."""
        fd = os.memfd_create("resources")
        try:
            os.write(fd, resources)
            os.lseek(fd, 0, os.SEEK_SET)
            await self._run("update", "--resources", "-", id, stdio=(fd, NULL, NULL))
        finally:
            os.close(fd)

    async def _run(
        self,
        command: str,
        *arguments: str,
        stdio: Sequence[int] = (NULL, NULL, NULL),
        env: Environment | None = None,
    ) -> None:
        log = f"{self._scratch}/.{self.binary.rpartition('/')[2]}-{next(self._number)}.log"
        flags = ["--root", self.root, "--log", log, "--log-format", "json", *self._global_flags]
        argv = [self.binary, *flags, command, *arguments]
        trace = self._host.loop.current.trace if self._host.loop.current else ""
        began, status = time.time_ns(), -1
        try:
            pid = spawn(argv, dict(enumerate(stdio)), env or ENVIRONMENT)
        except OSError as error:
            raise RuncError(_spawn_error(self.binary, error)) from error
        try:
            status, _ = await self._host.children.exit_of(pid)
            if status != 0:
                raise RuncError(
                    last_error(log) or f"{self.binary} {command} ended with status {status}"
                )
        finally:
            remove(log)
            if trace:
                self._host.log.ran(f"runc {command}", trace, began, status)


async def checked(action: str, command: Awaitable[None]) -> None:
    """Await a command; its error says what the runtime was to do."""
    try:
        await command
    except RuncError as error:
        raise RuncError(f"OCI runtime {action} failed: {error.message}") from error


def last_error(log: str) -> str:
    """The last error in a runtime's JSON log, or ""."""
    for line in reversed(read_or_empty(log).splitlines()):
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and entry.get("level") in ("error", "fatal", "panic"):
            return str(entry.get("msg", "")).strip()
    return ""


def _spawn_error(binary: str, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return f'exec: "{binary}": executable file not found in $PATH'
    return f'exec: "{binary}": {(error.strerror or str(error)).lower()}'


def _place(pid_file: str, console: str) -> list[str]:
    flags = ["--pid-file", pid_file]
    return [*flags, "--console-socket", console] if console else flags


def _kill_error(id: str, error: RuncError) -> Exception:
    gone = ("process already finished", "container not running", "no such process")
    if any(text in error.message for text in gone):
        return NotFound("process already finished")
    if "does not exist" in error.message:
        return NotFound(f'container "{id}"')
    return error

"""Checkpoints by criu, which the runtime drives: its options, its folders, and its own words."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError

from orlop.errors import InvalidArgument, NotFound
from orlop.rpc.convert import any_type
from orlop.shim import files
from orlop.shim.runc import ENVIRONMENT
from orlop.wire.runc_pb2 import CheckpointOptions

# Beside criu's images, which are restored with the same flags.
_PLAN, _NEW_PLAN = "orlop.json", ".orlop.json.new"
_TOLD_MAX = 3
_FLAGS = (
    ("open_tcp", "--tcp-established"),
    ("external_unix_sockets", "--ext-unix-sk"),
    ("terminal", "--shell-job"),
    ("file_locks", "--file-locks"),
)


def parse_options(packed: Any) -> CheckpointOptions:
    """The options of a checkpoint; InvalidArgument for those of another runtime."""
    options = CheckpointOptions()
    if not packed.type_url:
        return options
    if any_type(packed) != CheckpointOptions.DESCRIPTOR.full_name:
        raise InvalidArgument(f'checkpoint options of type "{packed.type_url}"')
    try:
        options.ParseFromString(packed.value)
    except DecodeError as error:
        raise InvalidArgument("checkpoint options do not parse") from error
    return options


def flags(options: CheckpointOptions) -> list[str]:
    """What the options are called on the runtime's command line, of both verbs."""
    found = [flag for name, flag in _FLAGS if getattr(options, name)]
    for namespace in options.empty_namespaces:
        found += ["--empty-ns", namespace]
    if options.cgroups_mode:
        found += ["--manage-cgroups-mode", options.cgroups_mode]
    return found


class Images:
    """The folder of one checkpoint's images. Raises InvalidArgument for a relative path."""

    def __init__(self, path: str) -> None:
        if not path.startswith("/"):
            raise InvalidArgument(f'path of a checkpoint "{path}" is not absolute')
        self.path = path
        self._there = os.path.isdir(path)
        self._had = set(os.listdir(path)) - {_NEW_PLAN} if self._there else set()

    def prepare(self, plan: Plan) -> None:
        """Write down what a restore needs; before the checkpoint, which may end the container.

        An older checkpoint in the folder has its own until `keep`. Raises OSError.
        """
        os.makedirs(self.path, mode=0o700, exist_ok=True)
        text = json.dumps({"flags": plan.flags, "outside": plan.outside})
        files.write(f"{self.path}/{_NEW_PLAN}", text.encode(), create=True)

    def keep(self) -> None:
        """The checkpoint has been made. Raises OSError."""
        os.rename(f"{self.path}/{_NEW_PLAN}", f"{self.path}/{_PLAN}")

    def discard(self) -> None:
        """Remove what a checkpoint that failed has left."""
        if not os.path.isdir(self.path):
            return
        for name in set(os.listdir(self.path)) - self._had:
            files.remove(f"{self.path}/{name}")
        if not self._there:
            os.rmdir(self.path)


@dataclass(frozen=True, slots=True)
class Plan:
    """How a checkpoint is made, and restored: flags of both, and streams that are files outside.

    Those are files by criu's names, each with the number that it has, of 0, 1 and 2.
    """

    flags: list[str]
    outside: dict[str, int]

    def environment(self, config: str, *, restore: bool = False) -> dict[bytes, bytes] | None:
        """What criu is to be told besides, by a `config` file; None for nothing.

        The runtime has flags for pipes, but none for fifos and files.
        """
        if not self.outside:
            return None
        lines = [
            f"inherit-fd fd[{fd}]:{name}" if restore else f"external {name}"
            for name, fd in self.outside.items()
        ]
        files.write(config, "".join(f"{line}\n" for line in lines).encode(), create=True)
        return {**ENVIRONMENT, b"CRIU_CONFIG_FILE": config.encode()}


def plan(options: CheckpointOptions, pid: int) -> Plan:
    """For the container whose first process is `pid`."""
    return Plan(flags(options), _outside(pid))


def _outside(pid: int) -> dict[str, int]:
    """The streams of a process that are files or fifos which its mounts do not have."""
    mounts = {line.partition(" ")[0] for line in _lines(f"/proc/{pid}/mountinfo")}
    found: dict[str, int] = {}
    for fd in range(3):
        path = f"/proc/{pid}/fd/{fd}"
        try:
            info, name = os.stat(path), os.readlink(path)
        except OSError:
            continue  # closed
        at = next((line for line in _lines(f"/proc/{pid}/fdinfo/{fd}") if "mnt_id:" in line), "")
        mount = at.partition(":")[2].strip()
        kind = stat.S_ISFIFO(info.st_mode) or stat.S_ISREG(info.st_mode)
        if kind and name.startswith("/") and mount and mount not in mounts:
            found.setdefault(f"file[{int(mount):x}:{info.st_ino:x}]", fd)
    return found


def _lines(path: str) -> list[str]:
    return files.read_or_empty(path).splitlines()


def kept_plan(images: str) -> Plan:
    """The plan of a restore, as its checkpoint kept it; NotFound without images."""
    try:
        names = os.listdir(images)
    except OSError:
        names = []
    if not names:
        raise NotFound(f'checkpoint "{images}"')
    try:
        kept = json.loads(files.read_or_empty(f"{images}/{_PLAN}"))
        return Plan(list(kept["flags"]), dict(kept["outside"]))
    except (ValueError, KeyError, TypeError):
        return Plan([], {})  # made by another shim


def told(log: str) -> str:
    """The last errors in criu's log, to be added to a message; "" where it tells none."""
    lines = files.read_or_empty(log).splitlines()
    found = [line for line in lines if " Error (" in line] or lines[-1:]
    return "".join(f"; {_plain(line)}" for line in found[-_TOLD_MAX:])


def _plain(line: str) -> str:
    """A line of the log without its time: `(00.123) 42: Error (criu/x.c:1): words`."""
    return f"criu: {line.partition('Error ')[2] or line}".strip()


def remove_folder(path: str) -> None:
    """Remove criu's work folder, which has nothing but files."""
    try:
        for name in os.listdir(path):
            files.remove(f"{path}/{name}")
        os.rmdir(path)
    except FileNotFoundError:
        pass

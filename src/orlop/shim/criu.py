"""Checkpoints by criu, which the runtime drives: its options, its folders, and its own words."""

from __future__ import annotations

import os
from typing import Any

from google.protobuf.message import DecodeError

from orlop.errors import InvalidArgument, NotFound
from orlop.rpc.convert import any_type
from orlop.shim import files
from orlop.wire.runc_pb2 import CheckpointOptions

# Beside criu's images, which a restore needs the same options for.
_OPTIONS = "orlop-options"
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
        self._had = set(os.listdir(path)) if self._there else set()

    def keep_options(self, options: CheckpointOptions) -> None:
        """For a restore, whoever asks for it."""
        files.write(f"{self.path}/{_OPTIONS}", options.SerializeToString(), create=True)

    def discard(self) -> None:
        """Remove what a checkpoint that failed has left."""
        if not os.path.isdir(self.path):
            return
        for name in set(os.listdir(self.path)) - self._had:
            files.remove(f"{self.path}/{name}")
        if not self._there:
            os.rmdir(self.path)


def kept_flags(images: str) -> list[str]:
    """The flags of a restore, by the options of its checkpoint; NotFound without images."""
    try:
        names = os.listdir(images)
    except OSError:
        names = []
    if not names:
        raise NotFound(f'checkpoint "{images}"')
    options = CheckpointOptions()
    try:
        with open(f"{images}/{_OPTIONS}", "rb") as file:
            options.ParseFromString(file.read())
    except (FileNotFoundError, DecodeError):
        pass  # made by another shim
    return flags(options)


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

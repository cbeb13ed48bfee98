"""Plugins: programs in a search path, what is said to them (spec, section 2), and their errors."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from orlop.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    OrlopError,
    Unavailable,
    Unknown,
)
from orlop.network.cni import versions
from orlop.network.cni.model import Attachment, Json
from orlop.network.cni.orphans import Orphans
from orlop.network.cni.program import Programs
from orlop.sys.program import Done

TIMEOUT = 60.0
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NEWEST = versions.SUPPORTED[-1]
_TOLD_MAX = 500
_NO_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
# Codes of the spec, section 5, by what a caller can do about them.
_CODES: dict[int, type[OrlopError]] = {
    1: FailedPrecondition,
    2: InvalidArgument,
    3: NotFound,
    4: InvalidArgument,
    6: InvalidArgument,
    7: InvalidArgument,
    11: Unavailable,
    50: Unavailable,
    51: Unavailable,
}


class Plugins:
    """The plugins found in `folders`, the first that has one. Thread-safe.

    `lock` is a file by which a later one of these can tell whether plugins of this one still run.
    """

    def __init__(
        self, folders: Sequence[Path], *, timeout: float = TIMEOUT, lock: Path | None = None
    ) -> None:
        self._folders = list(folders)
        self._timeout = timeout
        self._orphans = Orphans(lock) if lock is not None else None
        self._programs = Programs([self._orphans.fd] if self._orphans is not None else [])
        self._lock = threading.Lock()
        self._versions: dict[tuple[str, int, int], tuple[str, ...]] = {}

    def close(self) -> None:
        """End those that run, and start no more."""
        self._programs.close()
        if self._orphans is not None:
            self._orphans.close()

    def await_orphans(self) -> bool:
        """Wait for plugins that an earlier process has left running; False if they go on and on."""
        return self._orphans is None or self._orphans.await_end(self._timeout)

    def find(self, kind: str) -> Path:
        """The program of a plugin; NotFound names the folders."""
        for folder in self._folders:
            path = folder / kind
            if path.is_file() and os.access(path, os.X_OK):
                return path
        where = ", ".join(f'"{each}"' for each in self._folders)
        raise NotFound(f'CNI plugin "{kind}" in {where}')

    def versions(self, kind: str) -> tuple[str, ...]:
        """Which versions of the spec a plugin speaks; it is asked once, until it changes."""
        path = self.find(kind)
        try:
            stat = path.stat()
        except OSError:  # it has gone since
            raise NotFound(f'CNI plugin "{kind}"') from None
        key = (str(path), stat.st_ino, stat.st_mtime_ns)
        with self._lock:
            known = self._versions.get(key)
        if known is not None:
            return known
        # What one of before 0.2.0 does not understand, it takes for a version that it speaks not.
        text = msgspec.json.encode({"cniVersion": _NEWEST})
        answer = self._run(path, kind, "VERSION", self._env("VERSION", None), text)
        told = answer.get("supportedVersions") if isinstance(answer, dict) else None
        if not isinstance(told, list) or not all(isinstance(each, str) for each in told):
            raise Unknown(f'CNI plugin "{kind}" (VERSION): its answer names no versions')
        with self._lock:
            self._versions[key] = tuple(told)
        return tuple(told)

    def call(self, command: str, kind: str, config: Json, attachment: Attachment | None) -> Any:
        """Have a plugin do `command`; the JSON that it prints, None if it prints nothing.

        Raises what it tells of its failure, with the plugin's name.
        """
        path = self.find(kind)
        env = self._env(command, attachment)
        return self._run(path, kind, command, env, msgspec.json.encode(config))

    def _env(self, command: str, attachment: Attachment | None) -> dict[str, str]:
        """All that a plugin sees; PATH is not the spec's, but they look for iptables by it."""
        env = {
            "CNI_COMMAND": command,
            "CNI_PATH": ":".join(map(str, self._folders)),
            "PATH": os.environ.get("PATH", _SYSTEM_PATH),
        }
        if attachment is not None:
            env |= {
                "CNI_CONTAINERID": attachment.container_id,
                "CNI_NETNS": attachment.netns,
                "CNI_IFNAME": attachment.ifname,
            }
            if attachment.args:
                env["CNI_ARGS"] = ";".join(f"{key}={value}" for key, value in attachment.args)
        return env

    def _run(self, path: Path, kind: str, command: str, env: Mapping[str, str], text: bytes) -> Any:
        about = f'CNI plugin "{kind}" ({command})'
        try:
            done = self._programs.run(path, env, text, self._timeout)
        except (DeadlineExceeded, Unknown, FailedPrecondition, NotFound) as error:
            raise type(error)(f"{about}: {error.message}") from None
        if done.code:
            raise _failure(about, done)
        if not done.stdout.strip():
            return None
        try:
            return msgspec.json.decode(done.stdout)
        except _NO_JSON:
            raise Unknown(f"{about}: it prints what is no JSON: {_shown(done.stdout)}") from None


def _failure(about: str, done: Done) -> OrlopError:
    """An error of the spec, or the end of one that did not get as far as that."""
    how = f"exit code {done.code}" if done.code > 0 else f"signal {-done.code}"
    try:
        told = msgspec.json.decode(done.stdout)
    except _NO_JSON:
        told = None
    if not isinstance(told, dict) or not isinstance(told.get("msg"), str):
        printed = _shown(done.stderr) or _shown(done.stdout) or "it says nothing"
        return Unknown(f"{about}: {how}: {printed}")
    code = told.get("code")
    said = (each for each in (told["msg"], told.get("details")) if isinstance(each, str))
    text = ": ".join(map(_cut, filter(None, map(str.strip, said))))
    error = _CODES.get(code, Unknown) if isinstance(code, int) else Unknown
    return error(f"{about}: {text or 'no reason given'} (code {_cut(str(code))})")


def _cut(text: str) -> str:
    return text if len(text) <= _TOLD_MAX else f"{text[:_TOLD_MAX]}…"


def _shown(data: bytes) -> str:
    """The end of what a program has printed, on one line."""
    text = " ".join(data.decode(errors="replace").split())
    return text if len(text) <= _TOLD_MAX else f"…{text[-_TOLD_MAX:]}"

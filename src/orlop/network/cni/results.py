"""What ADD has found out, remembered on disk as libcni does: one file for each attachment."""

from __future__ import annotations

import base64
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from orlop import typed
from orlop.errors import FailedPrecondition
from orlop.network.cni.model import Attachment, Json

CACHE = Path("/var/lib/cni")
"""Where libcni keeps them, of all runtimes that use it."""
_KIND = "cniCacheV1"
_log = logging.getLogger(__name__)


class Remembered(msgspec.Struct, frozen=True, kw_only=True):
    """An attachment to `network`, whose configuration was `config` then.

    `result` is what the plugins have told so far, None before the first has; `note` is whatever its
    owner wants to know.
    """

    network: str
    attachment: Attachment
    config: bytes
    result: Json | None = None
    note: Mapping[str, Any] = msgspec.field(default_factory=dict)


class _File(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The names that libcni gives to all this; `orlop` is our own."""

    kind: str
    containerId: str  # noqa: N815
    config: str
    ifName: str  # noqa: N815
    networkName: str  # noqa: N815
    netns: str = ""
    cniArgs: list[tuple[str, str]] | None = None  # noqa: N815
    capabilityArgs: dict[str, Any] | None = None  # noqa: N815
    result: Json | None = None
    orlop: dict[str, Any] = {}


class Results:
    """The files below `folder`, a cache directory as libcni's, in its `results`.

    What cannot be read, or is of another kind, is logged and left out.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "results"

    def path(self, network: str, attachment: Attachment) -> Path:
        return self.folder / f"{network}-{attachment.container_id}-{attachment.ifname}"

    def save(self, remembered: Remembered) -> None:
        """Write it, whole or not at all; FailedPrecondition if that cannot be."""
        attachment = remembered.attachment
        file = _File(
            kind=_KIND,
            containerId=attachment.container_id,
            config=base64.b64encode(remembered.config).decode(),
            ifName=attachment.ifname,
            networkName=remembered.network,
            netns=attachment.netns,
            cniArgs=list(attachment.args) or None,
            capabilityArgs=dict(attachment.capabilities) or None,
            result=remembered.result,
            orlop=dict(remembered.note),
        )
        path = self.path(remembered.network, attachment)
        half = path.with_name(f".{path.name}")
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write(half, msgspec.json.encode(file))
            half.rename(path)
            _sync(self.folder)
        except OSError as error:
            raise FailedPrecondition(
                f'attachment "{path.name}" cannot be remembered in "{self.folder}": '
                f"{(error.strerror or str(error)).lower()}"
            ) from None

    def get(self, network: str, attachment: Attachment) -> Remembered | None:
        return _read(self.path(network, attachment))

    def all(self) -> list[Remembered]:
        """All that can be read, by name."""
        return [each for each in map(_read, self._paths()) if each is not None]

    def doubtful(self, network: str) -> list[str]:
        """The names of files that may be of a network, and of which nothing is known."""
        mine = [each for each in self._paths() if each.name.startswith(f"{network}-")]
        return [each.name for each in mine if _is_doubtful(each)]

    def drop_halves(self) -> None:
        """Remove what a crash has left of files that were being written; nobody may write now."""
        for each in self.folder.glob(".*"):
            if each.is_file():
                each.unlink(missing_ok=True)

    def _paths(self) -> list[Path]:
        try:
            paths = sorted(self.folder.iterdir())
        except OSError:  # nothing has ever been attached
            return []
        return [each for each in paths if not each.name.startswith(".")]

    def remove(self, network: str, attachment: Attachment) -> None:
        """Forget it; FailedPrecondition if that cannot be."""
        path = self.path(network, attachment)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise FailedPrecondition(f'"{path}" cannot be removed: {reason}') from None


def _write(path: Path, data: bytes) -> None:
    """Write a file, to the disk."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(fd)


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _read(path: Path) -> Remembered | None:
    """None for what is not there, damaged, or of another kind."""
    try:
        return _decode(path)
    except ValueError as error:
        _log.warning('"%s", which tells of an attachment, cannot be read: %s', path, error)
        return None


def _is_doubtful(path: Path) -> bool:
    try:
        _decode(path)
    except ValueError:
        return True
    return False


def _decode(path: Path) -> Remembered | None:
    """None for what is not there; ValueError for what is damaged, or of another kind."""
    try:
        file = typed.decode(path.read_bytes(), _File)
        config = base64.b64decode(file.config)
    except FileNotFoundError:
        return None
    except (OSError, RecursionError, msgspec.DecodeError) as error:
        raise ValueError(str(error)) from None
    if file.kind != _KIND:
        raise ValueError(f'its kind is "{file.kind}"')
    return Remembered(
        network=file.networkName,
        attachment=Attachment(
            container_id=file.containerId,
            ifname=file.ifName,
            netns=file.netns,
            args=tuple(file.cniArgs or ()),
            capabilities=file.capabilityArgs or {},
        ),
        config=config,
        result=file.result,
        note=file.orlop,
    )

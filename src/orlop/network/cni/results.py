"""What ADD has found out, remembered on disk as libcni does: one file for each attachment."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from orlop.errors import FailedPrecondition
from orlop.network.cni.model import Attachment, Json

CACHE = Path("/var/lib/cni")
"""Where libcni keeps them, of all runtimes that use it."""
_KIND = "cniCacheV1"


class Remembered(msgspec.Struct, frozen=True, kw_only=True):
    """An attachment to `network`, whose configuration was `config` then.

    `result` is None until ADD has come to its end. `note` is whatever its owner wants to know.
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
    """The files below `folder`, a cache directory as libcni's, in its `results`."""

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
            half.touch(0o600)
            half.write_bytes(msgspec.json.encode(file))
            half.rename(path)
        except OSError as error:
            raise FailedPrecondition(
                f'attachment "{path.name}" cannot be remembered in "{self.folder}": '
                f"{(error.strerror or str(error)).lower()}"
            ) from None

    def get(self, network: str, attachment: Attachment) -> Remembered | None:
        return _read(self.path(network, attachment))

    def all(self) -> list[Remembered]:
        """All that can be read, by name."""
        try:
            paths = sorted(self.folder.iterdir())
        except OSError:  # nothing has ever been attached
            return []
        found = (_read(each) for each in paths if not each.name.startswith("."))
        return [each for each in found if each is not None]

    def remove(self, network: str, attachment: Attachment) -> None:
        self.path(network, attachment).unlink(missing_ok=True)


def _read(path: Path) -> Remembered | None:
    """None for what is not there, damaged, or of another kind."""
    try:
        file = msgspec.json.decode(path.read_bytes(), type=_File)
        config = base64.b64decode(file.config)
    except (OSError, ValueError, msgspec.DecodeError):
        return None
    if file.kind != _KIND:
        return None
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

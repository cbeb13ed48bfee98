"""Values of options of `orlop run`: mounts, devices, limits of processes, sysctls."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from orlop.errors import InvalidArgument
from orlop.oci.spec import Bind, Tmpfs
from orlop.oci.spec_resources import Device

_STORAGE = {
    "size": "containerd.io/snapshot/quota.size",
    "inodes": "containerd.io/snapshot/quota.inodes",
    "volatile": "containerd.io/snapshot/overlay.volatile",
}
_LIMITS = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
]
# Those that a namespace has of its own: any other would be the host's.
_SYSCTLS = re.compile(r"net\..+|fs\.mqueue\..+|kernel\.(msg[a-z_]+|sem|shm[a-z_]+|domainname)")
_PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")


def bind(text: str) -> Bind:
    """`SOURCE:TARGET[:ro|rw][,PROPAGATION]`, both absolute paths, the source there."""
    source, _, rest = text.partition(":")
    target, _, modes = rest.partition(":")
    wanted = [each for each in modes.split(",") if each]
    propagation = [each for each in wanted if each in _PROPAGATIONS]
    unknown = set(wanted) - {"ro", "rw", *_PROPAGATIONS}
    if not source.startswith("/") or not target.startswith("/") or unknown:
        raise InvalidArgument(
            f'volume "{text}" is not SOURCE:TARGET[:ro] with two absolute paths '
            "(named volumes do not exist here)"
        )
    if not Path(source).exists():
        raise InvalidArgument(f'volume "{text}": "{source}" does not exist on this host')
    return Bind(source, target, "ro" in wanted, propagation[0] if propagation else "rprivate")


def tmpfs(text: str) -> Tmpfs:
    """`TARGET[:OPTION,…]`."""
    target, _, options = text.partition(":")
    if not target.startswith("/"):
        raise InvalidArgument(f'tmpfs "{text}" is not TARGET[:OPTIONS] with an absolute path')
    return Tmpfs(target, [each for each in options.split(",") if each])


def device(text: str) -> Device:
    """`SOURCE[:TARGET][:ACCESS]`."""
    source, *rest = text.split(":")
    access = rest.pop() if rest and not rest[-1].startswith("/") else "rwm"
    target = rest.pop() if rest else source
    if rest or not source.startswith("/") or not access or set(access) - set("rwm"):
        raise InvalidArgument(f'device "{text}" is not /dev/NAME[:/dev/NAME][:rwm]')
    return Device(source, target, access)


def devices(text: str) -> Iterator[Device]:
    """The device, or all those below a folder."""
    found = device(text)
    if not Path(found.source).is_dir():
        yield found
        return
    below = (
        Path(parent, name) for parent, _, names in os.walk(found.source) for name in names
    )  # which passes over folders that go meanwhile
    for path in sorted(below):
        if path.is_char_device() or path.is_block_device():
            target = Path(found.target, path.relative_to(found.source))
            yield Device(str(path), str(target), found.access)


def ulimit(text: str) -> tuple[str, tuple[int, int]]:
    """`NAME=SOFT[:HARD]`; -1 is no limit."""
    name, _, values = text.partition("=")
    soft, colon, hard = values.partition(":")
    try:
        found = (_limit(soft), _limit(hard if colon else soft))
    except ValueError:
        found = (1, 0)
    if name not in _LIMITS or found[0] > found[1]:
        raise InvalidArgument(
            f'ulimit "{text}" is not NAME=SOFT[:HARD], with one of {", ".join(_LIMITS)}'
        )
    return name, found


def _limit(text: str) -> int:
    value = int(text)
    if value < -1:
        raise ValueError(text)
    return value if value >= 0 else 2**64 - 1


def storage_labels(texts: Sequence[str]) -> dict[str, str]:
    """The labels of a container's snapshot that options `NAME=VALUE` stand for."""
    labels = {}
    for text in texts:
        name, _, value = text.partition("=")
        if name not in _STORAGE or not (value or text == "volatile"):
            raise InvalidArgument(f'storage option "{text}" is not size=…, inodes=… or volatile')
        labels[_STORAGE[name]] = value
    return labels


def sysctl(text: str) -> tuple[str, str]:
    """`NAME=VALUE`, of those that a container can have of its own."""
    name, equals, value = text.partition("=")
    if not equals or not _SYSCTLS.fullmatch(name):
        raise InvalidArgument(
            f'sysctl "{text}" is not NAME=VALUE of net.*, fs.mqueue.* or kernel.msg*, sem, shm*'
        )
    return name, value


def mount(text: str) -> Bind | Tmpfs:
    """`type=bind,src=…,dst=…[,readonly]` or `type=tmpfs,dst=…[,tmpfs-size=…][,tmpfs-mode=…]`."""
    fields = dict(each.partition("=")[::2] for each in text.split(","))
    kind = fields.pop("type", "bind")
    source = fields.pop("src", fields.pop("source", ""))
    target = fields.pop("dst", fields.pop("target", fields.pop("destination", "")))
    if kind == "bind":
        read_only = bool(
            {"readonly", "ro"} & {k for k, v in fields.items() if v in ("", "true", "1")}
        )
        propagation = fields.get("bind-propagation", "rprivate")
        recursive = fields.get("bind-recursive", "enabled")
        unknown = set(fields) - {"readonly", "ro", "bind-propagation", "bind-recursive"}
        if not unknown and propagation in _PROPAGATIONS and recursive in ("enabled", "disabled"):
            plain = bind(f"{source}:{target}:{'ro' if read_only else 'rw'},{propagation}")
            return plain._replace(recursive=recursive == "enabled")
    elif kind == "tmpfs":
        names = {"tmpfs-size": "size", "tmpfs-mode": "mode"}
        unknown = set(fields) - set(names)
        if not unknown and not source:
            return tmpfs(f"{target}:" + ",".join(f"{names[k]}={v}" for k, v in fields.items()))
    raise InvalidArgument(f'mount "{text}" is neither type=bind,src=…,dst=… nor type=tmpfs,dst=…')

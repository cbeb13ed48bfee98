"""What is done to a mount before it is made, as the prefixes of its type ask.

The names, options and defaults are those of containerd's mount manager.
"""

from __future__ import annotations

import os
import re
import secrets
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from orlop.errors import FailedPrecondition, InvalidArgument, Unavailable
from orlop.mounts.model import Active
from orlop.sys.mount import Mount

_MKFS, _MKDIR = "X-containerd.mkfs.", "X-containerd.mkdir."
_TEMPLATE = re.compile(r"\{\{-?\s*(source|target|mount|overlay)((?:\s+\d{1,3})+)\s*-?\}\}")
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,15})?)\s*([kmgtp]?)(?:i?b)?", re.IGNORECASE)
_UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50}
_SIZE_MAX = 1 << 50
_UUID = re.compile(r"[0-9a-fA-F-]{1,36}")
_DEFAULT_MODE = 0o700
_IMAGE_MODE = 0o640
_MKFS_LIMIT = 300.0  # seconds

Transform = Callable[[Mount, Sequence[Active]], Mount]


class Transforms:
    """The transforms by name; what they create must be below one of the folders `roots`."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self._roots = roots
        self._all: dict[str, Transform] = {
            "format": _format,
            "mkdir": self._mkdir,
            "mkfs": self._mkfs,
        }

    def split(self, kind: str) -> tuple[list[Transform], str]:
        """The transforms that a mount's type asks for, in order, and the type that is left."""
        found: list[Transform] = []
        while True:
            name, slash, rest = kind.partition("/")
            if not slash or name not in self._all:
                return found, kind
            found.append(self._all[name])
            kind = rest

    def _mkdir(self, mount: Mount, _: Sequence[Active]) -> Mount:
        """`X-containerd.mkdir.path=FOLDER[:MODE[:UID:GID]]`, as often as one likes."""
        own, others = _options(mount, _MKDIR)
        for option in own:
            key, value = option.partition("=")[::2]
            if key != "path":
                raise InvalidArgument(f'mount option "{_MKDIR}{option}"')
            folder, *more = value.split(":")
            self._make(folder, *_numbers(option, more))
        return mount._replace(options=others)

    def _make(self, folder: str, mode: int, owner: tuple[int, int] | None) -> None:
        path = self._inside(folder)
        try:
            path.mkdir()
        except FileExistsError:
            if not path.is_dir() or path.is_symlink():
                raise FailedPrecondition(f'"{folder}" is there, and is no folder') from None
        except OSError as error:
            raise FailedPrecondition(f'folder "{folder}" cannot be made: {error}') from error
        path.chmod(mode)
        if owner is not None:
            os.chown(path, *owner)

    def _mkfs(self, mount: Mount, _: Sequence[Active]) -> Mount:
        """`X-containerd.mkfs.size|fs|uuid`: the source is an image, made if it is not there."""
        own, others = _options(mount, _MKFS)
        wanted = dict(option.partition("=")[::2] for option in own)
        if unknown := set(wanted) - {"size", "fs", "uuid"}:
            raise InvalidArgument(f'mount option "{_MKFS}{min(unknown)}"')
        size = _bytes(wanted.get("size", ""))
        image = self._inside(mount.source)
        if image.is_symlink() or (image.exists() and not image.is_file()):
            raise FailedPrecondition(f'"{mount.source}" is there, and is no image')
        if not image.exists():
            _make_image(image, size, wanted.get("fs", "ext4"), wanted.get("uuid", ""))
        return mount._replace(options=others)

    def _inside(self, text: str) -> Path:
        """A path whose folder is below one of the roots, however it is written."""
        folder, name = os.path.split(text)
        real = Path(os.path.realpath(folder))
        here = any(real == root or root in real.parents for root in self._real_roots())
        if not here or name in ("", ".", ".."):
            roots = " or ".join(f'"{root}"' for root in self._roots)
            raise InvalidArgument(f'"{text}" is to be made, and is not below {roots}')
        return real / name

    def _real_roots(self) -> Iterator[Path]:
        return (Path(os.path.realpath(root)) for root in self._roots)


def _options(mount: Mount, prefix: str) -> tuple[list[str], tuple[str, ...]]:
    """The options with a prefix, without it; and the others."""
    own = [each.removeprefix(prefix) for each in mount.options if each.startswith(prefix)]
    return own, tuple(each for each in mount.options if not each.startswith(prefix))


def _numbers(option: str, parts: Sequence[str]) -> tuple[int, tuple[int, int] | None]:
    try:
        mode = int(parts[0], 8) if parts else _DEFAULT_MODE
        owner = tuple(map(int, parts[1:]))
    except ValueError:
        raise InvalidArgument(f'mount option "{_MKDIR}{option}"') from None
    if len(owner) not in (0, 2) or not 0 <= mode <= 0o777 or any(each < 0 for each in owner):
        raise InvalidArgument(f'mount option "{_MKDIR}{option}"')
    return mode, (owner[0], owner[1]) if owner else None


def _bytes(text: str) -> int:
    found = _SIZE.fullmatch(text.strip())
    size = int(float(found[1]) * (1 << _UNITS[found[2].lower()])) if found else 0
    if not 0 < size <= _SIZE_MAX:
        raise InvalidArgument(f'mount option "{_MKFS}size={text}": how many bytes? ("64MiB")')
    return size


def _make_image(image: Path, size: int, kind: str, uuid: str) -> None:
    """Under another name first: an image that is there is whole."""
    if uuid and not _UUID.fullmatch(uuid):
        raise InvalidArgument(f'mount option "{_MKFS}uuid={uuid}"')
    match kind:
        case "ext2" | "ext3" | "ext4":
            command = [f"mkfs.{kind}", "-q", *(["-U", uuid] if uuid else [])]
        case "xfs":
            command = ["mkfs.xfs", "-q", *(["-m", f"uuid={uuid}"] if uuid else [])]
        case _:
            raise InvalidArgument(f'mount option "{_MKFS}fs={kind}": ext2, ext3, ext4 or xfs')
    half = image.with_name(f".{image.name}.{secrets.token_hex(6)}")
    try:
        with half.open("xb") as file:
            file.truncate(size)
        half.chmod(_IMAGE_MODE)
        done = subprocess.run(
            [*command, str(half)],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
            timeout=_MKFS_LIMIT,
        )  # fmt: skip
        if done.returncode:
            raise FailedPrecondition(f'{command[0]} "{image}": {done.stderr.strip()}')
        with suppress(FileExistsError):  # another was faster: his may be in use already
            image.hardlink_to(half)
    except FileNotFoundError as error:
        raise Unavailable(f"{command[0]}: {error.strerror}; is it installed?") from error
    except OSError as error:
        raise FailedPrecondition(f'image "{image}" cannot be made: {error}') from error
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f'{command[0]} "{image}" does not end') from error
    finally:
        with suppress(OSError):
            half.unlink()


def _format(mount: Mount, active: Sequence[Active]) -> Mount:
    """`{{ mount 0 }}` and the like, in source, target and options, say where earlier mounts are."""
    return Mount(
        mount.type,
        _filled(mount.source, active),
        _filled(mount.target, active),
        tuple(_filled(option, active) for option in mount.options),
    )


def _filled(text: str, active: Sequence[Active]) -> str:
    if "{{" not in text:
        return text

    def value(found: re.Match[str]) -> str:
        name, numbers = found[1], [int(each) for each in found[2].split()]
        if len(numbers) != (2 if name == "overlay" else 1) or max(numbers) >= len(active):
            raise InvalidArgument(f'mount template "{found[0]}" of {len(active)} mounts')
        if name == "overlay":
            first, last = numbers
            step = 1 if first <= last else -1
            return ":".join(active[at].mount_point for at in range(first, last + step, step))
        one = active[numbers[0]]
        return {"source": one.mount.source, "target": one.mount.target, "mount": one.mount_point}[
            name
        ]

    filled = _TEMPLATE.sub(value, text)
    if "{{" in _TEMPLATE.sub("", text):
        raise InvalidArgument(f'mount template "{text}"')
    return filled

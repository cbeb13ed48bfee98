"""The networks that a folder's files describe, read again when they have changed."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from orlop.errors import InvalidArgument, NotFound
from orlop.network.cni import parsing
from orlop.network.cni.model import Json, NetworkConfig

_log = logging.getLogger(__name__)
_KINDS = (".conf", ".conflist", ".json")
_Sign = tuple[tuple[str, int, int, int], ...]


class Configurations:
    """The files of `folder`, in the order of their names. Thread-safe.

    Of two networks of one name the first counts. What cannot be read is logged once, until it
    changes, and hides no other.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._sign: _Sign | None = None
        self._found: dict[str, NetworkConfig] = {}
        self._logged: set[tuple[str, str]] = set()

    def all(self) -> list[NetworkConfig]:
        with self._lock:
            self._read_again()
            return list(self._found.values())

    def get(self, name: str) -> NetworkConfig:
        """Raises NotFound."""
        with self._lock:
            self._read_again()
            found = self._found.get(name)
        if found is None:
            raise NotFound(f'CNI network "{name}" in "{self.folder}"')
        return found

    def _read_again(self) -> None:
        files = _files(self.folder, _KINDS)
        sign = _sign([*files, *(each for each in _folders(self.folder))])
        if sign == self._sign:
            return
        found: dict[str, NetworkConfig] = {}
        problems: set[tuple[str, str]] = set()
        for path in files:
            try:
                made = _network(path)
                if made.name in found:
                    raise InvalidArgument(f'another file has network "{made.name}" already')
                found[made.name] = made
            except (OSError, InvalidArgument) as error:
                text = error.message if isinstance(error, InvalidArgument) else str(error.strerror)
                problems.add((str(path), text))
        for path_name, text in sorted(problems - self._logged):
            _log.warning('CNI configuration "%s" is left out: %s', path_name, text)
        self._logged, self._found, self._sign = problems, found, sign


def _network(path: Path) -> NetworkConfig:
    config = parsing.load(path.read_bytes())
    more: list[Json] = []
    name = config.get("name")
    if parsing.is_list(config) and parsing.wants_more(config) and isinstance(name, str):
        for each in _files(path.parent / Path(name).name, (".conf",)):
            try:
                more.append(parsing.load(each.read_bytes()))
            except InvalidArgument as error:
                raise InvalidArgument(f'plugin "{each.name}": {error.message}') from None
    try:
        return parsing.network(config, more)
    except RecursionError:
        raise InvalidArgument("it is nested too deeply") from None


def _files(folder: Path, kinds: tuple[str, ...]) -> list[Path]:
    try:
        return sorted(each for each in folder.iterdir() if each.suffix in kinds and each.is_file())
    except OSError:  # there is none, or it is no folder
        return []


def _folders(folder: Path) -> list[Path]:
    """The plugins in folders of networks."""
    try:
        inner = sorted(each for each in folder.iterdir() if each.is_dir())
    except OSError:
        return []
    return [file for each in inner for file in _files(each, (".conf",))]


def _sign(files: list[Path]) -> _Sign:
    """What differs if any of them has changed."""
    found = []
    for each in files:
        try:
            stat = each.stat()
        except OSError:
            continue
        found.append((str(each), stat.st_ino, stat.st_mtime_ns, stat.st_size))
    return tuple(found)

"""Which hosts serve a registry, by the operator's `hosts.toml` (containerd's layout and keys).

Below a configuration folder, the folder of a registry is called `host`, `host:port`, `host_port_`
or, for those that have none, `_default`. It holds `hosts.toml`, or else certificates as docker
names them: `*.crt` to trust, `*.cert` with `*.key` to show.
"""

from __future__ import annotations

import logging
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from orlop.errors import InvalidArgument
from orlop.oci.durations import nanoseconds
from orlop.registry.addresses import split
from orlop.registry.host import NO_TLS, Capability, Host, Tls, api_host, default_host

_DEFAULT = "_default"
_FILE = "hosts.toml"
_CAPABILITIES = {
    "pull": Capability.PULL,
    "resolve": Capability.RESOLVE,
    "push": Capability.PUSH,
    "referrers": Capability.REFERRERS,
}
_HOST_KEYS = frozenset(
    {"capabilities", "ca", "client", "skip_verify", "header", "override_path", "dial_timeout"}
)
_ROOT_KEYS = _HOST_KEYS | {"server", "host"}

_log = logging.getLogger(__name__)


def find_hosts(
    folders: Sequence[Path],
    name: str,
    scheme: str = "",
    headers: Mapping[str, str] | None = None,
) -> list[Host]:
    """The hosts for the registry `name`, in the order in which they are to be tried.

    `scheme` and `headers` are for the registry itself where no file says otherwise; one on this
    machine is asked what it speaks (see `default_host`). Raises InvalidArgument that names the file
    and key for a file that makes no sense.
    """
    folder = _folder(folders, name)
    if folder is None:
        return [default_host(name, scheme, headers)]
    file = folder / _FILE
    try:
        text = file.read_bytes()
    except FileNotFoundError:
        text = b""
    except OSError as error:
        raise InvalidArgument(f'"{file}" cannot be read: {error.strerror}') from None
    if text:
        return _File(file, name).hosts(text, scheme, headers)
    tls = _certificates(folder)
    return [default_host(name, scheme or _meant(folder, tls), headers, tls)]


def _meant(folder: Path, tls: Tls) -> str:
    """The scheme that a registry's own folder means by saying how to trust it, "" for none."""
    return "https" if tls != NO_TLS and folder.name != _DEFAULT else ""


def _folder(folders: Sequence[Path], name: str) -> Path | None:
    host, colon, port = name.rpartition(":")
    names = [f"{host}_{port}_", name] if colon and port.isdecimal() else [name]
    for folder in folders:
        for each in (*names, _DEFAULT):
            if (folder / each).is_dir():
                return folder / each
    return None


def _certificates(folder: Path) -> Tls:
    """Docker's folder of certificates; one without a key beside it has its own in it."""
    client = []
    for certificate in sorted(folder.glob("*.cert")):
        key = certificate.with_suffix(".key")
        client.append((str(certificate), str(key) if key.exists() else ""))
    ca = tuple(str(each) for each in sorted(folder.glob("*.crt")))
    return Tls(ca=ca, client=tuple(client))


class _File:
    """One `hosts.toml`."""

    def __init__(self, path: Path, registry: str) -> None:
        self._path = path
        self._registry = registry

    def hosts(self, text: bytes, scheme: str, headers: Mapping[str, str] | None) -> list[Host]:
        try:
            document = tomllib.loads(text.decode())
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InvalidArgument(f'"{self._path}" is not TOML: {error}') from None
        self._known(document, _ROOT_KEYS, "")
        mirrors = self._typed("host", document.get("host", {}), dict, "a table")
        found = [self._host(url, table, f'host."{url}".') for url, table in mirrors.items()]
        server = self._typed("server", document.get("server", ""), str, "an address")
        own = {key: value for key, value in document.items() if key in _HOST_KEYS}
        if server:
            return [*found, self._host(server, own, "", headers)]
        tls = self._tls("", own)
        scheme = scheme or _meant(self._path.parent, tls)
        itself = default_host(self._registry, scheme, headers, tls)
        address = f"{itself.scheme}://{itself.name}"
        return [*found, replace(self._host(address, own, "", headers), tls=itself.tls)]

    def _host(
        self, url: str, table: Any, prefix: str, headers: Mapping[str, str] | None = None
    ) -> Host:
        self._typed(prefix.rstrip("."), table, dict, "a table")
        self._known(table, _HOST_KEYS, prefix)
        parts = split(url if url.startswith(("http://", "https://")) else f"https://{url}")
        if parts is None or not parts.hostname or parts.query or "@" in parts.netloc:
            raise self._wrong(prefix + "address", "an address such as https://mirror:5000", url)
        path = parts.path.rstrip("/")
        override = self._typed(
            f"{prefix}override_path", table.get("override_path", False), bool, "true or false"
        )
        if not override and not path.endswith("/v2"):
            path += "/v2"
        name = api_host(parts.netloc)
        return Host(
            parts.scheme,
            name,
            prefix=path,
            namespace="" if name == api_host(self._registry) else self._registry,
            capabilities=self._capabilities(f"{prefix}capabilities", table.get("capabilities")),
            headers={**(headers or {}), **self._headers(f"{prefix}header", table)},
            tls=self._tls(prefix, table),
            dial_timeout=self._seconds(f"{prefix}dial_timeout", table.get("dial_timeout", "")),
        )

    def _capabilities(self, key: str, names: Any) -> Capability:
        """All, if none are named."""
        found = Capability(0)
        for name in self._strings(key, names or []):
            if name.lower() not in _CAPABILITIES:
                raise self._wrong(key, "a list of " + ", ".join(_CAPABILITIES), name)
            found |= _CAPABILITIES[name.lower()]
        return found or Capability.ALL

    def _seconds(self, key: str, value: Any) -> float:
        text = self._typed(key, value, str, "a duration such as 2s")
        try:
            return nanoseconds(text or "0") / 1e9
        except ValueError:
            raise self._wrong(key, "a duration such as 2s", text) from None

    def _headers(self, key: str, table: Mapping[str, Any]) -> dict[str, str]:
        given = self._typed(key, table.get("header", {}), dict, "a table")
        return {
            name: ", ".join(self._strings(f"{key}.{name}", value)) for name, value in given.items()
        }

    def _tls(self, prefix: str, table: Mapping[str, Any]) -> Tls:
        skip = self._typed(
            f"{prefix}skip_verify", table.get("skip_verify", False), bool, "true or false"
        )
        ca = tuple(
            self._file(f"{prefix}ca", each)
            for each in self._strings(f"{prefix}ca", table.get("ca", []))
        )
        return Tls(ca, self._client(f"{prefix}client", table.get("client", [])), skip)

    def _client(self, key: str, value: Any) -> tuple[tuple[str, str], ...]:
        """A file, a list of files, or a list of pairs of them."""
        found = []
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, str):
                found.append((self._file(key, each), ""))
            elif isinstance(each, list) and 1 <= len(each) <= 2:
                files = [self._file(key, part) for part in self._strings(key, each)]
                found.append((files[0], files[1] if len(files) == 2 and each[1] else ""))
            else:
                raise self._wrong(key, "a file, or pairs of a certificate and its key", each)
        return tuple(found)

    def _file(self, key: str, name: str) -> str:
        path = self._path.parent / name
        if name and not path.exists():
            raise InvalidArgument(f'"{self._path}": {key} names "{path}", which does not exist')
        return str(path)

    def _strings(self, key: str, value: Any) -> list[str]:
        listed = value if isinstance(value, list) else [value]
        for each in listed:
            self._typed(key, each, str, "a string or a list of strings")
        return listed

    def _known(self, table: Mapping[str, Any], keys: frozenset[str], prefix: str) -> None:
        for key in table.keys() - keys:
            _warn_of_key(self._path, f"{prefix}{key}", ", ".join(sorted(keys)))

    def _typed(self, key: str, value: Any, kind: type, expected: str) -> Any:
        if not isinstance(value, kind):
            raise self._wrong(key, expected, value)
        return value

    def _wrong(self, key: str, expected: str, found: Any) -> InvalidArgument:
        return InvalidArgument(f'"{self._path}": {key} must be {expected}, not {found!r}')


@lru_cache(1000)
def _warn_of_key(file: Path, key: str, known: str) -> None:
    """Once: files are read for every pull, and may be written for another program, too."""
    _log.warning('"%s": unknown key "%s" is ignored; known here: %s', file, key, known)

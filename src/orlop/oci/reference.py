"""Image references, `host[:port]/path[:tag][@digest]` (OCI distribution spec, "Pull")."""

from __future__ import annotations

import re
from typing import NamedTuple

from orlop.errors import InvalidArgument
from orlop.oci.digest import Digest

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_HOST = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*"
    r"|\[[0-9a-fA-F:]+\])(?::[0-9]+)?"
)
_NAME_MAX = 255
_PORT_MAX = 65535

DEFAULT_HOST = "docker.io"
# Which serve the same.
_ALIASES = ("index.docker.io", "registry-1.docker.io", "registry.hub.docker.com")
_TLS_PORT = 443
_DEFAULT_FOLDER = "library"
_DEFAULT_TAG = "latest"


class Reference(NamedTuple):
    """A full reference; `tag` and `digest` are "" where absent."""

    host: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def repository(self) -> str:
        return f"{self.host}/{self.path}"

    @property
    def object(self) -> str:
        """What a registry is asked for: the digest if there is one, else the tag."""
        return self.digest or self.tag

    def __str__(self) -> str:
        text = self.repository
        if self.tag:
            text += f":{self.tag}"
        if self.digest:
            text += f"@{self.digest}"
        return text


def parse(text: str) -> Reference:
    """Parse a full reference, whose first component is a host.

    Raises InvalidArgument that says which part is wrong.
    """
    host, slash, rest = text.partition("/")
    if not slash or not _is_host(host):
        raise InvalidArgument(
            f'reference "{text}" does not begin with a registry host, such as {DEFAULT_HOST}/'
        )
    return _parse(text, host, rest)


def normalize(text: str) -> Reference:
    """Parse what a person types: `busybox` is `docker.io/library/busybox:latest`.

    The host, `library/` and the tag `latest` are filled in where they are missing.
    """
    host, slash, rest = text.partition("/")
    if not slash or not _is_host(host):
        host, rest = DEFAULT_HOST, text
    found = _parse(text, host, rest)
    path = found.path
    if found.host == DEFAULT_HOST and "/" not in path:
        path = f"{_DEFAULT_FOLDER}/{path}"
    tag = found.tag or ("" if found.digest else _DEFAULT_TAG)
    return Reference(found.host, path, tag, found.digest)


def canonical_host(host: str) -> str:
    """One spelling for all those of a registry's host[:port], of which the port is TLS's."""
    name, colon, port = host.lower().rpartition(":")
    if not colon or not port.isdecimal():
        name = host.lower()
    elif int(port) != _TLS_PORT:
        name = f"{name}:{int(port)}"
    return DEFAULT_HOST if name in _ALIASES else name


def canonical_repository(repository: str) -> str:
    """`host/path` as `normalize` has it, whatever way the host is spelled."""
    host, slash, path = repository.partition("/")
    host = canonical_host(host)
    if host == DEFAULT_HOST and path and "/" not in path:
        path = f"{_DEFAULT_FOLDER}/{path}"
    return f"{host}{slash}{path}"


def spellings(repository: str) -> tuple[str, ...]:
    """`canonical_repository`, and the same with TLS's port where it names no other."""
    canonical = canonical_repository(repository)
    host, slash, path = canonical.partition("/")
    _, colon, port = host.rpartition(":")
    if colon and port.isdecimal():
        return (canonical,)
    return canonical, f"{host}:{_TLS_PORT}{slash}{path}"


def _is_host(component: str) -> bool:
    """A first component with a dot, a colon, or the name localhost is a host."""
    looks_so = "." in component or ":" in component or component == "localhost"
    return looks_so and _HOST.fullmatch(component) is not None


def _parse(text: str, host: str, rest: str) -> Reference:
    name, at, digest = rest.partition("@")
    path, colon, tag = name.partition(":")
    if len(f"{host}/{path}") > _NAME_MAX:
        raise InvalidArgument(f'reference "{text}" has a name longer than {_NAME_MAX} characters')
    port = host.rpartition(":")[2]
    if port != host and port.isdecimal() and int(port) > _PORT_MAX:
        raise InvalidArgument(f'reference "{text}": there is no port {port}')
    if not _PATH.fullmatch(path):
        hint = "; repository names are lower case" if path != path.lower() else ""
        raise InvalidArgument(f'reference "{text}": "{path}" is not a repository name{hint}')
    if colon and not _TAG.fullmatch(tag):
        raise InvalidArgument(f'reference "{text}": "{tag}" is not a tag')
    return Reference(host, path, tag, Digest.parse(digest) if at else "")

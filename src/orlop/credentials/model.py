"""What a registry is told, and how registries are named in credential files."""

from __future__ import annotations

from typing import NamedTuple

# A helper gives this user's name when the secret is an identity token (credential helper protocol).
TOKEN_USER = "<token>"
_DOCKER_HUB = "https://index.docker.io/v1/"
_DOCKER_HOSTS = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})


class Credential(NamedTuple):
    """A name and a password; or an identity token, which buys tokens; or a token as it is sent."""

    username: str = ""
    secret: str = ""
    identity_token: str = ""
    registry_token: str = ""

    def __repr__(self) -> str:
        return f"Credential(username={self.username!r})"  # no secret gets into a log

    def __bool__(self) -> bool:
        return bool(self.secret or self.identity_token or self.registry_token)


def from_pair(username: str, secret: str) -> Credential:
    """What a name and a secret mean that were kept together."""
    if username == TOKEN_USER:
        return Credential(identity_token=secret)
    return Credential(username, secret)


def server_key(registry: str) -> str:
    """How a registry is written in files and asked for: its host; Docker Hub has a name of its own.

    `registry` may come with a scheme and a path, which do not count.
    """
    host = registry.partition("://")[2] or registry
    host = host.partition("/")[0]
    return _DOCKER_HUB if host in _DOCKER_HOSTS else host


def same_place(key: str) -> str:
    """A key of a file in the one spelling that keys are compared in.

    `https://host/v1/`, `http://host` and `host/` are `host`; a path after a bare host is Podman's
    way to name a part of a registry, and stays.
    """
    _, scheme, rest = key.rpartition("://")
    host, _, path = rest.partition("/")
    host = "docker.io" if host in _DOCKER_HOSTS else host
    path = "" if scheme or path.strip("/") in ("v1", "v2") else path.strip("/")
    return f"{host}/{path}" if path else host

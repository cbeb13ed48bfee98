"""Are these credentials good? Asked of a registry itself, without the daemon."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from orlop.client.registries import DEFAULTS
from orlop.credentials import Credential
from orlop.registry import Credentials, Http, find_hosts
from orlop.registry.repository import Repository


def check_credentials(
    registry: str,
    credential: Credential,
    *,
    plain_http: bool = False,
    folders: Sequence[Path] = DEFAULTS,
) -> bool:
    """Whether `registry` (host[:port]) asked for credentials; if so, it took these.

    `folders` have `hosts.toml` files, see `orlop.client.registries`.

    Raises Unauthenticated when it does not take them, Unavailable when it cannot be reached,
    NotFound when it is no registry.
    """
    asked = []

    def answer(host: str, _challenges: object) -> Credentials:
        asked.append(host)
        if credential.registry_token:
            return Credentials(header=f"Bearer {credential.registry_token}")
        return Credentials(
            credential.username, credential.secret, refresh_token=credential.identity_token
        )

    host = find_hosts(folders, registry, "http" if plain_http else "")[-1]  # no mirror: itself
    with Http() as http:
        repository = Repository(host, "", http=http, ask=answer)
        repository.request("GET", host.url("/"), {}).close()
    return bool(asked)

"""Look at an image in its registry, without the daemon."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from orlop.client.auth import Answer
from orlop.client.registries import DEFAULTS
from orlop.oci import reference
from orlop.oci.descriptor import Descriptor
from orlop.registry import Credentials, Http, RegistryClient, find_hosts
from orlop.trust.signers import Signers


def fetch_manifest(
    name: str, *, answer: Answer, plain_http: bool = False, folders: Sequence[Path] = DEFAULTS
) -> tuple[Descriptor, bytes]:
    """The verified manifest or index that the full reference `name` leads to.

    `folders` have `hosts.toml` files, see `orlop.client.registries`.
    """
    with _client(name, answer, plain_http, folders) as client:
        target = client.resolve()
        return target, client.fetch_document(target)


def verify_signature(
    name: str,
    signers: Signers,
    *,
    answer: Answer,
    plain_http: bool = False,
    folders: Sequence[Path] = DEFAULTS,
    match_repository: bool = False,
) -> tuple[Descriptor, str]:
    """What the full reference `name` leads to, and which key or identity signed it.

    Raises PermissionDenied when none did; see `orlop.trust.signatures`.
    """
    from orlop.trust.signatures import verify

    with _client(name, answer, plain_http, folders) as client:
        target = client.resolve()
        return target, verify(client, target, signers, match_repository=match_repository)


@contextmanager
def _client(
    name: str, answer: Answer, plain_http: bool, folders: Sequence[Path]
) -> Iterator[RegistryClient]:
    wanted = reference.parse(name)

    def ask(host: str, _challenges: object) -> Credentials | None:
        found = answer(host, name)
        if found is None:
            return None
        if found.registry_token:
            return Credentials(header=f"Bearer {found.registry_token}")
        return Credentials(found.username, found.secret, refresh_token=found.identity_token)

    hosts = find_hosts(folders, wanted.host, "http" if plain_http else "")
    with Http() as http:
        yield RegistryClient(wanted, http=http, hosts=hosts, ask=ask)

"""Pulls and pushes where Debian's docker-registry wants tokens or passwords."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orlop.client.auth import Answer
from orlop.client.pull import pull_image
from orlop.client.push import push_image
from orlop.credentials import Credential
from orlop.errors import OrlopError, PermissionDenied, Unauthenticated
from tests.daemon_fixture import Orlopd
from tests.patience import patient
from tests.registry_fixture import SECRET, USER, run_registry, skopeo_copy
from tests.token_server import TokenServer, run_token_server

pytestmark = pytest.mark.root


@pytest.fixture
def tokens(tmp_path: Path) -> Iterator[TokenServer]:
    with run_token_server(tmp_path) as server:
        yield server


@pytest.fixture
def guarded(tmp_path: Path, tokens: TokenServer, layout: Path) -> Iterator[str]:
    """A registry that takes tokens of `tokens`, with the small image."""
    with run_registry(tmp_path, auth=tokens.settings) as host:
        skopeo_copy(f"oci:{layout}:latest", f"docker://{host}/test/busybox:latest",
                    f"--dest-creds={USER}:{SECRET}")  # fmt: skip
        tokens.granted.clear()
        yield host


def _answer(credential: Credential) -> Answer:
    return lambda host, name: credential


ME = _answer(Credential(USER, SECRET))


def _pull(orlopd: Orlopd, host: str, answer: Answer | None = ME) -> None:
    with orlopd.connect() as connection:
        pull_image(connection, f"{host}/test/busybox:latest", answer=answer)


def test_one_token_serves_a_pull(orlopd: Orlopd, tokens: TokenServer, guarded: str) -> None:
    _pull(orlopd, guarded)
    assert tokens.granted == [("GET", ["repository:test/busybox:pull"])]
    assert SECRET not in orlopd.log.read_text()


def test_a_public_image_needs_no_name(orlopd: Orlopd, tokens: TokenServer, guarded: str) -> None:
    tokens.public = True
    _pull(orlopd, guarded, None)
    assert len(tokens.granted) == 1


def test_the_oauth2_way(orlopd: Orlopd, tokens: TokenServer, guarded: str) -> None:
    tokens.get = False
    _pull(orlopd, guarded)
    assert [how for how, _ in tokens.granted] == ["password"]


def test_a_refresh_token(orlopd: Orlopd, tokens: TokenServer, guarded: str) -> None:
    _pull(orlopd, guarded, _answer(Credential(identity_token=tokens.new_refresh_token())))
    assert [how for how, _ in tokens.granted] == ["refresh_token"]


def test_a_token_that_is_too_old_is_no_loop(
    orlopd: Orlopd, tokens: TokenServer, guarded: str
) -> None:
    """A server whose clock is wrong gives only tokens that have expired: asked again, and once."""
    tokens.life = -30
    with pytest.raises(OrlopError) as caught:
        _pull(orlopd, guarded)
    assert isinstance(caught.value, Unauthenticated)
    assert guarded in str(caught.value)
    assert len(tokens.granted) <= 2
    tokens.life = 300
    _pull(orlopd, guarded)


@pytest.mark.parametrize("given", [None, _answer(Credential(USER, "not-it"))])
def test_refused(orlopd: Orlopd, tokens: TokenServer, guarded: str, given: Answer | None) -> None:
    began = time.monotonic()
    with pytest.raises((Unauthenticated, PermissionDenied)) as caught:
        _pull(orlopd, guarded, given)
    assert time.monotonic() - began < patient(20)
    assert 1 <= tokens.refused <= 2
    assert "127.0.0.1:" in str(caught.value)
    assert "not-it" not in str(caught.value) + orlopd.log.read_text()


def test_push_asks_for_what_it_needs(orlopd: Orlopd, tokens: TokenServer, guarded: str) -> None:
    _pull(orlopd, guarded)
    name = f"{guarded}/test/busybox:latest"
    tokens.granted.clear()
    with orlopd.connect() as connection:
        push_image(connection, name, f"{guarded}/other/copy:1", answer=ME)
    scopes = {scope for _, each in tokens.granted for scope in each}
    assert "repository:other/copy:pull,push" in scopes
    tokens.public = True
    with orlopd.connect() as connection, pytest.raises(Unauthenticated, match=guarded):
        push_image(connection, name, f"{guarded}/third/copy:1")

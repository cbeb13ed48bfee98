"""Credential files and helpers, as Docker and Podman write them."""

from __future__ import annotations

import base64
import json
import os
import stat
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orlop.credentials import Credential, Keyring
from orlop.credentials.file import CredentialFile
from orlop.credentials.helper import Helper
from orlop.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    OrlopError,
    ResourceExhausted,
    Unknown,
)
from tests.patience import patient

# The protocol's real form: a program. It keeps what it is given in a file.
_HELPER = """#!/usr/bin/env python3
import json, os, sys
path = os.path.join(os.path.dirname(__file__), "kept.json")
kept = json.load(open(path)) if os.path.exists(path) else {}
said = sys.stdin.read()
action = sys.argv[1]
if action == "store":
    entry = json.loads(said)
    kept[entry["ServerURL"]] = entry
elif action == "list":
    print(json.dumps({server: entry["Username"] for server, entry in kept.items()}))
elif said not in kept:
    print("credentials not found in native keychain")
    sys.exit(1)
elif action == "get":
    print(json.dumps(kept[said]))
elif action == "erase":
    del kept[said]
json.dump(kept, open(path, "w"))
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "config.json"


def _write(path: Path, document: object) -> Keyring:
    path.write_text(json.dumps(document))
    return Keyring([path])


def _auth(name: str, secret: str) -> str:
    return base64.b64encode(f"{name}:{secret}".encode()).decode()


def _program(folder: Path, name: str, text: str) -> None:
    path = folder / f"docker-credential-{name}"
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the PATH with the helper `chest`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    _program(folder, "chest", _HELPER)
    return folder


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"auth": _auth("ada", "x:y")}, Credential("ada", "x:y")),
        ({"auth": _auth("ada", "x\0\0")}, Credential("ada", "x")),
        ({"username": "ada", "password": "x"}, Credential("ada", "x")),
        ({"auth": _auth("ada", ""), "identitytoken": "t"},
         Credential("ada", identity_token="t")),
        ({"auth": _auth("<token>", "t")}, Credential(identity_token="t")),
        ({"registrytoken": "r"}, Credential(registry_token="r")),
        ({"auth": ""}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_entries(config: Path, entry: object, expected: Credential | None) -> None:
    assert _write(config, {"auths": {"host:5000": entry}}).find("host:5000") == expected


@pytest.mark.parametrize(
    ("key", "host"),
    [
        ("https://index.docker.io/v1/", "docker.io"),
        ("docker.io", "registry-1.docker.io"),
        ("https://host/v2/", "host"),
        ("http://host:80", "host:80"),
        ("host/", "host"),
        ("host/v1/", "host"),
    ],
)
def test_spellings_of_a_host(config: Path, key: str, host: str) -> None:
    keyring = _write(config, {"auths": {key: {"auth": _auth("ada", "x")}}})
    assert keyring.find(host) == Credential("ada", "x")
    assert keyring.find(f"not-{host}") is None


def test_a_part_of_a_registry(config: Path) -> None:
    entries = {place: {"auth": _auth(place, "x")} for place in ("host", "host/a", "host/a/b")}
    keyring = _write(config, {"auths": entries})
    for repository, place in (
        ("a/b/c", "host/a/b"),
        ("a/c", "host/a"),
        ("ab", "host"),
        ("", "host"),
    ):
        found = keyring.find("host", repository)
        assert found is not None
        assert found.username == place


def test_secrets_are_not_shown() -> None:
    shown = repr(Credential("ada", "hush", "token", "bearer"))
    assert "hush" not in shown
    assert "token'" not in shown
    assert "bearer" not in shown


def test_the_rest_of_the_file_stays(config: Path) -> None:
    text = '{"HttpHeaders": {"b": "1", "a": "2"}, "auths": {"x": {"email": "e"}}, "k": [1]}'
    config.write_text(text)
    config.chmod(0o644)
    keyring = Keyring([config])
    keyring.store("docker.io", Credential("ada", "x"))
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    found = json.loads(config.read_text())
    assert found.pop("auths")["https://index.docker.io/v1/"] == {"auth": _auth("ada", "x")}
    assert list(found) == ["HttpHeaders", "k"]
    assert list(found["HttpHeaders"]) == ["b", "a"]
    assert keyring.erase("registry-1.docker.io")
    assert not keyring.erase("docker.io")
    assert json.loads(config.read_text()) == json.loads(text)
    assert [path.name for path in config.parent.iterdir()] == ["config.json"]


def test_a_link_stays_a_link(tmp_path: Path, config: Path) -> None:
    config.symlink_to(tmp_path / "real.json")
    Keyring([config]).store("host", Credential("ada", "x"))
    assert config.is_symlink()
    assert Keyring([tmp_path / "real.json"]).find("host") == Credential("ada", "x")


def test_later_files_are_read_and_not_written(tmp_path: Path, config: Path) -> None:
    other = tmp_path / "auth.json"
    _write(other, {"auths": {"host": {"auth": _auth("eve", "y")}}})
    before = other.read_bytes()
    keyring = Keyring([config, other])
    assert keyring.find("host") == Credential("eve", "y")
    keyring.store("host", Credential("ada", "x"))
    assert keyring.find("host") == Credential("ada", "x")
    assert other.read_bytes() == before


def test_where_the_files_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "named.json"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    (tmp_path / "run/containers").mkdir(parents=True)
    _write(tmp_path / "named.json", {"auths": {"one": {"auth": _auth("a", "1")}}})
    _write(tmp_path / "run/containers/auth.json", {"auths": {"two": {"auth": _auth("b", "2")}}})
    keyring = Keyring.of_user()
    keyring.store("three", Credential("c", "3"))
    found = [keyring.find(host) for host in ("one", "two", "three")]
    assert found == [Credential("a", "1"), Credential("b", "2"), Credential("c", "3")]
    assert (tmp_path / "docker/config.json").exists()


@pytest.mark.parametrize(
    "text",
    ["[1]", "{", "\xff", '{"auths": []}', '{"auths": {"host": "x"}}',
     '{"auths": {"host": {"auth": "hush!"}}}', '{"auths": {"host": {"auth": "aHVzaA=="}}}',
     '{"auths": {"host": {"auth": 1}}}', '{"credHelpers": {"host": 1}}', '{"credsStore": {"a": 1}}',
     "[" * 100_000],
)  # fmt: skip
def test_malformed_files(config: Path, text: str) -> None:
    config.write_bytes(text.encode("latin-1"))
    with pytest.raises(InvalidArgument, match=r"config\.json.* is malformed") as raised:
        Keyring([config]).find("host")
    assert "hush" not in str(raised.value)
    assert config.read_bytes() == text.encode("latin-1")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
_ENTRY = st.dictionaries(
    st.sampled_from(["auth", "username", "password", "identitytoken", "email"]), _JSON
)
_CONFIG = st.fixed_dictionaries(
    {},
    optional={
        "auths": st.dictionaries(st.sampled_from(["host", "http://host/v1/"]), _ENTRY) | _JSON,
        "credHelpers": st.dictionaries(st.text(), _JSON) | _JSON,
        "else": _JSON,
    },
)


@settings(max_examples=40)
@given(_CONFIG)
def test_any_file_is_read_or_refused_and_keeps_what_is_not_ours(
    tmp_path_factory: pytest.TempPathFactory, document: dict[str, object]
) -> None:
    path = tmp_path_factory.mktemp("any") / "config.json"
    path.write_text(json.dumps(document))
    file = CredentialFile(path)
    try:
        file.find("host")
        file.store("host", Credential("ada", "x"))
    except OrlopError:
        assert json.loads(path.read_text()) == document
        return
    assert file.find("host") == Credential("ada", "x")
    after = json.loads(path.read_text())
    assert {key: after[key] for key in after if key != "auths"} == {
        key: document[key] for key in document if key != "auths"
    }


@settings(max_examples=40)
@given(st.text().filter(lambda name: ":" not in name), st.text(min_size=1))
def test_any_pair_comes_back(
    tmp_path_factory: pytest.TempPathFactory, name: str, secret: str
) -> None:
    file = CredentialFile(tmp_path_factory.mktemp("pair") / "config.json")
    if secret.strip("\0") != secret or name == "<token>":
        return
    file.store("host", Credential(name, secret))
    assert file.find("host") == Credential(name, secret)


def test_a_name_with_a_colon_is_refused(config: Path) -> None:
    with pytest.raises(InvalidArgument, match="colon"):
        Keyring([config]).store("host", Credential("a:b", "x"))
    assert not config.exists()


def test_a_helper_keeps_credentials(config: Path, helper: Path) -> None:
    keyring = _write(config, {"credsStore": "chest"})
    assert keyring.find("docker.io") is None
    assert keyring.store("docker.io", Credential("ada", "hush")) == "docker-credential-chest"
    keyring.store("host", Credential("eve", identity_token="token"))
    assert "hush" not in config.read_text()
    assert keyring.find("docker.io") == Credential("ada", "hush")
    assert keyring.find("host") == Credential(identity_token="token")
    known = Helper("chest").servers()
    assert known == {"https://index.docker.io/v1/": "ada", "host": "<token>"}
    assert keyring.erase("host")
    assert not keyring.erase("host")
    assert keyring.find("host") is None


def test_a_registry_of_its_own_helper(config: Path, helper: Path) -> None:
    keyring = _write(
        config,
        {"credHelpers": {"host": "chest"}, "auths": {"other": {"auth": _auth("eve", "y")}}},
    )
    keyring.store("host", Credential("ada", "x"))
    assert list(json.loads((helper / "kept.json").read_text())) == ["host"]
    assert keyring.find("other") == Credential("eve", "y")


@pytest.mark.parametrize(
    ("script", "error", "words"),
    [
        ("echo hush", InvalidArgument, "something else than"),
        ('echo \'{"Username": 1, "Secret": "hush"}\'', InvalidArgument, "something else than"),
        ("echo the chest is locked; exit 1", Unknown, "the chest is locked"),
        ("exec yes hush", ResourceExhausted, "more than"),
        (f"sleep {patient(30)} >/dev/null", DeadlineExceeded, "within 0.3 seconds"),
        (f"exec >&-; exec sleep {patient(30)}", DeadlineExceeded, "within 0.3 seconds"),
    ],
)
def test_helpers_in_trouble(helper: Path, script: str, error: type[OrlopError], words: str) -> None:
    _program(helper, "bad", f"#!/bin/sh\n{script}\n")
    began = time.monotonic()
    with pytest.raises(error, match=words) as raised:
        Helper("bad", patience=patient(5) if error is not DeadlineExceeded else 0.3).get("host")
    assert time.monotonic() - began < patient(5)
    assert "docker-credential-bad" in str(raised.value)
    assert "hush" not in str(raised.value)


def test_a_helper_that_is_not_there() -> None:
    with pytest.raises(FailedPrecondition, match=r"docker-credential-nowhere.*cannot be run"):
        Helper("nowhere").get("host")
    with pytest.raises(InvalidArgument):
        Helper("../sh")

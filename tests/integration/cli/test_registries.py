"""Credentials, pushes, archives: what the orlop command does with registries and files."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon_fixture import Orlopd, serving
from tests.registry_fixture import SECRET, USER, run_registry, skopeo_copy
from tests.token_server import run_token_server

pytestmark = pytest.mark.root


@pytest.fixture
def locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A registry that wants a password; the user has no credentials yet."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    for name in ("REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "registry"
    folder.mkdir()
    with run_registry(folder, password=True) as host:
        yield host


def test_login_push_pull_logout(orlopd: Orlopd, busybox: str, locked: str, tmp_path: Path) -> None:
    name = f"{locked}/test/busybox:1"
    refused = orlopd.orlop("push", busybox, name, check=False)
    assert refused.returncode == 1
    assert f"`orlop login {locked}`" in refused.stderr
    login = ("login", "-u", USER, "--password-stdin", locked)
    wrong = orlopd.orlop(*login, input="wrong-word\n", check=False)
    assert wrong.returncode == 1
    assert f'"{locked}" does not take the credentials of "{USER}"' in wrong.stderr
    assert "wrong-word" not in wrong.stderr
    config = tmp_path / "docker/config.json"
    assert not config.exists()
    assert str(config) in orlopd.orlop(*login, input=f"{SECRET}\n").stdout
    assert list(json.loads(config.read_text())["auths"]) == [locked]
    assert orlopd.orlop("push", busybox, name).stdout == f"{name}\n"
    assert orlopd.orlop("pull", name).stdout == f"{name}\n"
    orlopd.orlop("rmi", name)
    assert orlopd.orlop("run", "--rm", name, "echo", "hi").stdout == "hi\n"
    orlopd.orlop("logout", locked)
    assert "orlop login" in orlopd.orlop("pull", name, check=False).stderr


def test_credentials_for_one_time(orlopd: Orlopd, busybox: str, locked: str) -> None:
    name = f"{locked}/test/busybox:1"
    assert orlopd.orlop("tag", busybox, name).stdout == f"{name}\n"
    orlopd.orlop("push", "-u", f"{USER}:{SECRET}", name)
    orlopd.orlop("pull", "--creds", f"{USER}:{SECRET}", name)
    wrong = orlopd.orlop("pull", "-u", f"{USER}:wrong-word", name, check=False)
    assert wrong.returncode == 1
    assert "wrong-word" not in wrong.stderr
    assert SECRET not in orlopd.log.read_text()


def test_a_helper_that_fails_is_what_the_error_says(
    orlopd: Orlopd, locked: str, tmp_path: Path
) -> None:
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker/config.json").write_text('{"credsStore": "nowhere"}')
    failed = orlopd.orlop("pull", f"{locked}/test/busybox:1", check=False)
    assert failed.returncode == 1
    assert 'credential helper "docker-credential-nowhere" cannot be run' in failed.stderr


def test_a_helper_gives_credentials(
    orlopd: Orlopd, busybox: str, locked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "docker-credential-chest"
    answer = json.dumps({"ServerURL": locked, "Username": USER, "Secret": SECRET})
    program.write_text(f"#!/bin/sh\necho '{answer}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker/config.json").write_text(json.dumps({"credHelpers": {locked: "chest"}}))
    orlopd.orlop("push", busybox, f"{locked}/test/busybox:1")


def test_login_where_nothing_answers_or_asks(
    orlopd: Orlopd, registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    done = orlopd.orlop("login", "-u", "ada", "-p", "x", registry)
    assert "asks for no credentials" in done.stderr
    for host in ("", "host/path"):
        assert orlopd.orlop("login", "-u", "a", "-p", "x", host, check=False).returncode == 1
    no_terminal = orlopd.orlop("login", "-u", "ada", registry, check=False)
    assert "no terminal" in no_terminal.stderr


def test_save_and_load(orlopd: Orlopd, busybox: str, tmp_path: Path) -> None:
    archive = tmp_path / "images.tar"
    orlopd.orlop("tag", busybox, "other:1")
    orlopd.orlop("save", "-q", "-o", str(archive), busybox, "other:1")
    piped = subprocess.run(
        orlopd.orlop_command("save", "-q", busybox, "other:1"), capture_output=True, check=True
    )
    assert piped.stdout == archive.read_bytes()
    orlopd.orlop("rmi", busybox, "other:1")
    both = {busybox, "docker.io/library/other:1"}
    assert set(orlopd.orlop("load", "-i", str(archive)).stdout.split()) == both
    orlopd.orlop("rmi", *both)
    with archive.open("rb") as stdin:
        subprocess.run(
            orlopd.orlop_command("load"), stdin=stdin, capture_output=True, check=True, timeout=60
        )
    assert orlopd.orlop("run", "--rm", busybox, "echo", "hi").stdout == "hi\n"


def test_load_under_one_name_for_all(orlopd: Orlopd, busybox: str, tmp_path: Path) -> None:
    archive = tmp_path / "images.tar"
    orlopd.orlop("save", "-q", "-o", str(archive), busybox)
    orlopd.orlop("rmi", busybox)
    loaded = orlopd.orlop("load", "-i", str(archive), "--index-name", "all:1").stdout.split()
    assert "docker.io/library/all:1" in loaded
    (shown,) = json.loads(orlopd.orlop("image", "inspect", "all:1").stdout)
    assert shown["media_type"] == "application/vnd.oci.image.index.v1+json"
    assert orlopd.orlop("run", "--rm", "all:1", "echo", "hi").stdout == "hi\n"


def test_an_image_of_a_short_name(orlopd: Orlopd, busybox: str, tmp_path: Path) -> None:
    """As other clients and archives of other tools make them: what the list shows can be used."""
    orlopd.ctr("images", "tag", busybox, "box:1")
    assert orlopd.orlop("run", "--rm", "box:1", "echo", "hi").stdout == "hi\n"
    archive = tmp_path / "box.tar"
    orlopd.orlop("save", "-q", "-o", str(archive), "box:1")
    orlopd.orlop("tag", "box:1", "ours:1")
    assert json.loads(orlopd.orlop("image", "inspect", "box:1").stdout)[0]["name"] == "box:1"
    orlopd.orlop("rmi", "box:1")
    assert orlopd.orlop("load", "-q", "-i", str(archive)).stdout == "box:1\n"
    orlopd.orlop("tag", "ours:1", "box:1")  # docker.io's goes first
    assert json.loads(orlopd.orlop("image", "inspect", "box:1").stdout)[0]["name"] != "box:1"
    orlopd.orlop("rmi", "box:1", "box:1", "ours:1")
    assert orlopd.orlop("image", "inspect", "box:1", check=False).returncode == 1


def test_hosts_of_a_folder(orlopd: Orlopd, busybox: str, registry: str, tmp_path: Path) -> None:
    """A registry that is not there, reached by the mirror that a folder names, for this time."""
    (tmp_path / "elsewhere.test").mkdir()
    (tmp_path / "elsewhere.test/hosts.toml").write_text(
        f'server = "https://127.0.0.1:9"\n[host."http://{registry}"]\n'
        'capabilities = ["pull", "resolve", "push"]\n'
    )
    hosts = ("--hosts-dir", str(tmp_path))
    name = "elsewhere.test/test/busybox:latest"
    assert orlopd.orlop("pull", *hosts, name).stdout == f"{name}\n"
    assert orlopd.orlop("run", "--rm", name, "echo", "hi").stdout == "hi\n"
    pushed = f"elsewhere.test/test/pushed-{os.getpid()}:1"
    assert orlopd.orlop("push", *hosts, busybox, pushed).stdout == f"{pushed}\n"
    inspected = orlopd.orlop("manifest", "inspect", *hosts, pushed).stdout
    assert "layers" in inspected
    assert orlopd.orlop("pull", name.replace("latest", "2"), check=False).returncode == 1


def test_what_asks_a_registry_itself_uses_the_daemons_folder(locked: str, tmp_path: Path) -> None:
    hosts, config, key = tmp_path / "hosts", tmp_path / "config.toml", tmp_path / "key.pub"
    (hosts / "deck.test").mkdir(parents=True)
    (hosts / "deck.test/hosts.toml").write_text(f'server = "http://{locked}"\n')
    config.write_text(f'[registry]\nconfig_path = "{hosts}"\n')
    private = str(tmp_path / "key.pem")
    for made in (["genrsa", "-out", private], ["rsa", "-in", private, "-pubout", "-out", str(key)]):
        subprocess.run(["openssl", *made], check=True, capture_output=True)
    for daemon in serving(["--config", str(config)]):
        login = ("login", "-u", USER, "--password-stdin", "deck.test")
        assert "logged in to deck.test" in daemon.orlop(*login, input=f"{SECRET}\n").stdout
        for command in (("manifest", "inspect"), ("image", "verify", "--key", str(key))):
            missing = daemon.orlop(*command, "deck.test/nothing:1", check=False)
            assert f'registry "{locked}" wants credentials' in missing.stderr


def test_an_identity_token(
    orlopd: Orlopd, layout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`orlop login` with the token's own name; it is kept as one, and buys tokens."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    with run_token_server(tmp_path) as tokens, run_registry(tmp_path, auth=tokens.settings) as host:
        skopeo_copy(f"oci:{layout}:latest", f"docker://{host}/test/busybox:latest",
                    f"--dest-creds={USER}:{SECRET}")  # fmt: skip
        tokens.granted.clear()
        token = tokens.new_refresh_token()
        login = ("login", "-u", "<token>", "--password-stdin", host)
        assert orlopd.orlop(*login, input="wrong\n", check=False).returncode == 1
        orlopd.orlop(*login, input=f"{token}\n")
        kept = json.loads((tmp_path / "docker/config.json").read_text())["auths"][host]
        assert kept["identitytoken"] == token
        orlopd.orlop("pull", f"{host}/test/busybox:latest")
        orlopd.orlop("push", f"{host}/test/busybox:latest", f"{host}/test/copy:1")
        assert {how for how, _ in tokens.granted} == {"refresh_token"}
        assert token not in orlopd.log.read_text()


def test_a_save_that_fails_leaves_no_file(orlopd: Orlopd, busybox: str, tmp_path: Path) -> None:
    archive = tmp_path / "images.tar"
    archive.write_text("before")
    failed = orlopd.orlop("save", "-o", str(archive), busybox, "nothing:1", check=False)
    assert failed.returncode == 1
    assert "not found" in failed.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["images.tar"]
    assert archive.read_text() == "before"
    assert "cannot be written" in orlopd.orlop(
        "save", "-o", str(tmp_path / "no/where"), busybox, check=False
    ).stderr  # fmt: skip
    assert "cannot be read" in orlopd.orlop("load", "-i", "/no/where", check=False).stderr


def test_progress(orlopd: Orlopd, registry: str) -> None:
    name = f"{registry}/test/busybox:latest"
    events = [
        json.loads(line)
        for line in orlopd.orlop("pull", "--progress", "json", name).stderr.splitlines()
    ]
    assert all(list(event) == ["event", "name", "done", "total", "digest"] for event in events)
    assert events[-1]["event"] == f"Completed pull from {name}"
    assert any(event["event"] == "complete" and event["total"] for event in events)
    plain = orlopd.orlop("pull", name).stderr.splitlines()
    assert plain[-1] == f"Completed pull from {name}"
    assert any("already exists (" in line for line in plain)
    for option in ("-q", "--progress=none"):
        assert orlopd.orlop("pull", option, name).stderr == ""
    assert "\x1b[" not in orlopd.orlop("pull", name).stderr


def test_groups_and_help(orlopd: Orlopd, busybox: str) -> None:
    assert orlopd.orlop("image", "ls", "-q").stdout == f"{busybox}\n"
    assert "ls" in orlopd.orlop("image", check=False).stdout
    assert orlopd.orlop("image", "no-such", check=False).returncode == 2
    assert "login" in orlopd.orlop("--help").stdout
    assert orlopd.orlop("image", "rm", busybox).stdout == f"{busybox}\n"

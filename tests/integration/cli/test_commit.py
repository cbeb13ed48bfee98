"""Images of containers, and what containers have changed, by the orlop command."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orlop.client import Connection, images, leases
from orlop.wire.services import tasks_pb2
from orlop.wire.task_types_pb2 import RUNNING
from tests.daemon_fixture import Orlopd

pytestmark = pytest.mark.root

SCRIPT = """
echo new > /new; mkdir /folder; echo in > /folder/file; ln /new /folder/twin
rm /etc/group; echo x >> /etc/passwd; rm -r /home 2>/dev/null; mkdir -p /home/new
sleep 1000
"""


@pytest.fixture
def busy(orlopd: Orlopd, busybox: str) -> Iterator[str]:
    """A container that has changed this and that, and runs on."""
    options = ("-e", "CARGO=tea", "-w", "/tmp", "--label", "ship=hispaniola")
    orlopd.orlop("run", "-d", "--name", "busy", *options, busybox, "sh", "-c", SCRIPT)
    orlopd.wait_for(lambda: "/home/new" in orlopd.orlop("diff", "busy").stdout)
    yield "busy"
    orlopd.orlop("rm", "-f", "busy", check=False)


def _config(orlopd: Orlopd, name: str) -> dict[str, Any]:
    with orlopd.connect() as connection:
        return images.config(connection, images.get(connection, images.full_name(name)))


def _running(orlopd: Orlopd, name: str) -> bool:
    with orlopd.connect() as connection:
        request = tasks_pb2.GetRequest(container_id=name)
        return bool(connection.tasks.get(request).process.status == RUNNING)


def test_diff(orlopd: Orlopd, busy: str) -> None:
    lines = orlopd.orlop("diff", busy).stdout.splitlines()
    wanted = ["C /etc", "D /etc/group", "C /etc/passwd", "A /folder", "A /folder/file"]
    assert [line for line in lines if line in wanted] == wanted
    assert {"A /new", "A /folder/twin", "A /home/new"} <= set(lines)
    orlopd.orlop("stop", "-t", "0.1", busy)
    assert orlopd.orlop("diff", busy).stdout.splitlines() == lines
    assert 'container "nobody"' in orlopd.orlop("diff", "nobody", check=False).stderr


def test_diff_of_a_folder_that_was_replaced(orlopd: Orlopd, busybox: str) -> None:
    command = "mv /etc /old; mkdir /etc; echo x > /etc/passwd; touch /$(printf '\\033]0;b')"
    orlopd.orlop("run", "--name", "moved", busybox, "sh", "-c", command)
    lines = orlopd.orlop("diff", "moved").stdout.splitlines()
    assert {"C /etc", "C /etc/passwd", "D /etc/group", "A /old", "A /old/group"} <= set(lines)
    assert "A /?]0;b" in lines  # a name says nothing to the terminal
    orlopd.orlop("rm", "moved")


def test_commit(orlopd: Orlopd, busy: str) -> None:
    """The new image has the container's files and settings; the container runs on."""
    changes = ("ENV PORT=80 HOST='a b'", "EXPOSE 80 53/udp", "LABEL a=b", "WORKDIR sub",
        'CMD ["cat", "/new"]')  # fmt: skip
    options = [word for change in changes for word in ("--change", change)]
    made = orlopd.orlop("commit", "-a", "Long John", "-m", "a word", *options, busy, "crew:1")
    assert re.fullmatch(r"sha256:[0-9a-f]{64}\n", made.stdout)
    assert _running(orlopd, busy)
    config = _config(orlopd, "crew:1")
    settings = config["config"]
    assert settings["Cmd"] == ["cat", "/new"]
    assert {"CARGO=tea", "PORT=80", "HOST=a b"} <= set(settings["Env"])
    assert not [entry for entry in settings["Env"] if entry.startswith("HOME=")]
    assert settings["ExposedPorts"] == {"80/tcp": {}, "53/udp": {}}
    assert settings["Labels"] == {"ship": "hispaniola", "a": "b"}
    assert settings["WorkingDir"] == "/tmp/sub"
    assert config["author"] == "Long John"
    step = config["history"][-1]
    assert (step["author"], step["comment"]) == ("Long John", "a word")
    assert step["created_by"].startswith("sh -c")
    assert "a word" in orlopd.orlop("image", "history", "crew:1").stdout
    assert orlopd.orlop("run", "--rm", "crew:1").stdout == "new\n"
    seen = orlopd.orlop("run", "--rm", "crew:1", "sh", "-c", "ls /etc/group; stat -c %h /new")
    assert seen.stdout == "2\n"


def test_commit_again_and_again(orlopd: Orlopd, busybox: str) -> None:
    """One image on the other, the same name each time; an empty layer only in history."""
    name = busybox
    for number in range(3):
        orlopd.orlop("run", "--name", "job", name, "sh", "-c", f"echo {number} >> /log")
        name = "logged"
        orlopd.orlop("commit", "job", name)
        orlopd.orlop("rm", "job")
    assert orlopd.orlop("run", "--rm", "logged", "cat", "/log").stdout == "0\n1\n2\n"
    job = ("run", "--name", "job", "--network", "host", "logged")
    orlopd.orlop(*job, "cat", "/etc/hosts", "/etc/resolv.conf")
    assert orlopd.orlop("diff", "job").stdout == ""  # the files of its network are no changes
    orlopd.orlop("commit", "--message", "one", "job", "same")
    after = _config(orlopd, "same")
    assert after["rootfs"] == _config(orlopd, "logged")["rootfs"]
    assert after["history"][-1]["empty_layer"] is True
    orlopd.orlop("rm", "job")
    orlopd.orlop(*job, "sh", "-c", "rm /etc/group; touch /etc/motd")
    assert orlopd.orlop("diff", "job").stdout == "C /etc\nD /etc/group\nA /etc/motd\n"
    orlopd.orlop("rm", "job")


def test_a_layer_goes_before_its_image_is_unpacked(
    orlopd: Orlopd, busybox: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was there when it was looked for, and not held yet by who unpacks what is above it."""
    orlopd.orlop("run", "--name", "job", busybox, "touch", "/one")
    orlopd.orlop("commit", "job", "second:1")
    orlopd.orlop("rm", "job")
    there = images._has_snapshot

    def has_snapshot(connection: Connection, snapshotter: str, key: str) -> bool:
        found = there(connection, snapshotter, key)
        if found:
            monkeypatch.setattr(images, "_has_snapshot", there)
            orlopd.orlop("rmi", busybox)
            leases.collect(connection)
            assert not there(connection, snapshotter, key)
        return found

    monkeypatch.setattr(images, "_has_snapshot", has_snapshot)
    with orlopd.connect() as connection:
        images.view(connection, images.get(connection, "docker.io/library/second:1"))
        assert images._has_snapshot is there
    assert orlopd.orlop("run", "--rm", "second:1", "ls", "/one").stdout == "/one\n"


def test_commit_without_a_name_or_a_pause(orlopd: Orlopd, busy: str) -> None:
    name = orlopd.orlop("commit", "--pause=false", busy).stdout.strip()
    assert re.fullmatch(r"docker\.io/library/commit@sha256:[0-9a-f]{64}", name)
    assert orlopd.orlop("run", "--rm", name, "cat", "/new").stdout == "new\n"


def test_a_committed_image_can_be_pushed_and_saved(
    orlopd: Orlopd, busy: str, registry: str, tmp_path: Path
) -> None:
    orlopd.orlop("commit", busy, f"{registry}/test/crew:1")
    orlopd.orlop("push", "--plain-http", f"{registry}/test/crew:1")
    orlopd.orlop("save", "-o", str(tmp_path / "crew.tar"), f"{registry}/test/crew:1")
    orlopd.orlop("rmi", f"{registry}/test/crew:1")
    orlopd.orlop("pull", "--plain-http", f"{registry}/test/crew:1")
    shown = orlopd.orlop("run", "--rm", f"{registry}/test/crew:1", "cat", "/folder/file")
    assert shown.stdout == "in\n"


def test_refusals(orlopd: Orlopd, busy: str, busybox: str, tmp_path: Path) -> None:
    for change, text in (
        ("COPY a b", 'change "COPY a b" is not one of CMD'),
        ("ENV x", '"x" is not KEY=VALUE'),
        ("EXPOSE high", '"high" is not PORT'),
    ):
        refused = orlopd.orlop("commit", "-c", change, busy, "no", check=False)
        assert text in refused.stderr
    assert "no" not in orlopd.orlop("images", "-q").stdout.split("/")
    orlopd.ctr("images", "tag", busybox, "docker.io/library/copy:1")
    orlopd.orlop("rmi", busybox)
    refused = orlopd.orlop("commit", busy, "no", check=False)
    assert f'image "{busybox}" of container "busy" is not here any more' in refused.stderr
    (tmp_path / "bin").mkdir()
    orlopd.ctr("containers", "create", "--rootfs", str(tmp_path), "bare", "true")
    for verb in ("diff", "commit"):
        refused = orlopd.orlop(verb, "bare", check=False)
        assert 'container "bare"' in refused.stderr
    orlopd.ctr("containers", "rm", "bare")


def test_a_paused_container_stays_so(orlopd: Orlopd, busy: str) -> None:
    orlopd.orlop("pause", busy)
    orlopd.orlop("commit", busy, "asleep")
    assert not _running(orlopd, busy)
    orlopd.orlop("unpause", busy)

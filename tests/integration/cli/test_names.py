"""What containers are called and how lists show them."""

from __future__ import annotations

import json

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from orlop.client import ports
from orlop.wire.services import containers_pb2
from tests.daemon_fixture import Orlopd

pytestmark = pytest.mark.root


def test_a_name_moves_on(orlopd: Orlopd, busybox: str) -> None:
    orlopd.orlop("run", "-d", "--name", "web", busybox, "sleep", "1000")
    orlopd.orlop("rename", "web", "web-old")
    assert orlopd.orlop("exec", "web-old", "echo", "hi").stdout == "hi\n"
    assert orlopd.orlop("ps", "--format", "{{.ID}} {{.Names}}").stdout == "web web-old\n"
    new = orlopd.orlop("run", "-d", "--name", "web", busybox, "sleep", "2000").stdout.strip()
    assert new != "web"
    shown = json.loads(orlopd.orlop("inspect", "web").stdout)[0]
    assert (shown["Id"], shown["Name"]) == (new, "web")
    assert "sleep 2000" in orlopd.orlop("top", "web").stdout
    for taken in "web", "web-old":
        refused = orlopd.orlop("run", "--name", taken, busybox, check=False)
        assert (refused.returncode, "already exists" in refused.stderr) == (125, True)
        refused = orlopd.orlop("rename", "web", taken, check=False)
        assert (refused.returncode, "already exists" in refused.stderr) == (1, True)
    orlopd.orlop("rm", "-f", "web")
    orlopd.orlop("rename", "web-old", "web")
    assert "lower case" not in orlopd.orlop("rename", "web", "a b", check=False).stdout
    assert orlopd.orlop("ps", "-a", "--format", "{{.ID}} {{.Names}}").stdout == "web web\n"
    orlopd.orlop("rm", "-f", "web")


def test_the_beginning_of_a_name_will_do(orlopd: Orlopd, busybox: str) -> None:
    for name in "alpha", "alphabet", "beta":
        orlopd.orlop("run", "--name", name, busybox, "true")
    assert json.loads(orlopd.orlop("inspect", "b").stdout)[0]["Name"] == "beta"
    assert json.loads(orlopd.orlop("inspect", "alpha").stdout)[0]["Name"] == "alpha"
    refused = orlopd.orlop("rm", "alp", check=False)
    assert '"alp" begins the names of several containers: alpha, alphabet' in refused.stderr
    assert 'container "": not found' in orlopd.orlop("rm", "", check=False).stderr
    orlopd.orlop("rm", "alpha", "alphabet", "beta")


def test_lists(orlopd: Orlopd, busybox: str) -> None:
    orlopd.orlop("run", "-d", "--name", "up", "-l", "deck=orlop", busybox, "sleep", "1000")
    orlopd.orlop("run", "--name", "down", busybox, "sh", "-c", "exit 3", check=False)

    def names(*flags: str) -> list[str]:
        return orlopd.orlop("ps", "--format", "{{.Names}}", *flags).stdout.split()

    assert names() == ["up"]
    assert names("-a") == ["down", "up"]
    assert names("-l") == ["down"]
    assert names("-n", "5") == ["down", "up"]
    assert names("-f", "status=exited") == ["down"]
    assert names("-f", "exited=3", "-f", "name=ow") == ["down"]
    assert names("-f", "label=deck=orlop", "-f", f"ancestor={busybox}") == ["up"]
    assert names("-a", "-f", "id=u", "-f", "id=d") == ["down", "up"]
    assert "is not KEY=VALUE" in orlopd.orlop("ps", "-f", "x=y", check=False).stderr
    rows = [
        json.loads(line)
        for line in orlopd.orlop("ps", "-a", "--format", "json").stdout.splitlines()
    ]
    assert [row["State"] for row in rows] == ["exited", "running"]
    assert rows[1]["Status"].startswith("Up ")
    assert orlopd.orlop("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "down", "up"
                        ).stdout == "exited 3\nrunning 0\n"  # fmt: skip
    assert orlopd.orlop("inspect", "--type", "image", "up", check=False).returncode == 1
    orlopd.orlop("rm", "-f", "up", "down")


def test_ports_that_a_label_tells(orlopd: Orlopd, busybox: str) -> None:
    orlopd.orlop("run", "--name", "one", busybox, "true")
    assert orlopd.orlop("port", "one").stdout == ""
    mapping = [
        {"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "127.0.0.1"},
        {"hostPort": 53, "containerPort": 53, "protocol": "UDP", "hostIP": "::1"},
    ]
    with orlopd.connect() as connection:
        record = containers_pb2.Container(id="one", labels={ports.LABEL: json.dumps(mapping)})
        connection.containers.update(
            containers_pb2.UpdateContainerRequest(
                container=record, update_mask=FieldMask(paths=[f"labels.{ports.LABEL}"])
            )
        )
    assert orlopd.orlop("port", "one").stdout == ("53/udp -> [::1]:53\n80/tcp -> 127.0.0.1:8080\n")
    assert orlopd.orlop("port", "one", "80").stdout == "127.0.0.1:8080\n"
    assert orlopd.orlop("port", "one", "81", check=False).returncode == 1
    orlopd.orlop("rm", "one")


def test_a_stop_timeout_of_its_own(orlopd: Orlopd, busybox: str) -> None:
    flags = ("--stop-timeout", "0", "--name", "stubborn")
    orlopd.orlop("run", "-d", *flags, busybox, "sleep", "1000")
    orlopd.orlop("stop", "stubborn")
    assert orlopd.orlop("wait", "stubborn").stdout == "137\n"
    orlopd.orlop("rm", "stubborn")

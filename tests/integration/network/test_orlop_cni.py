"""`orlop-cni`: others' containers in our networks, by CNI."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orlop.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, OrlopError
from orlop.network.cni import Attachment, Cni, NetworkConfig, Plugins, Results, parsing
from orlop.network.cni.runner import VALID
from orlop.wire.services import network_pb2 as wire
from tests.daemon_fixture import BUSYBOX
from tests.integration.network.lab import Host, Lab, run, snapshot
from tests.integration.network.networked import Networked, fetch, refused

HERE = Path(sys.executable).parent
ROOT = Path(__file__).parents[3]


class Box:
    """A host in the place of another runtime's container, to be attached by our plugin."""

    def __init__(self, daemon: Networked, lab: Lab, name: str, folder: Path) -> None:
        self.host = lab.host()
        self.cni = Cni(Plugins([HERE]), Results(folder))
        self.name = name
        self._daemon = daemon

    def network(self, **fields: Any) -> NetworkConfig:
        """The example, with this test's daemon."""
        example = ROOT / "contrib" / "cni" / "10-orlop.conflist"
        config: dict[str, Any] = json.loads(example.read_text())
        config["plugins"][0] |= {
            "address": self._daemon.address,
            "namespace": self._daemon.namespace,
            **fields,
        }
        return parsing.network(config)

    def attachment(self, ifname: str = "eth0", **capabilities: Any) -> Attachment:
        return Attachment(
            container_id=self.name, ifname=ifname, netns=self.host.ns, capabilities=capabilities
        )

    def serve(self, folder: Path) -> subprocess.Popen[bytes]:
        (folder / "index.html").write_text(self.name)
        serving = ["busybox", "httpd", "-f", "-p", "80", "-h", str(folder)]
        return subprocess.Popen(self.host.command(*serving))


@pytest.fixture
def box(daemon: Networked, lab: Lab, tmp_path: Path) -> Box:
    return Box(daemon, lab, "guest", tmp_path / "cache")


def _places(daemon: Networked, network: str = "bridge") -> list[str]:
    with daemon.connect() as connection:
        request = wire.InspectRequest(network=network)
        return [each.container_id for each in connection.networks.inspect(request).endpoints]


def test_a_guest_is_in_the_network_until_it_leaves(
    daemon: Networked, outside: Host, box: Box, tmp_path: Path
) -> None:
    daemon.box("web")
    network = box.network()
    mapping = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}
    asked: dict[str, Any] = {
        "portMappings": [mapping],
        "ips": ["10.88.3.3/20"],
        "mac": "02:00:00:00:00:07",
    }
    attachment = box.attachment(**asked)
    result = box.cni.add(network, attachment)
    cable = result["interfaces"][1]["name"]
    assert result == {
        "cniVersion": "1.1.0",
        "interfaces": [
            {"name": "orlop0"},
            {"name": cable},
            {"name": "eth0", "mac": "02:00:00:00:00:07", "sandbox": box.host.ns},
        ],
        "ips": [{"address": "10.88.3.3/20", "gateway": "10.88.0.1", "interface": 2}],
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.88.0.1"}],
        "dns": {},
    }
    box.cni.check(network, attachment)
    box.cni.status(network)
    with box.serve(tmp_path) as serving:
        try:
            daemon.wait_for(lambda: fetch("http://10.88.3.3") == "guest")
            assert fetch("http://192.168.7.1:8080", outside) == "guest"
            address = daemon.address_of("web")
            assert fetch(f"http://{address}", box.host) == "web"
            box.host.run("busybox", "ping", "-c", "1", "-W", "5", "192.168.7.2")
            with pytest.raises(AlreadyExists):
                box.cni.add(network, attachment)
            config = {**network.plugins[0].config, "name": "orlop", "cniVersion": "1.0.0"}
            with pytest.raises(OrlopError, match=r"already exists \(code 100\)"):
                box.cni.plugins.call("ADD", "orlop-cni", config, attachment)
            assert fetch("http://10.88.3.3") == "guest"
        finally:
            serving.kill()
    box.cni.delete(network, attachment)
    box.cni.delete(network, attachment)
    assert _places(daemon) == ["web"]
    assert "eth0" not in box.host.run("ip", "link").stdout
    with pytest.raises(FailedPrecondition):
        box.cni.check(network, attachment)


def test_no_status_is_good_without_a_packet_filter(
    daemon: Networked, box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box.cni.status(box.network())
    daemon.stop()
    (tmp_path / "libnftables.so.1").write_text("what is no library is not loaded")
    for program in ("iptables-save", "iptables-restore"):
        (tmp_path / program).symlink_to("/bin/false")
    with monkeypatch.context() as without:
        without.setenv("LD_LIBRARY_PATH", str(tmp_path))
        without.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        daemon.start()
    with pytest.raises(OrlopError, match=r"no packet filter works here: .* \(code 50\)"):
        box.cni.status(box.network())
    daemon.stop()
    daemon.start()
    box.cni.status(box.network())


def test_the_words_of_go_cni_are_understood(daemon: Networked, box: Box) -> None:
    """nerdctl and kubelet send them, with names of fields as Go has them."""
    network = box.network(capabilities={"portMappings": True, "dns": True})
    mapping = {"HostPort": 8080, "ContainerPort": 80, "Protocol": "TCP", "HostIP": "0.0.0.0"}
    none = {"HostPort": 0, "ContainerPort": 81, "Protocol": "udp", "HostIP": ""}
    dns = {"Servers": ["10.9.9.9"], "Searches": ["lab.test"], "Options": None}
    attachment = box.attachment(portMappings=[mapping, none], dns=dns)
    result = box.cni.add(network, attachment)
    assert result["dns"] == {"nameservers": ["10.9.9.9"], "search": ["lab.test"]}
    with daemon.connect() as connection:
        request = wire.InspectRequest(container_id="cni:orlop/guest/eth0")
        (port,) = connection.networks.inspect(request).ports
    assert (port.host_port, port.container_port, port.protocol) == (8080, 80, "tcp")
    box.cni.delete(network, attachment)


def test_a_guest_s_rate_is_limited(daemon: Networked, box: Box) -> None:
    network = box.network()
    none = (1 << 32) - 1  # as runtimes send it for kubelet
    asked = {"IngressRate": 5_000_000, "IngressBurst": none, "EgressRate": 3_000_000}
    box.cni.add(network, box.attachment(bandwidth={**asked, "EgressBurst": none}))
    assert "rate 5Mbit" in run("tc", "qdisc", "show").stdout
    assert "rate 3Mbit" in box.host.run("tc", "qdisc", "show", "dev", "eth0").stdout
    box.cni.delete(network, box.attachment())
    bursts = {"ingressBurst": 800_000, "egressRate": 3_000_000, "egressBurst": 1_600_000}
    box.cni.add(network, box.attachment(bandwidth={"ingressRate": 5_000_000, **bursts}))
    (place,) = daemon.inspect("cni:orlop/guest/eth0").endpoints
    assert place.rates == wire.Rates(rate_in=5_000_000, rate_out=3_000_000, burst=200_000)
    box.cni.delete(network, box.attachment())


def test_a_guest_outlives_the_daemon_but_not_its_namespace(
    daemon: Networked, lab: Lab, box: Box, tmp_path: Path
) -> None:
    other = Box(daemon, lab, "gone", tmp_path / "cache")
    network = box.network()
    mapping = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}
    box.cni.add(network, box.attachment(portMappings=[mapping]))
    other.cni.add(network, other.attachment())
    assert sorted(_places(daemon)) == ["cni:orlop/gone/eth0", "cni:orlop/guest/eth0"]
    daemon.kill9()
    lab.hosts.remove(other.host)
    other.host.close()
    daemon.wait_for(lambda: len(run("ip", "-br", "link", "show", "master", "orlop0")
                                .stdout.splitlines()) == 1)  # fmt: skip
    daemon.start()
    daemon.wait_for(lambda: _places(daemon) == ["cni:orlop/guest/eth0"])
    done = daemon.box("second", ports=[{"hostPort": 8080, "containerPort": 80}], check=False)
    assert "taken" in done.stderr
    with box.serve(tmp_path) as serving:
        try:
            daemon.wait_for(lambda: fetch("http://192.168.7.1:8080") == "guest")
        finally:
            serving.kill()
    box.cni.check(network, box.attachment())
    box.host.run("ip", "link", "del", "eth0")
    with pytest.raises(OrlopError, match=r'"orlop-cni" \(CHECK\): .* is no more on bridge'):
        box.cni.check(network, box.attachment())
    box.cni.delete(network, box.attachment())
    assert refused("http://192.168.7.1:8080")
    with daemon.connect() as connection:
        connection.networks.delete(wire.DeleteNetworkRequest(name="bridge"))


def test_gc_takes_out_all_but_the_valid_of_its_own_group(daemon: Networked, box: Box) -> None:
    network = box.network()
    elsewhere = parsing.network({**parsing.load(network.text), "name": "elsewhere"})
    for name in ("eth0", "eth1"):
        box.cni.add(network, box.attachment(name))
    box.cni.add(elsewhere, box.attachment("eth2"))
    box.cni.collect(network, [("guest", "eth1"), ("unknown", "eth0")])
    assert _places(daemon) == ["cni:elsewhere/guest/eth2", "cni:orlop/guest/eth1"]
    routes = box.host.run("ip", "route").stdout
    assert "eth1 proto static metric 1" in routes and "eth2 proto static metric 2" in routes
    config = {**network.plugins[0].config, "name": "orlop", "cniVersion": "1.1.0"}
    malformed: list[object] = [False, 0, "", {}]
    tries: list[tuple[dict[str, object], int, int]] = [({}, 1, 2)]
    tries += [({VALID: each}, 1, 2) for each in malformed]
    tries += [({VALID: None}, 0, 1)]  # null is nobody, for libcni
    for valid, code, left in tries:
        done = subprocess.run(
            [HERE / "orlop-cni"],
            input=json.dumps({**config, **valid}),
            env={"CNI_COMMAND": "GC", "CNI_PATH": str(HERE)},
            text=True,
            check=False,
        )
        assert done.returncode == code and len(_places(daemon)) == left
    box.cni.collect(elsewhere, [])
    assert _places(daemon) == []


def test_what_cannot_be_done_is_told_by_the_spec_s_codes(daemon: Networked, box: Box) -> None:
    before = snapshot()
    for fields, text in (
        ({"network": "none"}, r'network "none": not found \(code 7\)'),
        ({"address": "/none"}, r"cannot reach orlopd .* \(code 11\)"),
        ({"network": 5}, r"network must be a text \(code 7\)"),
    ):
        with pytest.raises(OrlopError, match=rf'"orlop-cni" \(ADD\): .*{text}'):
            box.cni.add(box.network(**fields), box.attachment())
        box.cni.results.remove("orlop", box.attachment())  # whose DEL fails as well
    with pytest.raises(OrlopError, match=r'"orlop-cni" \(STATUS\): .*\(code 50\)'):
        box.cni.status(box.network(address="/none"))
    with pytest.raises(OrlopError, match=r'"none": not found \(code 50\)'):
        box.cni.status(box.network(network="none"))
    with pytest.raises(OrlopError, match=r"10\.1\.1\.1.* \(code 7\)"):
        box.cni.add(box.network(), box.attachment(ips=["10.1.1.1"]))
    with pytest.raises(OrlopError, match=r"mapping|malformed|KeyError"):
        box.cni.add(box.network(), box.attachment(portMappings=[{}]))
    lost = Attachment(container_id="guest", ifname="eth0", netns="/run/netns/none")
    with pytest.raises(OrlopError, match="/run/netns/none"):
        box.cni.add(box.network(), lost)
    box.cni.delete(box.network(), lost)
    assert _places(daemon) == []
    after = snapshot()
    assert [line for line in after["links"] if "veth" in line] == [
        line for line in before["links"] if "veth" in line
    ]


@pytest.mark.parametrize(
    ("env", "text", "code"),
    [
        ({}, "{}", 4),
        ({"CNI_COMMAND": "DO"}, "{}", 4),
        ({"CNI_COMMAND": "ADD"}, '{"cniVersion": "1.0.0"}', 4),
        ({"CNI_COMMAND": "STATUS"}, "{", 6),
        ({"CNI_COMMAND": "STATUS"}, "[]", 6),
        ({"CNI_COMMAND": "STATUS"}, '{"cniVersion": "0.1.0"}', 1),
    ],
)
def test_calls_that_are_not_cni_s_are_refused(env: dict[str, str], text: str, code: int) -> None:
    where = {"PATH": os.environ["PATH"], **env}
    done = subprocess.run(
        [HERE / "orlop-cni"], input=text, env=where, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and json.loads(done.stdout)["code"] == code, done


def test_ctr_run_with_cni_works(daemon: Networked, outside: Host, tmp_path: Path) -> None:
    """Debian's ctr reads fixed folders, which are the test's own in a mount namespace."""
    config = json.loads((ROOT / "contrib" / "cni" / "10-orlop.conflist").read_text())
    config["plugins"][0] |= {"address": daemon.address, "namespace": daemon.namespace}
    for folder in ("etc", "opt", "var/lib"):
        (tmp_path / folder / "upper" / "cni").mkdir(parents=True)
        (tmp_path / folder / "work").mkdir()
    net_d, plugins = (
        tmp_path / "etc" / "upper" / "cni" / "net.d",
        tmp_path / "opt" / "upper" / "cni" / "bin",
    )
    net_d.mkdir()
    plugins.mkdir()
    (net_d / "10-orlop.conflist").write_text(json.dumps(config))
    for name, target in (("orlop-cni", HERE / "orlop-cni"), ("loopback", "/usr/lib/cni/loopback")):
        (plugins / name).symlink_to(target)
    overlay = (
        "mount -t overlay overlay -o lowerdir=/{0},upperdir={1}/{0}/upper,workdir={1}/{0}/work /{0}"
    )
    script = " && ".join(
        [*(overlay.format(each, tmp_path) for each in ("etc", "opt", "var/lib")), 'exec "$@"']
    )
    command = daemon.ctr_command(
        "run", "--rm", "--cni", BUSYBOX, "box", "sh", "-c",
        "ip -o addr show eth0; ping -c 1 -W 5 192.168.7.2",
    )  # fmt: skip
    done = run("unshare", "--mount", "sh", "-c", script, "sh", *command)
    assert "10.88." in done.stdout and "1 packets received" in done.stdout, done.stdout
    assert _places(daemon) == []


def test_attachments_of_nobody_are_not_found(daemon: Networked) -> None:
    guest = wire.NamespaceID(group="x", id="y", interface="eth0")
    with daemon.connect() as connection:
        connection.networks.detach_namespace(wire.DetachNamespaceRequest(id=guest))
        with pytest.raises(NotFound, match='attachment "cni:x/y/eth0"'):
            request = wire.CheckNamespaceRequest(id=guest, netns="/proc/self/ns/net")
            connection.networks.check_namespace(request)
        with pytest.raises(InvalidArgument, match='network namespace "" is no absolute path'):
            connection.networks.check_namespace(wire.CheckNamespaceRequest(id=guest))


def test_only_a_bridge_network_takes_guests(daemon: Networked, box: Box) -> None:
    subnet = ("--subnet", "10.9.0.0/24", "-o", "parent=lo")
    daemon.orlop("network", "create", "-d", "macvlan", *subnet, "phys")
    with pytest.raises(OrlopError, match='network "phys" is one of macvlan'):
        box.cni.add(box.network(network="phys"), box.attachment())

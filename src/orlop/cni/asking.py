"""The commands of CNI as calls of orlopd's network service."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from orlop.cli.protobuf import defer_pure_python
from orlop.cni import answers
from orlop.cni.answers import Problem
from orlop.errors import InvalidArgument, NotFound, OrlopError, Unavailable

defer_pure_python()

from orlop.client.connection import (  # noqa: E402 - after what it would load
    DEFAULT_ADDRESS,
    DEFAULT_NAMESPACE,
    Connection,
)
from orlop.wire.services import network_pb2 as wire  # noqa: E402

_NETWORK = "bridge"
_VALID = "cni.dev/valid-attachments"
_NO_BURST = (1 << 31) - 1
"""From here on nobody has chosen it: kubelet has no word for it, and runtimes send the largest."""
_DNS = {"servers": "nameservers", "searches": "search", "options": "options"}


def ask(command: str, env: Mapping[str, str], config: dict[str, Any]) -> dict[str, Any] | None:
    """Do what a runtime asks for; the answer, None for none. Raises Problem."""
    try:
        address, namespace = _text(config, "address"), _text(config, "namespace")
        with Connection(address or DEFAULT_ADDRESS, namespace or DEFAULT_NAMESPACE) as connection:
            return _Asking(connection, env, config).do(command)
    except OrlopError as error:
        raise Problem(_code(error, command), error.message) from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Problem(answers.BAD_CONFIG, "the configuration is malformed", repr(error)) from None


def _code(error: OrlopError, command: str) -> int:
    if command == "STATUS":
        return answers.NOT_AVAILABLE
    match error:
        case Unavailable():
            return answers.TRY_AGAIN
        case InvalidArgument() | NotFound() if command == "ADD":
            return answers.BAD_CONFIG
        case _:
            return answers.REFUSED


def _text(config: Mapping[str, Any], key: str) -> str:
    value = config.get(key, "")
    if not isinstance(value, str):
        raise Problem(answers.BAD_CONFIG, f"{key} must be a text")
    return value


class _Asking:
    """One command, on a connection."""

    def __init__(
        self, connection: Connection, env: Mapping[str, str], config: Mapping[str, Any]
    ) -> None:
        self._networks = connection.networks
        self._env = env
        self._config = config
        self._group = _text(config, "name")
        self._network = _text(config, "network") or _NETWORK
        self._netns = env.get("CNI_NETNS", "")

    def do(self, command: str) -> dict[str, Any] | None:
        match command:
            case "ADD":
                return self._add()
            case "DEL":
                self._networks.detach_namespace(wire.DetachNamespaceRequest(id=self._id()))
            case "CHECK":
                self._check()
            case "GC":
                self._keep(self._config[_VALID])
            case "STATUS":
                self._ask_for_status()
        return None

    def _id(self) -> wire.NamespaceID:
        return wire.NamespaceID(
            group=self._group,
            id=self._env["CNI_CONTAINERID"],
            interface=self._env["CNI_IFNAME"],
        )

    def _add(self) -> dict[str, Any]:
        asked = self._config.get("runtimeConfig") or {}
        said = dict(each.partition("=")[::2] for each in self._env.get("CNI_ARGS", "").split(";"))
        wished = [*asked.get("ips", ()), *filter(None, [said.get("IP")])]
        by_family = {":" in each: each.partition("/")[0] for each in reversed(wished)}
        request = wire.AttachNamespaceRequest(
            id=self._id(),
            netns=self._netns,
            network=self._network,
            ip=by_family.get(False, ""),
            ip6=by_family.get(True, ""),
            mac=asked.get("mac") or said.get("MAC", ""),
            ports=_ports(asked.get("portMappings") or ()),
            rates=_rates(asked.get("bandwidth") or {}),
        )
        dns = _dns(asked.get("dns") or {}) or self._config.get("dns") or {}
        found = self._networks.attach_namespace(request)
        return answers.result(found, self._config["cniVersion"], self._netns, dns)

    def _check(self) -> None:
        request = wire.CheckNamespaceRequest(id=self._id(), netns=self._netns)
        found = self._networks.check_namespace(request).endpoint
        before = {
            each["address"].partition("/")[0]
            for each in (self._config.get("prevResult") or {}).get("ips", ())
        }
        if missing := [each for each in found.addresses if each not in before]:
            text = f"{', '.join(missing)} not in prevResult"
            raise Problem(answers.REFUSED, "addresses are not those of the result", text)

    def _keep(self, valid: Sequence[Mapping[str, str]] | None) -> None:
        if valid is None:  # as libcni says for nobody
            valid = ()
        elif not isinstance(valid, list):
            raise Problem(answers.BAD_CONFIG, f"{_VALID} must be a list")
        ids = [wire.NamespaceID(id=each["containerID"], interface=each["ifname"]) for each in valid]
        self._networks.keep_namespaces(wire.KeepNamespacesRequest(group=self._group, ids=ids))

    def _ask_for_status(self) -> None:
        for each in self._networks.check(wire.CheckNetworkRequest(network=self._network)).flaws:
            raise Problem(answers.NOT_AVAILABLE, each.text)


def _ports(mappings: Iterable[Mapping[str, Any]]) -> Iterator[wire.Port]:
    """Port mappings; a port 0 of the host is none, as the plugin portmap has it."""
    for each in map(_lowered, mappings):
        inside, address = each["containerport"], each.get("hostip") or ""
        if each.get("hostport"):
            yield wire.Port(
                container_port=inside,
                host_port=each["hostport"],
                protocol=(each.get("protocol") or "tcp").lower(),
                host_address="" if address in ("0.0.0.0", "::") else address,
            )


def _rates(asked: Mapping[str, Any]) -> wire.Rates:
    """A runtime's limits, all of them in bits; we have one burst, in bytes, for both directions."""
    found = _lowered(asked)
    bursts = [found.get(f"{way}burst") or 0 for way in ("ingress", "egress")]
    said = [each // 8 for each in bursts if each < _NO_BURST]
    return wire.Rates(
        rate_in=found.get("ingressrate") or 0,
        rate_out=found.get("egressrate") or 0,
        burst=max(said, default=0),
    )


def _dns(asked: Mapping[str, Any]) -> dict[str, Any]:
    """A runtime's wishes for DNS, by the keys that a result has for them."""
    found = _lowered(asked)
    return {ours: found[theirs] for theirs, ours in _DNS.items() if found.get(theirs)}


def _lowered(found: Mapping[str, Any]) -> dict[str, Any]:
    """The words of go-cni begin with a capital letter (HostPort), those of others do not."""
    return {key.lower(): value for key, value in found.items()}

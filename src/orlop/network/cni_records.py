"""What CNI remembers, in the words of networks of containers, and the other way round."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any

import msgspec

from orlop.errors import InvalidArgument
from orlop.network.cni import Attachment, NetworkConfig, converting
from orlop.network.cni.model import Json
from orlop.network.cni.results import Remembered
from orlop.network.model import Endpoint, Network, Port, Rates, Wish
from orlop.network.ports import Key

PREFIX = "cni:"
"""What the name of a network of kind `cni` begins with; no record's can."""
_PORTS = "portMappings"


class Resolver(msgspec.Struct, frozen=True):
    """What networks say of names: for /etc/resolv.conf."""

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


NO_RESOLVER = Resolver()


def is_cni(network: str) -> bool:
    return network.startswith(PREFIX)


def network(config: NetworkConfig, namespace: str) -> Network:
    name = f"{PREFIX}{config.name}"
    return Network(id=name, name=name, namespace=namespace, driver="cni")


def container_id(namespace: str, container: str) -> str:
    """One for all namespaces: neither part has two such signs in a row."""
    return f"{namespace}--{container}"


def owner(known: Remembered) -> Key | None:
    """Whose an attachment is; None for one that is none of ours."""
    note = known.note
    if not isinstance(note.get("namespace"), str) or not isinstance(note.get("container"), str):
        return None
    return note["namespace"], note["container"]


def capabilities(
    config: NetworkConfig, wish: Wish, resolver: Resolver = NO_RESOLVER
) -> dict[str, Any]:
    """The wish as arguments of capabilities; InvalidArgument for one that no plugin would hear.

    But aliases and the resolver are in the container's own files in any case.
    """
    found: dict[str, Any] = {}
    if wish.ip or wish.ip6:
        found["ips"] = [each for each in (wish.ip, wish.ip6) if each]
    if wish.mac:
        found["mac"] = wish.mac
    if wish.rates.rate_in or wish.rates.rate_out:
        found["bandwidth"] = _bandwidth(wish.rates)
    for each in found:
        require(config, each)
    if wish.aliases and "aliases" in config.capabilities:
        found["aliases"] = list(wish.aliases)
    if resolver != NO_RESOLVER and "dns" in config.capabilities:
        found["dns"] = {
            "servers": list(resolver.servers),
            "searches": list(resolver.search),
            "options": list(resolver.options),
        }
    return found


def _bandwidth(rates: Rates) -> dict[str, int]:
    """All of it in bits; the plugin wants to be told how many at once."""
    found: dict[str, int] = {}
    for key, rate in (("ingress", rates.rate_in), ("egress", rates.rate_out)):
        if rate:
            found |= {f"{key}Rate": rate, f"{key}Burst": 8 * rates.burst or max(rate // 10, 1)}
    return found


def require(config: NetworkConfig, capability: str) -> None:
    """Raise InvalidArgument if none of the network's plugins has a capability."""
    if capability not in config.capabilities:
        raise InvalidArgument(
            f'CNI network "{config.name}" has no plugin with the capability "{capability}"'
        )


def mappings(ports: Sequence[Port]) -> dict[str, Any]:
    """Published ports as arguments of a capability, which knows no ranges."""
    return {
        _PORTS: [
            {
                "hostPort": each.host_port + step,
                "containerPort": each.container_port + step,
                "protocol": each.protocol,
                **({"hostIP": each.host_address} if each.host_address else {}),
            }
            for each in ports
            for step in range(each.count)
        ]
    }


def ports(known: Remembered) -> list[Port]:
    """The ports that lead to an attachment."""
    return [
        Port(
            container_port=each["containerPort"],
            host_port=each["hostPort"],
            protocol=each["protocol"],
            host_address=each.get("hostIP", ""),
        )
        for each in known.attachment.capabilities.get(_PORTS, ())
    ]


def endpoint(known: Remembered, key: Key) -> Endpoint:
    """An attachment as a place in a network."""
    result = known.result or {}
    interfaces: list[Json] = result.get("interfaces") or []
    name = known.attachment.ifname
    ours = [each for each in interfaces if each.get("sandbox") and each.get("name") == name]
    outside = [str(each.get("name", "")) for each in interfaces if not each.get("sandbox")]
    return Endpoint(
        namespace=key[0],
        container=key[1],
        network=f"{PREFIX}{known.network}",
        position=known.note.get("position", 0),
        link=outside[-1] if outside else "",
        inside=name,
        mac=str(ours[0].get("mac", "")) if ours else "",
        aliases=tuple(known.note.get("aliases", ())),
        addresses=tuple(
            str(ipaddress.ip_interface(each["address"]).ip) for each in converting.inside(result)
        ),
    )


def gateway(known: Remembered) -> str:
    """The first gateway of an attachment, "" without one."""
    found = converting.inside(known.result or {})
    return next((str(each["gateway"]) for each in found if each.get("gateway")), "")


def resolver(known: Remembered) -> Resolver:
    """What the result of an attachment says of names."""
    dns = (known.result or {}).get("dns") or {}
    search = _texts(dns.get("search")) or _texts([dns["domain"]] if dns.get("domain") else [])
    return Resolver(_texts(dns.get("nameservers")), search, _texts(dns.get("options")))


def _texts(found: Any) -> tuple[str, ...]:
    return tuple(map(str, found)) if isinstance(found, list) else ()


def attachment(key: Key, position: int, asked: dict[str, Any], netns: str) -> Attachment:
    return Attachment(
        container_id=container_id(*key),
        ifname=f"eth{position}",
        netns=netns,
        # What runtimes tell plugins that do not know a capability.
        args=(("IgnoreUnknown", "1"),),
        capabilities=asked,
    )

"""What `orlop run` can be told about the network, and the labels that follow from it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from orlop.cli import options
from orlop.client import Connection, containers, networks, ports
from orlop.errors import FailedPrecondition, InvalidArgument

_PLAIN = ("none", "host")
_FACTORS = {"k": 1000, "m": 1000**2, "g": 1000**3}
_PROTOCOLS = ("tcp", "udp", "sctp")


class Choice(NamedTuple):
    """The network namespace of a container's spec, and the labels by which it is connected.

    `hostname` is that of the container whose network it shares.
    """

    namespace: str = "none"
    labels: Mapping[str, str] = {}
    hostname: str = ""


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--net", "--network", action="append", default=[], metavar="NETWORK",
        help="a name, cni:NAME, host, none, container:NAME, netns:NAME (the daemon's)")  # fmt: skip
    add("--ip", default="", metavar="ADDRESS", help="its address in the first network")
    add("--ip6", default="", metavar="ADDRESS", help="its address of IPv6 there")
    add("--mac-address", default="", metavar="MAC", help="its hardware address there")
    add("--network-alias", action="append", default=[], metavar="NAME", help="another name of it")
    add("--network-rate-in", type=rate, default=0, metavar="RATE",
        help="bits in a second that it gets at most in each network, as 10mbit")  # fmt: skip
    add("--network-rate-out", type=rate, default=0, metavar="RATE",
        help="bits in a second that it sends at most")  # fmt: skip
    add("--network-burst", type=options.memory, default=0, metavar="SIZE",
        help="bytes at once (default: of a tenth of a second)")  # fmt: skip
    add("-p", "--publish", action="append", default=[],
        metavar="[[ADDRESS:]PORT:]PORT[/PROTOCOL]",
        help="have a port of the host, or a range, lead to it")  # fmt: skip
    add("-P", "--publish-all", action="store_true", help="publish all ports that the image names")
    add("--add-host", action="append", default=[], metavar="NAME:ADDRESS",
        help="a line of /etc/hosts; host-gateway is the host")  # fmt: skip
    add("--dns", action="append", default=[], metavar="ADDRESS", help="a name server")
    add("--dns-search", action="append", default=[], metavar="DOMAIN", help="a domain to search")
    add("--dns-option", "--dns-opt", action="append", default=[], metavar="OPTION",
        help="an option of resolv.conf")  # fmt: skip


def choose(args: argparse.Namespace, connection: Connection, config: Mapping[str, Any]) -> Choice:
    """What the options ask for, of an image with that config; InvalidArgument for nonsense."""
    wanted = args.net or [networks.default(connection)]
    published = [mapping for text in args.publish for mapping in published_by(text)]
    if args.publish_all:
        published += [
            mapping for text in config.get("ExposedPorts") or () for mapping in published_by(text)
        ]
    resolver = {"dns": args.dns, "dns_search": args.dns_search, "dns_options": args.dns_option}
    wishes: dict[str, Any] = {
        key: value for key, value in {**resolver, "hosts": args.add_host}.items() if value
    }
    namespace, mode, hostname = _namespace(wanted, connection)
    if mode == "networks":
        wishes["networks"] = _places(args, wanted)
    else:
        _refuse_places(args, wanted[0], published)
        if mode == "none" and not wishes and args.net != ["none"]:
            return Choice(namespace)
    labels = {networks.LABEL: json.dumps({"mode": mode, **wishes}, separators=(",", ":"))}
    if published:
        labels[ports.LABEL] = json.dumps(published, separators=(",", ":"))
    return Choice(namespace, labels, hostname)


def _namespace(wanted: Sequence[str], connection: Connection) -> tuple[str, str, str]:
    """The namespace for the spec, the mode for the label, and whose network it is: a host name."""
    first = wanted[0]
    kind, colon, name = first.partition(":")
    special = first in _PLAIN or (colon and kind in ("container", "netns"))
    if special and len(wanted) > 1:
        raise InvalidArgument(f'--network "{first}" excludes others')
    if first in _PLAIN:
        return first, first, ""
    if special and kind == "container":
        other = containers.get(connection, name)
        hostname = str(containers.spec_of(other).get("hostname") or "")
        return "none", f"container:{other.id}", hostname
    if special:
        return networks.netns_path(connection, name), "none", ""
    return "none", "networks", ""


def _places(args: argparse.Namespace, wanted: Sequence[str]) -> list[dict[str, Any]]:
    places: list[dict[str, Any]] = [{"network": name} for name in wanted]
    chosen = {"ip": args.ip, "ip6": args.ip6, "mac": args.mac_address}
    places[0] |= {key: value for key, value in chosen.items() if value}
    rates = {"rate_in": args.network_rate_in, "rate_out": args.network_rate_out,
             "burst": args.network_burst}  # fmt: skip
    if any(rates.values()):
        for place in places:
            place["rates"] = rates
    if args.network_alias:
        for place in places:
            place["aliases"] = args.network_alias
    return places


def _refuse_places(
    args: argparse.Namespace, network: str, published: Sequence[Mapping[str, Any]]
) -> None:
    given = {
        "--ip": args.ip,
        "--ip6": args.ip6,
        "--mac-address": args.mac_address,
        "--network-alias": args.network_alias,
        "--network-rate-in": args.network_rate_in,
        "--network-rate-out": args.network_rate_out,
        "--publish": published,
    }
    for option, value in given.items():
        if value and (option != "--publish" or network != "host"):
            if not args.net:
                raise FailedPrecondition(f"{option}: this daemon has no network for containers")
            raise InvalidArgument(f'{option} makes no sense with --network "{network}"')


def rate(text: str) -> int:
    """The bits in a second of `10mbit`, as tc(8) reads it; a plain number is of bits."""
    number = text.lower().removesuffix("bit")
    factor = _FACTORS.get(number[-1:], 0)
    if factor:
        number = number[:-1]
    if not number.isdecimal() or not int(number):
        raise argparse.ArgumentTypeError(f'"{text}" is no rate as 500kbit, 10mbit or 1gbit')
    return int(number) * (factor or 1)


def published_by(text: str) -> list[dict[str, Any]]:
    """The CNI port mappings of `[[ADDRESS:]PORT:]PORT[/PROTOCOL]`, as Docker reads it.

    A range for a single port is where a free one is looked for.
    """
    rest, _, protocol = text.partition("/")
    protocol = protocol or "tcp"
    if protocol not in _PROTOCOLS:
        raise InvalidArgument(f'port "{text}": protocol is none of {", ".join(_PROTOCOLS)}')
    rest, colon, inside = rest.rpartition(":")
    address, outside = "", ""
    if colon:
        address, _, outside = rest.rpartition(":")
    first, count = _range(text, inside)
    mapping: dict[str, Any] = {"containerPort": first, "protocol": protocol}
    if address:
        mapping["hostIP"] = address.strip("[]")
    if not outside:  # any port of the host, for each
        return [{**mapping, "containerPort": first + step, "hostPort": 0} for step in range(count)]
    host, host_count = _range(text, outside)
    if count == 1 and host_count > 1:
        return [{**mapping, "hostPort": host, "hostPortEnd": host + host_count - 1}]
    if host_count != count:
        raise InvalidArgument(f'port "{text}": the ranges differ in length')
    mapping["hostPort"] = host
    return [{**mapping, "count": count} if count > 1 else mapping]


def _range(text: str, part: str) -> tuple[int, int]:
    """The first number of `N` or `N-M`, and how many there are."""
    begin, dash, end = part.partition("-")
    if not begin.isascii() or not begin.isdigit() or (dash and not end.isdigit()):
        raise InvalidArgument(f'port "{text}" is not [[ADDRESS:]PORT:]PORT[/PROTOCOL]')
    first, last = int(begin), int(end) if dash else int(begin)
    if not 1 <= first <= last <= 65535:
        raise InvalidArgument(f'port "{text}": ports are 1 to 65535, the lower one first')
    return first, last - first + 1

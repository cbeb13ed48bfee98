"""`orlop network inspect`: show all about networks, as JSON."""

from __future__ import annotations

import argparse
import json
from typing import Any

from orlop.client import Connection, networks


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--check", action="store_true",
        help="look for what is wrong with it and who is in it, too; by CNI's plugins for theirs; "
        "it fails if there is something")  # fmt: skip
    parser.add_argument("network", nargs="+")


def run(args: argparse.Namespace, connection: Connection) -> int:
    found = [_view(connection, name) for name in args.network]
    if args.check:
        for each in found:
            each["Flaws"] = networks.flaws(connection, each["Id"])
    print(json.dumps(found, indent=4))
    return int(any(each.get("Flaws") for each in found))


def _view(connection: Connection, name: str) -> dict[str, Any]:
    found = networks.get(connection, name)
    return {
        "Name": found.name,
        "Id": found.id,
        "Created": found.created_at.ToJsonString() if found.HasField("created_at") else "",
        "Driver": found.driver,
        "Internal": found.internal,
        "Bridge": found.bridge,
        "Mode": found.mode,
        "Mtu": found.mtu,
        "IPAM": {
            "Config": [
                {
                    "Subnet": each.subnet,
                    "Gateway": each.gateway,
                    **({"IPRange": each.ip_range} if each.ip_range else {}),
                    **({"AuxiliaryAddresses": dict(each.reserved)} if each.reserved else {}),
                }
                for each in found.subnets
            ]
        },
        "Containers": {
            each.container_id: {
                "Addresses": list(each.addresses),
                "MacAddress": each.mac,
                "Interface": each.interface,
                "HostInterface": each.host_interface,
                "Aliases": list(each.aliases),
            }
            for each in networks.inspect(connection, network=found.id).endpoints
        },
        "Labels": dict(found.labels),
    }

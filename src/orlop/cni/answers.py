"""What a plugin answers: results, and errors with the codes of the spec, section 5."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orlop.wire.services.network_pb2 import AttachNamespaceResponse

VERSIONS = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
_WITHOUT_FAMILY = ("1.0.0", "1.1.0")

BAD_VERSION = 1
BAD_ENVIRONMENT = 4
CANNOT_DECODE = 6
BAD_CONFIG = 7
TRY_AGAIN = 11
NOT_AVAILABLE = 50
REFUSED = 100
"""The first code that is a plugin's own: the daemon has refused."""


class Problem(Exception):
    """What becomes the answer of a plugin that has failed."""

    def __init__(self, code: int, text: str, details: str = "") -> None:
        super().__init__(text)
        self.answer = {"code": code, "msg": text, **({"details": details} if details else {})}


def result(
    found: AttachNamespaceResponse, version: str, netns: str, dns: dict[str, Any]
) -> dict[str, Any]:
    """The result of ADD, in the version that the runtime speaks."""
    endpoint, network = found.endpoint, found.network
    subnets = {":" in each.subnet: each for each in network.subnets}
    ips, routes = [], []
    for address in endpoint.addresses:
        six = ":" in address
        subnet = subnets[six]
        prefix = subnet.subnet.partition("/")[2]
        ip = {"address": f"{address}/{prefix}", "gateway": subnet.gateway, "interface": 2}
        ips.append(ip if version in _WITHOUT_FAMILY else {"version": "6" if six else "4", **ip})
        if not network.internal:
            routes.append({"dst": "::/0" if six else "0.0.0.0/0", "gw": subnet.gateway})
    return {
        "cniVersion": version,
        "interfaces": [
            {"name": network.bridge},
            {"name": endpoint.host_interface},
            {"name": endpoint.interface, "mac": endpoint.mac, "sandbox": netns},
        ],
        "ips": ips,
        "routes": routes,
        "dns": dns,
    }

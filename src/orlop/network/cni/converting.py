"""Results of plugins: what they say, and the same in the words of another version of the spec."""

from __future__ import annotations

import ipaddress
from typing import Any

from orlop.errors import InvalidArgument
from orlop.network.cni import versions
from orlop.network.cni.model import Json

_OLD_INTERFACE = ("name", "mac", "sandbox")
_OLD_ROUTE = ("dst", "gw")
_LISTS = ("interfaces", "ips", "routes")


def check(result: Any, version: str) -> Json:
    """The result that a plugin has given, of `version` if it does not tell; InvalidArgument."""
    if not isinstance(result, dict):
        raise InvalidArgument("its result is no JSON object")
    told = result.get("cniVersion") or version
    if told not in versions.SUPPORTED:
        raise InvalidArgument(f'its result is of version "{told}"')
    for key in _LISTS:
        entries = result.get(key) or []
        if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
            raise InvalidArgument(f"{key} of its result are no list of objects")
    for each in result.get("ips") or []:
        _version_of(each)
        index = each.get("interface")
        known = len(result.get("interfaces") or [])
        if index is not None and not (isinstance(index, int) and 0 <= index < known):
            raise InvalidArgument(f"an address of its result is of interface {index}")
    if not isinstance(result.get("dns") or {}, dict):
        raise InvalidArgument("dns of its result is no object")
    return {**result, "cniVersion": told}


def convert(result: Json, version: str) -> Json:
    """A checked result in another version: what that has no word for is left out."""
    if result["cniVersion"] == version:
        return result
    found = {**result, "cniVersion": version}
    modern = versions.at_least(version, "1.0.0")
    if "ips" in result:
        found["ips"] = [_address(each, modern=modern) for each in result["ips"] or []]
    if not modern:
        for key, kept in (("interfaces", _OLD_INTERFACE), ("routes", _OLD_ROUTE)):
            if key in result:
                found[key] = [
                    {name: each[name] for name in kept if name in each}
                    for each in result[key] or []
                ]
    return found


def _address(each: Json, *, modern: bool) -> Json:
    plain = {key: value for key, value in each.items() if key != "version"}
    return plain if modern else {"version": _version_of(each), **plain}


def _version_of(each: Json) -> str:
    try:
        return str(ipaddress.ip_interface(each.get("address")).version)  # type: ignore[arg-type]
    except ValueError as error:
        raise InvalidArgument(f"an address of its result: {error}") from None


def inside(result: Json) -> list[Json]:
    """The addresses of a result that are in the container: of its interfaces, or of none."""
    interfaces = result.get("interfaces") or []
    return [
        each
        for each in result.get("ips") or []
        if each.get("interface") is None or interfaces[each["interface"]].get("sandbox")
    ]

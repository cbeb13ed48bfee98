"""Who is called what, as each container sees it: names are those of its own networks."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from orlop.network.dns.messages import Entry, Place

Key = tuple[str, str]
_SHORT_ID = 12
_LABEL_MAX = 63


class Table:
    """The containers of all networks. Names are found whatever their case.

    As long as `state` is the same, so is what is said of any name.
    """

    def __init__(self) -> None:
        self.state = 0
        self._entries: dict[Key, Entry] = {}
        self._askers: dict[tuple[str, str], Key] = {}
        self._names: dict[tuple[str, str], dict[Key, tuple[str, ...]]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def keys(self) -> set[Key]:
        return set(self._entries)

    def put(self, entry: Entry) -> None:
        """Add a container, or change what is known of it."""
        key = entry.key
        self.drop(key)
        self._entries[key] = entry
        for place in entry.places:
            for address in place.addresses:
                self._askers[place.network, address] = key
            for name in _names(entry, place):
                self._names.setdefault((place.network, name), {})[key] = place.addresses

    def drop(self, key: Key) -> None:
        """Forget a container; fine if it is not known."""
        self.state += 1
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        for place in entry.places:
            for address in place.addresses:
                if self._askers.get((place.network, address)) == key:
                    del self._askers[place.network, address]
            for name in _names(entry, place):
                found = self._names[place.network, name]
                found.pop(key, None)
                if not found:
                    del self._names[place.network, name]

    def asker(self, network: str, address: str) -> Entry | None:
        """The container with this address in a network."""
        key = self._askers.get((network, address))
        return self._entries[key] if key is not None else None

    def addresses(self, asker: Entry, name: str) -> list[str]:
        """Those of the containers that `asker` knows by a name, or by `NAME.NETWORK`.

        Empty if there is no such name. Who comes first takes turns.
        """
        found = list(self._found(asker, name.lower()))
        if len(found) > 1:
            self.state += 1
            begin = self.state % len(found)
            found = found[begin:] + found[:begin]
        return list(dict.fromkeys(address for each in found for address in each))

    def _found(self, asker: Entry, name: str) -> Iterator[tuple[str, ...]]:
        for place in asker.places:
            yield from self._names.get((place.network, name), {}).values()
            rest = name.removesuffix(f".{place.network_name.lower()}")
            if rest != name:
                yield from self._names.get((place.network, rest), {}).values()

    def name(self, asker: Entry, address: str) -> str | None:
        """What the container with this address is called; "" for one of nobody in a network of
        the asker's, None for one of another network.
        """
        for place in asker.places:
            key = self._askers.get((place.network, address))
            if key is not None:
                return self._name_in(key, place)
        where = ipaddress.ip_address(address)
        subnets = (each for place in asker.places for each in place.subnets)
        return "" if any(where in ipaddress.ip_network(each) for each in subnets) else None

    def _name_in(self, key: Key, place: Place) -> str:
        entry = self._entries[key]
        found = (*filter(is_name, entry.names), entry.container[:_SHORT_ID])
        return f"{found[0]}.{place.network_name}"


def _names(entry: Entry, place: Place) -> set[str]:
    found = {entry.container, entry.container[:_SHORT_ID], *entry.names, *place.aliases}
    return {each.lower().rstrip(".") for each in found if is_name(each)}


def is_name(text: str) -> bool:
    """Whether DNS can say it: parts of 1 to 63 bytes (RFC 1035, 2.3.4)."""
    return all(0 < len(part.encode()) <= _LABEL_MAX for part in text.rstrip(".").split("."))

"""A container's own /etc/hosts and /etc/resolv.conf follow it into its networks, and out of them.

What was written is remembered beside them in the bundle, so that nothing else is changed: they are
mounted, and the container may have added lines to the one, and made the other its own.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from orlop import typed
from orlop.errors import OrlopError
from orlop.network import files, resolvconf
from orlop.network.connections import Connections
from orlop.network.hosts_files import amended
from orlop.network.model import Endpoint
from orlop.network.wishes import Wishes

_GIVEN = "network.json"
_log = logging.getLogger(__name__)


class Given(msgspec.Struct, frozen=True):
    """What a container's files are made of, besides its networks; and what was written last."""

    hostname: str
    wishes: Wishes
    texts: Mapping[str, str]


class OwnFiles:
    """Makes and keeps them in the bundles of `folder`. Thread-safe."""

    def __init__(self, folder: Path, connections: Connections) -> None:
        self._folder = folder
        self._connections = connections
        self._lock = threading.Lock()

    def texts(
        self,
        namespace: str,
        container: str,
        hostname: str,
        wishes: Wishes,
        endpoints: Sequence[Endpoint],
    ) -> dict[str, str]:
        """By their names the files of a container that is in these places."""
        wishes = self._completed(namespace, container, wishes)
        on_host = wishes.mode == "host"
        found = {
            "hosts": files.hosts(
                hostname,
                [address for each in endpoints for address in each.addresses],
                [alias for each in endpoints for alias in each.aliases],
                wishes,
                self._gateway(namespace, container, endpoints),
                of_host=on_host,
            ),
            "resolv.conf": resolvconf.text(wishes, self._name_servers(endpoints), loopback=on_host),
        }
        if hostname:
            found["hostname"] = f"{hostname}\n"
        return found

    def _completed(self, namespace: str, container: str, wishes: Wishes) -> Wishes:
        """With what plugins of CNI have said of names."""
        found = self._connections.cni.resolver(namespace, container)
        return msgspec.structs.replace(
            wishes,
            dns=wishes.dns or found.servers,
            dns_search=wishes.dns_search or found.search,
            dns_options=wishes.dns_options or found.options,
        )

    def _gateway(self, namespace: str, container: str, endpoints: Sequence[Endpoint]) -> str:
        for each in endpoints:
            for subnet in self._connections.network_of(each).subnets:
                return subnet.gateway
        return self._connections.cni.gateway(namespace, container)

    def _name_servers(self, endpoints: Sequence[Endpoint]) -> list[str]:
        """Where the names of containers are answered: first where the way out is."""
        networks = [self._connections.network_of(each) for each in endpoints]
        asked = sorted(networks, key=lambda each: each.internal)
        return [each.subnets[0].gateway for each in asked if each.is_bridge]

    def remember(self, bundle: Path, given: Given) -> None:
        """Have the files in a bundle, which have just been written, follow from now on."""
        new = bundle / f".{_GIVEN}"
        new.write_bytes(msgspec.json.encode(given))
        new.chmod(0o600)
        new.replace(bundle / _GIVEN)

    def follow(self, namespace: str, container: str) -> None:
        """A container is in other networks than before, or they have told more.

        Names are a service to it: what is wrong with its files is logged.
        """
        try:
            with self._lock:
                self._follow(namespace, container)
        except FileNotFoundError:
            pass  # it has none of ours, or is just removed
        except (OSError, OrlopError, msgspec.MsgspecError) as error:
            _log.warning("namespace=%s container=%s files: %s", namespace, container, error)

    def _follow(self, namespace: str, container: str) -> None:
        bundle = self._folder / namespace / container
        given = typed.decode((bundle / _GIVEN).read_bytes(), Given)
        places = self._connections.endpoints(namespace, container)
        texts = self.texts(namespace, container, given.hostname, given.wishes, places)
        if texts == given.texts:
            return
        before, now = ({key: each.encode() for key, each in of.items()}
                       for of in (given.texts, texts))  # fmt: skip
        files.edit(bundle / "hosts", lambda text: amended(text, before["hosts"], now["hosts"]))
        key = "resolv.conf"
        files.edit(bundle / key, lambda text: now[key] if text == before[key] else text)
        self.remember(bundle, msgspec.structs.replace(given, texts=texts))

    def follow_all(self) -> None:
        """Make up for what an earlier daemon has not come to."""
        for path in self._folder.glob(f"*/*/{_GIVEN}"):
            self.follow(path.parent.parent.name, path.parent.name)

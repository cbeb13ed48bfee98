"""Networks of kind `cni`: containers attached to the networks that configuration files describe.

What the library remembers on disk is the record: it is written before the first plugin is run, and
goes when DEL has been done.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec

from orlop.errors import AlreadyExists, FailedPrecondition, NotFound, OrlopError
from orlop.events import Publisher
from orlop.network import cni_records as records
from orlop.network.cni import Attachment, Cni, Configurations, NetworkConfig, Results
from orlop.network.cni.results import Remembered
from orlop.network.cni.runner import remembered_network
from orlop.network.cni_records import NO_RESOLVER, PREFIX, Resolver
from orlop.network.model import Endpoint, Network, Port, Wish
from orlop.network.namespaces import is_pinned
from orlop.network.ports import Key
from orlop.network.processes import Process
from orlop.sys.mount import MNT_DETACH, MS_BIND, UMOUNT_NOFOLLOW, mount, unmount
from orlop.turns import Turns
from orlop.wire.services.network_pb2 import NetworkAttach, NetworkDetach

_log = logging.getLogger(__name__)
_AT_ONCE = 8


class _Wanted(NamedTuple):
    """An attachment to come, when the container has a network namespace."""

    config: NetworkConfig
    attachment: Attachment
    note: dict[str, object]


class CniNetworks:
    """Which containers are attached to which CNI networks. Thread-safe.

    While a container is attached its network namespace is pinned below `pins`, so that DEL finds
    it though all its processes have ended. `others` are the results of other runtimes, whose
    attachments GC must leave alone.
    """

    def __init__(
        self,
        cni: Cni,
        configurations: Configurations,
        pins: Path,
        publisher: Publisher,
        others: Results | None = None,
    ) -> None:
        self._cni = cni
        self._configurations = configurations
        self._pins = pins
        self._publisher = publisher
        self._others = others
        self._turns = Turns()
        self._lock = threading.Lock()
        self._begun: set[Key] = set()  # what may be or come to be attached
        self._wanted: dict[Key, list[_Wanted]] = {}
        self._attached: dict[Key, list[Remembered]] = {}
        self._pool = ThreadPoolExecutor(_AT_ONCE, "cni")
        cni.results.drop_halves()
        for each in cni.results.all():
            key = records.owner(each)
            if key is not None:
                self._begun.add(key)
                self._attached.setdefault(key, []).append(each)

    def stop(self) -> None:
        """End plugins that run, and start no more: whoever waits for one is held up no longer.

        The next daemon finishes what they have left.
        """
        self._cni.plugins.close()

    def close(self) -> None:
        self.stop()
        self._pool.shutdown(cancel_futures=True)

    # Networks

    def networks(self, namespace: str) -> list[Network]:
        """All that there are: they are of no namespace, and of each."""
        return [records.network(each, namespace) for each in self._configurations.all()]

    def get(self, namespace: str, name: str) -> Network:
        """By the name with its prefix; also one without a file, as long as someone is in it."""
        try:
            return records.network(self._config(name), namespace)
        except NotFound:
            with self._lock:
                known = [each for found in self._attached.values() for each in found]
            for each in known:
                if f"{PREFIX}{each.network}" == name:
                    return records.network(remembered_network(each), namespace)
            raise

    def _config(self, name: str) -> NetworkConfig:
        return self._configurations.get(name.removeprefix(PREFIX))

    # A container that starts

    def reserve(
        self,
        namespace: str,
        container: str,
        wish: Wish,
        position: int,
        resolver: Resolver = NO_RESOLVER,
    ) -> Endpoint:
        """Note that a container that is to run shall be in a network; its addresses come later.

        Raises NotFound, InvalidArgument for a wish that no plugin would hear, AlreadyExists for
        one that is noted, Unavailable if a plugin says that it cannot do it now (STATUS), and
        FailedPrecondition if DEL of an earlier attachment has failed.
        """
        key = (namespace, container)
        wanted = self._want(key, wish, position, resolver)
        with self._lock:
            if any(each.config.name == wanted.config.name for each in self._wanted.get(key, ())):
                raise AlreadyExists(f'container "{container}" in network "{wish.network}"')
            self._begun.add(key)
            self._wanted.setdefault(key, []).append(wanted)
        return _place(wanted, key)

    def _want(
        self, key: Key, wish: Wish, position: int, resolver: Resolver = NO_RESOLVER
    ) -> _Wanted:
        config = self._config(wish.network)
        wish.check()
        asked = records.capabilities(config, wish, resolver)
        made = records.attachment(key, position, asked, str(self._pin(key)))
        if any(each.network == config.name for each in self._of(key)):
            raise FailedPrecondition(
                f'container "{key[1]}" is still attached to CNI network "{config.name}": a plugin '
                "has refused to detach it, see the log"
            )
        note = {"namespace": key[0], "container": key[1], "position": position}
        aliases = {"aliases": list(wish.aliases)} if wish.aliases else {}
        return _Wanted(config, made, {**note, **aliases})

    def publish(self, namespace: str, container: str, ports: Sequence[Port]) -> None:
        """Have ports of the host lead to the first network that was reserved."""
        with self._lock:
            first = self._wanted[namespace, container][0]
            asked = {**first.attachment.capabilities, **records.mappings(ports)}
            changed = msgspec.structs.replace(first.attachment, capabilities=asked)
            self._wanted[namespace, container][0] = first._replace(attachment=changed)

    def check_publishes(self, network: str) -> None:
        """Raise InvalidArgument for a network whose plugins know nothing of ports."""
        records.require(self._config(network), "portMappings")

    def connect(self, namespace: str, container: str, process: Process) -> None:
        """Attach the network namespace of a process to all that was reserved."""
        key = (namespace, container)
        with self._lock:
            wanted = self._wanted.pop(key, [])
        if wanted:
            with self._turns.take(key):
                for each in wanted:
                    self._add(key, each, process)

    def attach(
        self, namespace: str, container: str, wish: Wish, position: int, process: Process
    ) -> Endpoint:
        """Attach a container that runs to one more network; raises as `reserve`."""
        key = (namespace, container)
        self.status(wish.network)
        with self._lock:
            self._begun.add(key)
        with self._turns.take(key):
            if any(f"{PREFIX}{each.network}" == wish.network for each in self._of(key)):
                raise AlreadyExists(f'container "{container}" in network "{wish.network}"')
            return self._add(key, self._want(key, wish, position), process)

    def _add(self, key: Key, wanted: _Wanted, process: Process) -> Endpoint:
        name = wanted.config.name
        self._make_pin(key, process)
        try:
            self._cni.add(wanted.config, wanted.attachment, wanted.note)
        finally:  # what has failed half-way, and could not be undone, is remembered too
            known = self._cni.results.get(name, wanted.attachment)
            if known is not None:
                with self._lock:
                    self._attached.setdefault(key, []).append(known)
            self._drop_pin(key)
        assert known is not None
        made = records.endpoint(known, key)
        event = NetworkAttach(
            network_id=made.network, container_id=key[1], addresses=made.addresses
        )
        self._publisher.publish(key[0], "/network/attach", event)
        return made

    # A container that ends

    def detach(self, namespace: str, container: str, network: str) -> None:
        """Detach a container from a network; raises what a plugin refuses."""
        key = (namespace, container)
        with self._turns.take(key):
            for each in self._of(key):
                if network == f"{PREFIX}{each.network}":
                    self._delete(key, each)
            self._drop_pin(key)

    def release(self, namespace: str, container: str) -> None:
        """Detach a container from all networks; what a plugin refuses is logged."""
        key = (namespace, container)
        with self._lock:
            if key not in self._begun:
                return
            self._wanted.pop(key, None)
        with self._turns.take(key):
            self._delete_all(key, self._of(key))
            with self._lock:
                if key not in self._attached and key not in self._wanted:
                    self._begun.discard(key)

    def release_soon(self, namespace: str, container: str) -> None:
        """Detach it from all that it is attached to now, by another thread: plugins take time."""
        key = (namespace, container)
        found = self._of(key)
        if found:
            self._soon(lambda: self._release(key, found))

    def _soon(self, action: Callable[[], object]) -> Future[None] | None:
        """Have another thread do it; None if that is the next daemon's, as this is closed."""

        def run() -> None:
            try:
                action()
            except (OrlopError, OSError) as error:
                _log.warning("CNI: %s", error)
            except Exception:  # noqa: BLE001 - nobody else would tell
                _log.exception("CNI")

        try:
            return self._pool.submit(run)
        except RuntimeError:
            return None

    def _release(self, key: Key, found: Sequence[Remembered]) -> None:
        """Detach a container, unless that has been done, and it was attached anew."""
        with self._turns.take(key):
            now = self._of(key)
            self._delete_all(key, [each for each in found if any(each is known for known in now)])

    def _delete_all(self, key: Key, found: Sequence[Remembered]) -> None:
        for each in reversed(found):
            try:
                self._delete(key, each)
            except OrlopError as error:
                _log.warning("namespace=%s container=%s DEL: %s", *key, error)
        self._drop_pin(key)

    def _delete(self, key: Key, known: Remembered) -> None:
        netns = known.attachment.netns if is_pinned(self._pin(key)) else ""
        attachment = msgspec.structs.replace(known.attachment, netns=netns)
        self._cni.delete(remembered_network(known), attachment)
        with self._lock:
            rest = [each for each in self._attached[key] if each is not known]
            self._attached[key] = rest
            if not rest:
                del self._attached[key]
        event = NetworkDetach(network_id=f"{PREFIX}{known.network}", container_id=key[1])
        self._publisher.publish(key[0], "/network/detach", event)

    # What is there

    def status(self, name: str) -> None:
        """Raise what keeps containers from being attached to a network, if its plugins tell."""
        self._cni.status(self._config(name))

    def check(self, endpoint: Endpoint) -> None:
        """Raise what a plugin finds wrong with a place (CHECK); fine for one that is gone."""
        key = (endpoint.namespace, endpoint.container)
        with self._turns.take(key):
            for each in self._of(key):
                if endpoint.network == f"{PREFIX}{each.network}":
                    self._cni.check(remembered_network(each), each.attachment)

    def _of(self, key: Key) -> list[Remembered]:
        with self._lock:
            return list(self._attached.get(key, ()))

    def endpoints(
        self, namespace: str = "", container: str = "", network: str = ""
    ) -> list[Endpoint]:
        """The places of a container, of all in a network, or all that there are."""
        with self._lock:
            known = [(key, each) for key, found in self._attached.items() for each in found]
        made = [records.endpoint(each, key) for key, each in known]
        return [
            each
            for each in made
            if namespace in ("", each.namespace)
            and container in ("", each.container)
            and network in ("", each.network)
        ]

    def ports(self, namespace: str, container: str) -> list[Port]:
        """The ports that lead to a container."""
        return [port for each in self._of((namespace, container)) for port in records.ports(each)]

    def gateway(self, namespace: str, container: str) -> str:
        """The host's address, as far as a result tells; "" if none does."""
        found = map(records.gateway, self._of((namespace, container)))
        return next(filter(None, found), "")

    def resolver(self, namespace: str, container: str) -> Resolver:
        """What the first result that has name servers says of them."""
        found = [records.resolver(each) for each in self._of((namespace, container))]
        return next((each for each in found if each.servers), Resolver())

    # After a restart

    def resume(self, lives: Callable[[Key], bool]) -> None:
        """DEL what is attached and does not live, as an earlier daemon has left it; then GC.

        Other threads do it, so that plugins that hang hold nobody up.
        """
        with self._lock:
            known = {key: list(found) for key, found in self._attached.items()}
        if known or self._pins.is_dir():
            self._soon(lambda: self._resume(known, lives))

    def _resume(
        self, known: Mapping[Key, Sequence[Remembered]], lives: Callable[[Key], bool]
    ) -> None:
        if not self._cni.plugins.await_orphans():
            _log.warning("CNI plugins that an earlier daemon has started go on and on")
        dead = [(key, found) for key, found in known.items() if not lives(key)]
        jobs = [self._soon(partial(self._release, key, found)) for key, found in dead]
        for job in jobs:
            if job is not None:
                with suppress(CancelledError):
                    job.result()
        self._drop_strays()
        for name in sorted({each.network for found in known.values() for each in found}):
            try:
                self._collect(name)
            except OrlopError as error:
                _log.warning("CNI network %s: GC: %s", name, error)

    def _collect(self, name: str) -> None:
        network = self._configurations.get(name)
        self._cni.version(network)  # plugins are asked for theirs before all have to wait
        with self._turns.take(None):
            with self._lock:
                ours = [each for found in self._attached.values() for each in found]
            others = self._others.all() if self._others is not None else []
            for each in filter(None, (self._cni.results, self._others)):
                if unknown := each.doubtful(name):
                    path = each.folder / unknown[0]
                    raise FailedPrecondition(f'"{path}" cannot be read: it may tell who is valid')
            self._cni.collect(network, _names(name, [*ours, *others]))

    # Network namespaces

    def _pin(self, key: Key) -> Path:
        return self._pins / records.container_id(*key)

    def _make_pin(self, key: Key, process: Process) -> None:
        """Raises FailedPrecondition if that of an earlier process cannot be let go of."""
        self._drop_pin(key)  # which a crash may have left of an earlier one
        path = self._pin(key)
        try:
            if is_pinned(path):
                self._check_pin(key, process)
                return
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_RDONLY | os.O_CLOEXEC, 0o600))
            mount(process.netns, path, "", MS_BIND)
            process.check()  # else it may be that of another one, which has got its number
        except (OSError, FailedPrecondition) as error:
            self._drop_pin(key)
            reason = error.message if isinstance(error, FailedPrecondition) else error
            raise FailedPrecondition(
                f'network namespace of container "{key[1]}" cannot be pinned: {reason}'
            ) from None

    def _check_pin(self, key: Key, process: Process) -> None:
        """What is attached holds the pin: it must be attached in the same namespace."""
        if not process.is_in(self._pin(key)):
            names = ", ".join(f'"{each.network}"' for each in self._of(key))
            raise FailedPrecondition(
                f"an earlier one is still attached to CNI network {names}: a plugin has refused to "
                "detach it, see the log"
            )

    def _drop_strays(self) -> None:
        """Let go of what a crash has left pinned and not attached."""
        with self._turns.take(None):
            with self._lock:
                known = {self._pin(key) for key in self._attached}
            for path in self._pins.glob("*"):
                if path not in known:
                    _unpin(path)

    def _drop_pin(self, key: Key) -> None:
        """Let go of a namespace in which nothing is attached any more."""
        if self._of(key):
            return
        _unpin(self._pin(key))


def _unpin(path: Path) -> None:
    if is_pinned(path):
        unmount(path, MNT_DETACH | UMOUNT_NOFOLLOW)
    path.unlink(missing_ok=True)


def _names(network: str, known: Iterable[Remembered]) -> set[tuple[str, str]]:
    return {
        (each.attachment.container_id, each.attachment.ifname)
        for each in known
        if each.network == network
    }


def _place(wanted: _Wanted, key: Key) -> Endpoint:
    """A place whose addresses are not known yet."""
    known = Remembered(
        network=wanted.config.name, attachment=wanted.attachment, config=b"", note=wanted.note
    )
    return records.endpoint(known, key)

"""The commands of the spec, done to a network: a chain of plugins (spec, section 3)."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from orlop.errors import AlreadyExists, FailedPrecondition, InvalidArgument, OrlopError
from orlop.network.cni import converting, model, parsing, versions
from orlop.network.cni.model import Attachment, Json, NetworkConfig, PluginConfig
from orlop.network.cni.plugins import Plugins
from orlop.network.cni.results import Remembered, Results

_log = logging.getLogger(__name__)
_PATIENCE = 5.0
VALID = "cni.dev/valid-attachments"


class Cni:
    """Runs chains of plugins and remembers what came of it. Thread-safe.

    What belongs to one attachment must not be done twice at a time, nor GC beside ADD and DEL of
    the same network: that is the caller's to see to.
    """

    def __init__(self, plugins: Plugins, results: Results, *, patience: float = _PATIENCE) -> None:
        self.plugins = plugins
        self.results = results
        self._patience = patience
        self._tried: set[str] = set()  # plugins of which an ADD has succeeded
        self._first: dict[str, threading.Lock] = {}

    def version(self, network: NetworkConfig) -> str:
        """The newest version that the network offers and all of its plugins speak.

        Raises FailedPrecondition if there is none.
        """
        spoken = [(each.type, self.plugins.versions(each.type)) for each in network.plugins]
        for version in reversed(network.versions):
            if all(version in known for _, known in spoken):
                return version
        offered = ", ".join(network.versions)
        lacking = [
            f'"{kind}" speaks {", ".join(known)}'
            for kind, known in spoken
            if not set(known) & set(network.versions)
        ]
        reason = "; ".join(lacking) or "no version is spoken by all of its plugins"
        raise FailedPrecondition(f'CNI network "{network.name}" is of version {offered}: {reason}')

    def _version_of(self, known: Remembered | None, network: NetworkConfig) -> str:
        """The one that ADD was done with: plugins may have become others, or fewer, since."""
        told = known.result.get("cniVersion") if known is not None and known.result else None
        return told if told in versions.SUPPORTED else self.version(network)

    def add(
        self, network: NetworkConfig, attachment: Attachment, note: Mapping[str, Any] | None = None
    ) -> Json:
        """Attach a container; the result of the chain, in the version that it was run with.

        It is remembered before the first plugin is run, so that what a crash leaves can be found.
        What a chain that fails has done is undone, by DEL of the plugins that were run.
        AlreadyExists if it is remembered: DEL must come first.
        """
        model.check(attachment)
        if self.results.get(network.name, attachment) is not None:
            raise AlreadyExists(
                f'attachment of container "{attachment.container_id}" to CNI network '
                f'"{network.name}" by "{attachment.ifname}"'
            )
        version = self.version(network)
        result: Json | None = None
        run: list[PluginConfig] = []
        self._remember(network, attachment, result, note)
        try:
            for plugin in network.plugins:
                run.append(plugin)
                result = self._add_one(network, version, plugin, attachment, result)
                # Some know by the result alone what a DEL after a death of ours is about.
                self._remember(network, attachment, result, note)
        except BaseException:
            self._undo(network, version, attachment, result, run)
            raise
        assert result is not None
        return result

    def _remember(
        self,
        network: NetworkConfig,
        attachment: Attachment,
        result: Json | None,
        note: Mapping[str, Any] | None,
    ) -> None:
        self.results.save(
            Remembered(
                network=network.name,
                attachment=attachment,
                config=network.text,
                result=result,
                note=note or {},
            )
        )

    def _add_one(
        self,
        network: NetworkConfig,
        version: str,
        plugin: PluginConfig,
        attachment: Attachment,
        before: Json | None,
    ) -> Json:
        config = _config(network, version, plugin, attachment, before)
        with self._alone_at_first(plugin.type):
            printed = self.plugins.call("ADD", plugin.type, config, attachment)
        try:
            return converting.convert(converting.check(printed, version), version)
        except InvalidArgument as error:
            raise FailedPrecondition(f'CNI plugin "{plugin.type}" (ADD): {error.message}') from None

    @contextmanager
    def _alone_at_first(self, kind: str) -> Iterator[None]:
        """Nobody else has a plugin ADD meanwhile, if it is its first time.

        Some make what all of their attachments share, as chains of iptables, and fail where others
        are just making the same. One that hangs holds others up for `patience` seconds only.
        """
        if kind in self._tried:
            yield
            return
        first = self._first.setdefault(kind, threading.Lock())
        alone = first.acquire(timeout=self._patience)
        if alone and kind in self._tried:
            first.release()
            alone = False
        try:
            yield
            self._tried.add(kind)
        finally:
            if alone:
                first.release()

    def _undo(
        self,
        network: NetworkConfig,
        version: str,
        attachment: Attachment,
        result: Json | None,
        run: Collection[PluginConfig],
    ) -> None:
        """DEL of the plugins that were run; the last one included: it may have begun."""
        failures = self._delete_all(network, version, run, attachment, result)
        for each in failures:
            _log.warning("undoing a failed ADD to CNI network %s: %s", network.name, each)
        if not failures:
            self.results.remove(network.name, attachment)

    def delete(self, network: NetworkConfig, attachment: Attachment) -> None:
        """Detach a container; fine if it is not attached.

        All plugins are told, whichever of them fail or are missing; the first failure is raised
        then, and the attachment remains remembered, so that it can be tried again.
        """
        model.check(attachment)
        known = self.results.get(network.name, attachment)
        try:
            version = self._version_of(known, network)
        except OrlopError:  # some can be told nevertheless
            version = network.versions[-1]
        result = _result_of(known, version)
        failures = self._delete_all(network, version, network.plugins, attachment, result)
        if failures:
            raise failures[0]
        self.results.remove(network.name, attachment)

    def _delete_all(
        self,
        network: NetworkConfig,
        version: str,
        plugins: Collection[PluginConfig],
        attachment: Attachment,
        result: Json | None,
    ) -> list[OrlopError]:
        failures = []
        known = result if versions.at_least(version, versions.CHECK) else None
        for plugin in reversed(list(plugins)):
            config = _config(network, version, plugin, attachment, known)
            try:
                self.plugins.call("DEL", plugin.type, config, attachment)
            except OrlopError as error:
                failures.append(error)
        return failures

    def check(self, network: NetworkConfig, attachment: Attachment) -> None:
        """Raise what a plugin finds wrong with an attachment, FailedPrecondition if there is none.

        Nothing is checked where the network says so. Before 0.4.0 nothing can be.
        """
        known = self.results.get(network.name, attachment)
        version = self._version_of(known, network)
        if not versions.at_least(version, versions.CHECK):
            raise FailedPrecondition(
                f'CNI network "{network.name}" is of version {version}, which has no CHECK'
            )
        if network.disable_check:
            return
        result = _result_of(known, version)
        if result is None:
            raise FailedPrecondition(
                f'container "{attachment.container_id}" is not attached to CNI network '
                f'"{network.name}" by "{attachment.ifname}"'
            )
        for plugin in network.plugins:
            config = _config(network, version, plugin, attachment, result)
            self.plugins.call("CHECK", plugin.type, config, attachment)

    def status(self, network: NetworkConfig) -> None:
        """Raise Unavailable if a plugin says that it cannot ADD now; before 1.1 none is asked."""
        version = self.version(network)
        if versions.at_least(version, versions.GC):
            for plugin in network.plugins:
                config = _config(network, version, plugin)
                self.plugins.call("STATUS", plugin.type, config, None)

    def collect(self, network: NetworkConfig, valid: Collection[tuple[str, str]]) -> None:
        """GC: what is not of the attachments `valid`, container ids and interfaces, may go.

        All plugins are told, whichever of them fail; the first failure is raised then.
        """
        version = self.version(network)
        if network.disable_gc or not versions.at_least(version, versions.GC):
            return
        attachments = [{"containerID": number, "ifname": name} for number, name in sorted(valid)]
        failures: list[OrlopError] = []
        for plugin in network.plugins:
            config = {**_config(network, version, plugin), VALID: attachments}
            try:
                self.plugins.call("GC", plugin.type, config, None)
            except OrlopError as error:
                failures.append(error)
        if failures:
            raise failures[0]


def remembered_network(known: Remembered) -> NetworkConfig:
    """The network as it was when a container was attached to it."""
    return parsing.network(parsing.load(known.config))


def _result_of(known: Remembered | None, version: str) -> Json | None:
    """What ADD found out, None if it is not remembered or of no use."""
    if known is None or known.result is None:
        return None
    try:
        return converting.convert(converting.check(known.result, version), version)
    except InvalidArgument:
        return None


def _config(
    network: NetworkConfig,
    version: str,
    plugin: PluginConfig,
    attachment: Attachment | None = None,
    result: Json | None = None,
) -> Json:
    """What a plugin reads (spec, section 3, "Deriving execution configuration")."""
    config = {**plugin.config, "name": network.name, "cniVersion": version}
    if attachment is not None:
        asked = {
            key: value
            for key, value in attachment.capabilities.items()
            if key in plugin.capabilities
        }
        if asked:
            config["runtimeConfig"] = asked
    if result is not None:
        config["prevResult"] = result
    return config

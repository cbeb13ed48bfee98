"""The daemon's parts, listed and asked."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.any_pb2 import Any

from orlop.errors import NotFound, Unimplemented
from orlop.introspection.model import Plugin
from orlop.metadata import filters


class Catalogue:
    """The plugins given at assembly, in that order, working or not."""

    def __init__(self, plugins: Iterable[Plugin]) -> None:
        self._plugins = {(plugin.type, plugin.id): plugin for plugin in plugins}

    def list(self, wanted: Iterable[str] = ()) -> list[Plugin]:
        """The plugins that any of the filters `wanted` match.

        Their fields are `type`, `id` and `capabilities`, all in one with "," between, as
        containerd has them.
        """
        chosen = filters.parse(wanted)
        return [plugin for plugin in self._plugins.values() if chosen.matches(_fields(plugin))]

    def get(self, type: str, id: str) -> Plugin:
        """One plugin; raises NotFound."""
        plugin = self._plugins.get((type, id))
        if plugin is None:
            raise NotFound(f'plugin "{type}.{id}"')
        return plugin

    def ask(self, type: str, id: str, question: Any) -> Any:
        """A plugin's answer to a question; NotFound, or Unimplemented if it takes none."""
        plugin = self.get(type, id)
        if plugin.info is None:
            raise Unimplemented(f'plugin "{type}.{id}" takes no info request')
        return plugin.info(question)


def _fields(plugin: Plugin) -> filters.Lookup:
    return filters.record(
        {"type": plugin.type, "id": plugin.id, "capabilities": ",".join(plugin.capabilities)}
    )

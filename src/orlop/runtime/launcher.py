"""The two ways to a shim: forked from the warm server, or a binary of its own."""

from __future__ import annotations

from typing import Protocol

from google.protobuf.any_pb2 import Any

from orlop.rpc import CallContext
from orlop.runtime.bundle import Bundle
from orlop.runtime.model import Endpoint, Exit
from orlop.runtime.shim import Killable


class Launcher(Protocol):
    """Starts shims of one kind, and clears up after them."""

    mark: str
    """What a bundle's `shim-binary-path` says of this kind."""

    def start(
        self, ctx: CallContext, bundle: Bundle, options: Any | None
    ) -> tuple[Endpoint, Killable | None]:
        """Start a shim for a bundle, or find that of its group: where it listens.

        Ends early, with Cancelled, when the call `ctx` does.
        """

    def end(self, bundle: Bundle) -> None:
        """Kill the shim of a bundle, which does not listen; fine if there is none."""

    def clean_up(self, bundle: Bundle) -> Exit:
        """Remove the container that a dead shim has left, and whatever is mounted in its bundle.

        Raises OrlopError or OSError when something is left.
        """

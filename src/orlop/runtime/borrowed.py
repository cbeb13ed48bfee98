"""Shims that somebody else runs: of sandboxes that this daemon does not keep."""

from __future__ import annotations

import time

from google.protobuf.any_pb2 import Any

from orlop.errors import FailedPrecondition
from orlop.rpc import CallContext
from orlop.runtime.bundle import Bundle
from orlop.runtime.model import Endpoint, Exit
from orlop.runtime.shim import Killable
from orlop.sys.mount import unmount_all

_UNKNOWN = 255


class BorrowedShims:
    """Neither starts nor ends any: a client says where one listens."""

    mark = "borrowed"

    def start(
        self, ctx: CallContext, bundle: Bundle, options: Any | None
    ) -> tuple[Endpoint, Killable | None]:
        """Never: FailedPrecondition."""
        raise FailedPrecondition(f'shim of "{bundle.id}" is not run by this daemon')

    def end(self, bundle: Bundle) -> None:
        """Nothing: it is its owner's."""

    def clean_up(self, bundle: Bundle) -> Exit:
        """Unmount what is in the bundle; how the container ended, nobody knows."""
        unmount_all(bundle.path / "rootfs")
        return Exit(_UNKNOWN, time.time_ns())

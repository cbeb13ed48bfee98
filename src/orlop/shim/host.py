"""What all containers of a shim share."""

from __future__ import annotations

from dataclasses import dataclass

from orlop.shim.children import Children
from orlop.shim.events import Publisher
from orlop.shim.log import Log
from orlop.shim.loop import Loop


@dataclass(frozen=True, slots=True)
class Host:
    """The hand that they live in."""

    loop: Loop
    children: Children
    publisher: Publisher
    log: Log
    namespace: str
    pid: int
    """The shim's, to the outside: the keeper's."""

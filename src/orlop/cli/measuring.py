"""What a namespace takes of the disk, for commands that show it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from orlop.cli.each import told
from orlop.client import Connection

if TYPE_CHECKING:
    from orlop.client.usage import Usage


def measure(connection: Connection) -> Usage:
    """What the namespace takes; containers that cannot be measured are told of."""
    from orlop.client import usage

    found = usage.of(connection)
    for name, error in sorted(found.unmeasured.items()):
        print(f'orlop: container "{name}" is not measured: {told(error)}', file=sys.stderr)
    return found

"""`orlop netns ls`: list named network namespaces."""

from __future__ import annotations

import argparse

from orlop.cli import table
from orlop.client import Connection


def configure(parser: argparse.ArgumentParser) -> None:
    """It takes nothing."""


def run(args: argparse.Namespace, connection: Connection) -> int:
    from orlop.wire.services.network_pb2 import ListNetNSRequest

    found = connection.netns.list(ListNetNSRequest()).netns
    table.show(("NAME", "PATH"), [(each.name, each.path) for each in found])
    return 0

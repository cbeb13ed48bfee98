"""`orlop version`: the versions of client and daemon."""

from __future__ import annotations

import argparse

from google.protobuf.empty_pb2 import Empty

from orlop import __version__
from orlop.client import Connection


def configure(parser: argparse.ArgumentParser) -> None:
    del parser


def run(args: argparse.Namespace, connection: Connection) -> int:
    del args
    print(f"client   orlop {__version__}")
    daemon = connection.version.version(Empty())
    print(f"daemon   {daemon.version} (revision {daemon.revision or 'unknown'})")
    return 0

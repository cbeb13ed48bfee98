"""`orlop version`: the versions of client and daemon."""

from __future__ import annotations

import argparse

from google.protobuf.empty_pb2 import Empty

from orlop import __version__
from orlop.client import Connection


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", "--format", default="", metavar="FORMAT",
        help="json, or a template such as '{{.Server.Version}}'")  # fmt: skip


def run(args: argparse.Namespace, connection: Connection) -> int:
    daemon = connection.version.version(Empty())
    if args.format:
        from orlop.cli import form

        server = {"Version": daemon.version, "Revision": daemon.revision}
        form.show([{"Client": {"Version": __version__}, "Server": server}], {}, args.format)
        return 0
    print(f"client   orlop {__version__}")
    print(f"daemon   {daemon.version} (revision {daemon.revision or 'unknown'})")
    return 0

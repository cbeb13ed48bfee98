"""Where the output of a container is kept: options of `orlop run`."""

from __future__ import annotations

import argparse

from orlop.client import Connection, log_files
from orlop.errors import InvalidArgument
from orlop.logger.options import JSON


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--log-driver", choices=log_files.DRIVERS, metavar="DRIVER",
        help=f"how output is kept: {', '.join(log_files.DRIVERS)} ({JSON})")  # fmt: skip
    add("--log-opt", action="append", default=[], metavar="NAME=VALUE",
        help="max-size=10m, max-file=10, path=FILE")  # fmt: skip


def uri(args: argparse.Namespace, connection: Connection, container: str, *, kept: bool) -> str:
    """Where the output goes; "" is nowhere. Raises InvalidArgument.

    `kept` says whether it can be: another's shim gives it to the client that is attached, or to a
    log.
    """
    if not kept:
        if args.log_driver or args.log_opt:
            raise InvalidArgument(f'runtime "{args.runtime}" takes --log-driver with -d only')
        return ""
    values = {}
    for text in args.log_opt:
        name, equals, value = text.partition("=")
        if not equals:
            raise InvalidArgument(f'log option "{text}" is not NAME=VALUE')
        values[name] = value
    return log_files.uri(connection, container, args.log_driver or JSON, values)

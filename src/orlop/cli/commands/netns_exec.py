"""`orlop netns exec`: run a program of this host in a named network namespace."""

from __future__ import annotations

import argparse
import os

from orlop.client import Connection, networks
from orlop.errors import FailedPrecondition, NotFound

FAILURE = 125


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name")
    parser.add_argument("command", nargs=argparse.REMAINDER)


def run(args: argparse.Namespace, connection: Connection) -> int:
    from orlop.sys.process import CLONE_NEWNET, setns

    command = args.command or [os.environ.get("SHELL", "/bin/sh")]
    path = networks.netns_path(connection, args.name)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        setns(fd, CLONE_NEWNET)
    except OSError as error:
        reason = str(error.strerror).lower()
        raise FailedPrecondition(f'network namespace "{args.name}": {reason}') from None
    try:
        os.execvp(command[0], command)
    except FileNotFoundError:
        raise NotFound(f'program "{command[0]}"') from None
    except OSError as error:
        raise FailedPrecondition(f'program "{command[0]}": {error.strerror}') from None

"""What commands that move images have in common: options, credentials, advice."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from orlop.errors import NotFound, OrlopError, PermissionDenied, Unauthenticated, Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from orlop.client import Connection
    from orlop.client.auth import Answer

PROGRESS = ("auto", "plain", "tty", "json", "none")


def add_progress(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--progress",
        choices=PROGRESS,
        default="auto",
        help="how to show it (auto: tty on a terminal, else plain)",
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress")


def add_platforms(parser: argparse.ArgumentParser, default: str) -> None:
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument(
        "--platform",
        action="append",
        default=[],
        dest="platforms",
        metavar="OS/ARCH[/VARIANT]",
        help=f"may be repeated; default: {default}",
    )
    usual = " (the default)" if default.startswith("all") else ""
    chosen.add_argument("--all-platforms", action="store_true", help=f"all that there are{usual}")


def add_registry(parser: argparse.ArgumentParser) -> None:
    """How to reach a registry, and as whom."""
    add = parser.add_argument
    add("--plain-http", action="store_true", help="talk http, as to a registry on localhost")
    add("--hosts-dir", default="", metavar="FOLDER", help="of hosts.toml files, for this time")
    add("-u", "--user", "--creds", dest="credentials", metavar="USER[:PASSWORD]", default="",
        help="for this time; a password that is not given is asked for")  # fmt: skip


def hosts_folders(args: argparse.Namespace, connection: Connection | None = None) -> Sequence[Path]:
    """Of hosts.toml files: from the command line, else the daemon's."""
    from pathlib import Path

    from orlop.client import registries

    if args.hosts_dir:
        return [Path(args.hosts_dir)]
    if connection is not None:
        return registries.hosts_folders(connection)
    return registries.hosts_folders_at(args.address)


def answer(args: argparse.Namespace) -> Answer:
    """Credentials from the command line, else from the user's files and helpers."""
    from orlop.cli.terminal import ask_secret
    from orlop.client.auth import answer_for
    from orlop.credentials import Credential

    name, colon, secret = args.credentials.partition(":")
    if not name:
        return answer_for()
    return answer_for(Credential(name, secret if colon else ask_secret("password: ")))


@contextmanager
def advising(name: str) -> Iterator[None]:
    """What to do about a registry's refusal goes with the error; `name` is a full reference."""
    try:
        yield
    except OrlopError as error:
        hint = _hint(error, name.partition("/")[0])
        if not hint:
            raise
        raise type(error)(f"{error.message}; {hint}") from error


def _hint(error: OrlopError, host: str) -> str:
    by_registry = "with status" in error.message  # else by a policy of this machine
    if (
        isinstance(error, Unauthenticated)
        or (isinstance(error, PermissionDenied) and by_registry)
        or (isinstance(error, NotFound) and "UNAUTHORIZED" in error.message)
    ):
        return f"`orlop login {host}` keeps credentials for it"
    if isinstance(error, Unavailable) and "does not speak TLS" in error.message:
        return "--plain-http does that"
    return ""

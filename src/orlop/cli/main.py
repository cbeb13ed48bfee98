"""Entry of the `orlop` command: options that all commands share, and error reporting.

Only the module of the command that was asked for is imported: starting fast is a feature.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from functools import cache
from types import ModuleType
from typing import NoReturn

from orlop.cli import catalogue, rootless
from orlop.cli.each import told
from orlop.cli.protobuf import defer_pure_python
from orlop.cli.terminal import window_size
from orlop.descriptors import open_standard
from orlop.errors import OrlopError

USAGE_ERROR = 2
CANNOT_RUN = 125  # as docker and podman: the command failed before the container's process did


def main(argv: Sequence[str] | None = None) -> int:
    open_standard()
    parser, arguments = _parser(), list(sys.argv[1:] if argv is None else argv)
    shared = parser.parse_args(arguments)
    if shared.command is None:
        parser.print_help()
        return USAGE_ERROR
    name, rest = shared.command, shared.arguments
    if name not in {*catalogue.COMMANDS, *catalogue.GROUPS}:
        return _no_command(name)
    if name in catalogue.GROUPS:
        group = _group_parser(name)
        chosen = group.parse_args(rest)
        if chosen.command is None:
            group.print_help()
            return USAGE_ERROR
        if chosen.command not in catalogue.GROUPS[name]:
            return _no_command(chosen.command, name)
        command, rest = catalogue.GROUPS[name][chosen.command], chosen.arguments
        name = f"{name} {chosen.command}"
    else:
        command = catalogue.COMMANDS[name]
    defer_pure_python()
    module = importlib.import_module(f"orlop.cli.commands.{command.module}")
    command_parser = _CommandParser(
        prog=f"orlop {name}",
        description=command.summary + ".",
        formatter_class=_Formatter,
        allow_abbrev=False,
        conflict_handler="resolve",  # -h is for the host name, where a command has one
    )
    command_parser.status = getattr(module, "FAILURE", USAGE_ERROR)
    module.configure(command_parser)
    command_parser.shorten_usage()
    args = command_parser.parse_args(rest)
    return _run(module, args, shared)


def _no_command(name: str, group: str = "") -> int:
    within = f"orlop {group}".strip()
    print(f'orlop: "{name}" is no command; see {within} --help', file=sys.stderr)
    return USAGE_ERROR


class _Formatter(argparse.HelpFormatter):
    """Knows the width: argparse makes one for every option, and would load `shutil` to find out."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_width())


class _Description(_Formatter, argparse.RawDescriptionHelpFormatter):
    """Leaves the lines of a description as they are."""


@cache
def _width() -> int:
    columns = os.environ.get("COLUMNS", "")
    return (int(columns) if columns.isdecimal() else window_size(1)[0]) - 2


class _CommandParser(argparse.ArgumentParser):
    """A command's parser: its errors are a line and not a page, and exit with `status`."""

    status = USAGE_ERROR

    def shorten_usage(self) -> None:
        """Say what a command works on, not its dozens of options."""
        words = [self.prog, "[OPTION …]"]
        for action in self._get_positional_actions():
            name = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
            words.append(_USAGES.get(str(action.nargs), "{}").format(name))
        self.usage = " ".join(words).replace("%", "%%")

    def error(self, message: str) -> NoReturn:
        self.exit(self.status, f"{self.prog}: {message}; see {self.prog} --help\n")


_USAGES = {"?": "[{}]", "*": "[{} …]", "+": "{} …", "...": "[{} …]"}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="orlop",
        usage="orlop [--address SOCKET] [--namespace NAME] COMMAND …",
        description=f"Run containers with orlopd.\n\n{catalogue.overview()}",
        epilog="`orlop COMMAND --help` tells a command's options.",
        formatter_class=_Description,
    )
    parser.add_argument(
        "-a",
        "--address",
        default=rootless.default_address(),
        help="orlopd's socket ($ORLOP_ADDRESS; %(default)s)",
    )
    parser.add_argument(
        "-n",
        "--namespace",
        default=os.environ.get("ORLOP_NAMESPACE", "default"),
        help="namespace to work in ($ORLOP_NAMESPACE; %(default)s)",
    )
    _add_command(parser)
    return parser


def _group_parser(name: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"orlop {name}",
        usage=f"orlop {name} COMMAND …",
        description="commands:\n" + catalogue.listing(catalogue.GROUPS[name]),
        formatter_class=_Description,
    )
    _add_command(parser)
    return parser


def _add_command(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("command", nargs="?", metavar="COMMAND", help=argparse.SUPPRESS)
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)


def _run(module: ModuleType, args: argparse.Namespace, shared: argparse.Namespace) -> int:
    failure = int(getattr(module, "FAILURE", 1))
    try:
        status = _status(module, args, shared)
        sys.stdout.flush()
    except OrlopError as error:
        print(f"orlop: {told(error)}", file=sys.stderr)
        return failure
    except BrokenPipeError:
        # Whoever read our output has gone; say nothing more to it.
        _drop_output()
        return 1
    except OSError as error:  # most likely of our output: a full disk, say
        reason = (error.strerror or str(error)).lower()
        where = f'"{error.filename}": ' if error.filename else ""
        print(f"orlop: {where}{reason}", file=sys.stderr)
        _drop_output()
        return failure
    except KeyboardInterrupt:
        return 130
    return status


def _status(module: ModuleType, args: argparse.Namespace, shared: argparse.Namespace) -> int:
    if not getattr(module, "NEEDS_DAEMON", True):
        args.address = shared.address  # for what is better known with one
        return int(module.run(args))
    rootless.enter(shared.address)
    from orlop.client import Connection

    with Connection(shared.address, shared.namespace) as connection:
        return int(module.run(args, connection))


def _drop_output() -> None:
    """Or what could not be written would be tried again at the exit, and told a second time."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())

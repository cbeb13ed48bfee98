"""Entry of the `orlop` command: options that all commands share, and error reporting.

Only the module of the command that was asked for is imported: starting fast is a feature.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from types import ModuleType

from orlop.errors import OrlopError

COMMANDS = {
    "pull": "pull an image from a registry",
    "images": "list images",
    "rmi": "remove images",
    "run": "create and run a container",
    "ps": "list containers",
    "exec": "run a command in a running container",
    "logs": "show what a container printed",
    "stop": "stop containers, first asking, then killing",
    "kill": "send a signal to containers",
    "rm": "remove containers",
    "inspect": "show all about containers or images, as JSON",
    "events": "follow what happens in the daemon",
    "version": "show the versions of client and daemon",
}

USAGE_ERROR = 2
CANNOT_RUN = 125  # as docker and podman: the command failed before the container's process did


def main(argv: Sequence[str] | None = None) -> int:
    parser, arguments = _parser(), list(sys.argv[1:] if argv is None else argv)
    shared = parser.parse_args(arguments)
    if shared.command is None:
        parser.print_help()
        return USAGE_ERROR
    module = _module(shared.command)
    command_parser = argparse.ArgumentParser(
        prog=f"orlop {shared.command}", description=COMMANDS[shared.command] + "."
    )
    module.configure(command_parser)
    args = command_parser.parse_args(shared.arguments)
    return _run(module, args, shared)


def _parser() -> argparse.ArgumentParser:
    listing = "\n".join(f"  {name:<10}{text}" for name, text in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="orlop",
        usage="orlop [--address SOCKET] [--namespace NAME] COMMAND …",
        description=f"Run containers with orlopd.\n\ncommands:\n{listing}",
        epilog="`orlop COMMAND --help` tells a command's options.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "-a",
        "--address",
        default=os.environ.get("ORLOP_ADDRESS", "/run/orlop/orlop.sock"),
        help="orlopd's socket ($ORLOP_ADDRESS; %(default)s)",
    )
    parser.add_argument(
        "-n",
        "--namespace",
        default=os.environ.get("ORLOP_NAMESPACE", "default"),
        help="namespace to work in ($ORLOP_NAMESPACE; %(default)s)",
    )
    parser.add_argument("command", nargs="?", choices=COMMANDS, metavar="COMMAND")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def _module(command: str) -> ModuleType:
    return importlib.import_module(f"orlop.cli.commands.{command}")


def _run(module: ModuleType, args: argparse.Namespace, shared: argparse.Namespace) -> int:
    from orlop.client import Connection

    try:
        with Connection(shared.address, shared.namespace) as connection:
            return int(module.run(args, connection))
    except OrlopError as error:
        print(f"orlop: {error}", file=sys.stderr)
        return int(getattr(module, "FAILURE", 1))
    except BrokenPipeError:
        # Whoever read our output has gone; say nothing more to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())

"""The `orlopd` command."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path

from orlop import __version__
from orlop.daemon import check, lifecycle, logs, metrics, registry, status, tracing
from orlop.daemon.config import LEVELS, NETWORKS, Config, ConfigError
from orlop.daemon.config_file import dump, load
from orlop.descriptors import open_standard
from orlop.errors import OrlopError
from orlop.sys.libc import limit_arenas

_USAGE_ERROR = 2
# Threads come and go with the calls; each arena that one of them was given stays.
_ARENAS = 2


def main() -> int:
    """Run orlopd; 0 after a clean stop, 1 when it cannot run, 2 for a wrong command or config."""
    open_standard()
    args = _parser().parse_args()
    if args.command == "config" and args.action == "default":
        print(default_text(), end="")  # noqa: T201
        return 0
    try:
        config = load(args.config, _overrides(args))
        registry.check(config.serve)
        metrics.check(config.metrics)
        tracing.check(config.tracing)
        status.check(config.status)
    except ConfigError as error:
        return _complain(str(error), _USAGE_ERROR)
    if args.command == "config":
        print(dump(config), end="")  # noqa: T201
        return 0
    if args.command == "check":
        return _told(lambda: check.run(Path(config.root), quick=args.quick))
    return _serve(config)


def default_text() -> str:
    """The commented configuration that `orlopd config default` prints."""
    return resources.files(__package__).joinpath("default.toml").read_text()


def _serve(config: Config) -> int:
    if os.geteuid() != 0:
        return _complain("must run as root (containers need it), or by orlopd-rootless", 1)
    logs.set_up(config.log.level, config.log.format)
    limit_arenas(_ARENAS)

    def serve() -> int:
        lifecycle.run(config)
        return 0

    return _told(serve)


def _told(work: Callable[[], int]) -> int:
    """The exit status of some work, whose failure is told in a line."""
    try:
        return work()
    except OrlopError as error:
        return _complain(error.message, 1)
    except OSError as error:
        return _complain(str(error), 1)


def _complain(text: str, code: int) -> int:
    sys.stderr.write(f"orlopd: {text}\n")
    return code


def _overrides(args: argparse.Namespace) -> dict[str, str | None]:
    return {
        "root": args.root,
        "state": args.state,
        "grpc.address": args.address,
        "log.level": args.log_level,
        "network.default": args.network,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="orlopd", description="The orlop daemon: containerd's API on a Unix socket."
    )
    default = Config()
    parser.add_argument(
        "-c", "--config", type=Path, metavar="FILE", help="default: /etc/orlop/config.toml, if any"
    )
    parser.add_argument("--root", metavar="DIR", help=f"what survives a reboot ({default.root})")
    parser.add_argument("--state", metavar="DIR", help=f"what does not ({default.state})")
    parser.add_argument(
        "-a",
        "--address",
        metavar="PATH",
        help="clients' socket (orlop.sock in the state folder)",
    )
    parser.add_argument("-l", "--log-level", choices=LEVELS, help=f"({default.log.level})")
    parser.add_argument(
        "--network",
        choices=NETWORKS,
        help=f"of containers that `orlop run` is told none for ({default.network.default})",
    )
    parser.add_argument("-v", "--version", action="version", version=f"orlopd {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="")
    config = commands.add_parser("config", help="print the configuration")
    config.add_argument(
        "action",
        choices=("default", "dump"),
        help="default: with comments; dump: as it is in effect",
    )
    checked = commands.add_parser(
        "check", help="compare what is stored with the records of it, while no daemon runs"
    )
    checked.add_argument("--quick", action="store_true", help="do not read the blobs")
    return parser


if __name__ == "__main__":
    sys.exit(main())

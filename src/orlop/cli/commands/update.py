"""`orlop update`: change the limits of containers, running or not."""

from __future__ import annotations

import argparse
from typing import Any

from orlop.cli import run_resources
from orlop.cli.each import for_each
from orlop.client import Connection, containers
from orlop.client.updating import update_limits
from orlop.errors import InvalidArgument
from orlop.oci import spec_resources
from orlop.oci.spec import ContainerSpec


def configure(parser: argparse.ArgumentParser) -> None:
    run_resources.configure(parser)
    parser.add_argument("containers", nargs="+", metavar="CONTAINER")


def run(args: argparse.Namespace, connection: Connection) -> int:
    changes = _changes(args)
    if not changes:
        raise InvalidArgument("nothing to change: name a limit")
    return for_each(
        args.containers,
        lambda name: update_limits(connection, containers.get(connection, name), changes),
    )


def _changes(args: argparse.Namespace) -> dict[str, Any]:
    if args.memory_swap and not args.memory:
        raise InvalidArgument("--memory-swap needs --memory")
    wanted = ContainerSpec(
        args=(),
        memory=args.memory,
        memory_swap=args.memory_swap,
        cpus=args.cpus,
        cpu_shares=args.cpu_shares,
        cpuset=args.cpuset_cpus,
        pids=args.pids_limit,
    )
    found = spec_resources.limits(wanted)
    del found["devices"]
    return spec_resources.merged(found, run_resources.extra(args))

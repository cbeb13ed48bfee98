"""`orlop update`: change the limits and restart policies of containers, running or not."""

from __future__ import annotations

import argparse
from typing import Any

from orlop.cli import run_resources
from orlop.cli.each import for_each
from orlop.client import Connection, containers, restarts
from orlop.client.updating import update_limits, update_policy
from orlop.errors import InvalidArgument
from orlop.oci import spec_resources
from orlop.oci.spec import ContainerSpec


def configure(parser: argparse.ArgumentParser) -> None:
    run_resources.configure(parser)
    parser.add_argument("--restart", default="", metavar="POLICY",
        help="when it ends: no, always, unless-stopped, on-failure[:N]")  # fmt: skip
    parser.add_argument("containers", nargs="+", metavar="CONTAINER")


def run(args: argparse.Namespace, connection: Connection) -> int:
    changes = _changes(args)
    if not changes and not args.restart:
        raise InvalidArgument("nothing to change: name a limit, or a policy by --restart")
    if args.restart:
        restarts.labels(args.restart)  # a bad one is told before anything is changed

    def change(name: str) -> None:
        container = containers.get(connection, name)
        if changes:
            update_limits(connection, container, changes)
        if args.restart:
            update_policy(connection, container, args.restart)

    return for_each(args.containers, change)


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

"""`orlop system prune`: remove what is not in use."""

from __future__ import annotations

import argparse

from orlop.cli import table
from orlop.cli.commands import image_prune
from orlop.cli.each import for_each
from orlop.cli.measuring import measure
from orlop.cli.terminal import agreed
from orlop.client import Connection, containers, images, restarts, states


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-a", "--all", action="store_true", help="also images that have a tag")
    add("-f", "--force", action="store_true", help="do not ask first")


def run(args: argparse.Namespace, connection: Connection) -> int:
    from orlop.client import leases, usage

    which = "all images without a container" if args.all else "images that only a digest names"
    question = (
        f"remove all stopped containers that are not to be started again, all networks that no "
        f"container is in, and {which}?"
    )
    if not args.force and not agreed(question):
        return 1
    before = measure(connection).total
    status = _remove_containers(connection)
    _remove_networks(connection)
    names = image_prune.unused(connection, tagged=args.all)
    status |= for_each(names, lambda name: images.remove(connection, name))
    leases.collect(connection)
    after = usage.of(connection).total
    print(f"reclaimed {table.size(max(0, before - after))}")
    return status


def _remove_containers(connection: Connection) -> int:
    tasks = states.all_tasks(connection)
    records = {each.id: each for each in containers.list_records(connection)}
    ended = [
        name
        for name, record in records.items()
        if not (state := states.of(record, tasks.get(name))).alive
        and not restarts.comes_back(record, state.exit_code)
    ]
    return for_each(ended, lambda name: containers.remove(connection, records[name], force=False))


def _remove_networks(connection: Connection) -> None:
    from orlop.wire.services.network_pb2 import PruneNetworksRequest

    for name in connection.networks.prune(PruneNetworksRequest()).names:
        print(name)

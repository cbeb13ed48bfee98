"""The command line of the storm: `python -m tests.storm --rounds 500`."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from pathlib import Path

from tests import disks
from tests.storm import named, power
from tests.storm.rooms import ALL, PROXY
from tests.storm.storm import Storm

_DISK = 512 << 20
_BTRFS = "btrfs"


def _systematically(storm: Storm, snapshotters: Sequence[str], names: list[str]) -> None:
    """Once at each step."""
    for patterns in (named.COMMON, *map(named.of, snapshotters)):
        named.steps(patterns, names)
    passed = [name for name in names if not storm.kill_at(name)]
    print(f"{len(names)} steps, {len(passed)} of them not taken again", flush=True)
    if PROXY in snapshotters:
        beside = storm.names_beside()
        named.steps(named.of_neighbour(), beside)
        passed = [name for name in beside if not storm.kill_beside_at(name)]
        print(f"{len(beside)} of the neighbour, {len(passed)} of them not again", flush=True)


def _disk(kind: str, folder: Path) -> AbstractContextManager[Path]:
    if kind == _BTRFS:
        return disks.btrfs(folder, _DISK)
    return disks.formatted(folder, [f"mkfs.{kind}", "-q"], _DISK)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.storm")
    parser.add_argument("--rounds", type=int, default=500, help="beyond one for each step")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cuts", type=int, default=60, help="rounds on each of the disks that die")
    parser.add_argument("--disk", choices=(_BTRFS, "ext4", "xfs"), default=_BTRFS)
    parser.add_argument("--snapshotters", help="all by default that the disk is for")
    parser.add_argument("--no-steps", action="store_true", help="leave out those for each step")
    args = parser.parse_args()
    on_disk = [name for name in ALL if name != _BTRFS or args.disk == _BTRFS]
    snapshotters = args.snapshotters.split(",") if args.snapshotters else on_disk
    shm = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with ExitStack() as stack:
        make = tempfile.TemporaryDirectory(prefix="orlop-storm-", dir=shm)
        folder = Path(stack.enter_context(make))
        disk = stack.enter_context(_disk(args.disk, folder))
        storm = stack.enter_context(closing(Storm(disk, folder, args.seed, snapshotters)))
        names = storm.names()
        if not args.no_steps:
            _systematically(storm, snapshotters, names)
        for _ in range(args.rounds):
            storm.kill_anywhere()
    for filesystem in power.FILESYSTEMS if args.cuts else ():
        with tempfile.TemporaryDirectory(prefix="orlop-storm-", dir=shm) as name:
            with power.storm_on(filesystem, Path(name), args.seed) as dying:
                for _ in range(args.cuts):
                    dying.kill_anywhere()
            print(f"{filesystem}: the power was cut {dying.kills} times", flush=True)
    print(f"seed {args.seed}: {args.rounds} rounds; killed {storm.kills} times")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Limits that `orlop run` and `orlop update` are told, as the runtime spec has them."""

from __future__ import annotations

import argparse
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orlop.cli import options
from orlop.errors import InvalidArgument

_RULE = re.compile(r"([abc]) (\d+|\*):(\d+|\*) ([rwm]{1,3})")


def configure(parser: argparse.ArgumentParser) -> None:
    """The limits that may change while a container runs."""
    add = parser.add_argument
    add("-m", "--memory", type=options.memory, default=0, metavar="SIZE",
        help="limit, such as 512m")  # fmt: skip
    add("--memory-swap", type=_swap, default=0, metavar="SIZE",
        help="limit of memory and swap together, -1 for none")  # fmt: skip
    add("--memory-reservation", type=options.memory, metavar="SIZE",
        help="what it shrinks to when memory is short")  # fmt: skip
    add("--cpus", type=options.cpus, default=0.0, metavar="N", help="limit, such as 1.5")
    add("-c", "--cpu-shares", type=int, default=0, metavar="N", help="weight (1024 is usual)")
    add("--cpu-period", type=int, metavar="US", help="period of the limit, in microseconds")
    add("--cpu-quota", type=int, metavar="US", help="CPU time in a period, -1 for no limit")
    add("--cpu-rt-period", type=int, metavar="US", help="period for real-time processes")
    add("--cpu-rt-runtime", type=int, metavar="US", help="their CPU time in a period")
    add("--cpuset-cpus", default="", metavar="LIST", help="CPUs to run on, such as 0-2,4")
    add("--cpuset-mems", metavar="LIST", help="memory nodes to use")
    add("--pids-limit", type=int, default=0, metavar="N", help="most processes, -1 for no limit")
    add("--blkio-weight", type=_weight, metavar="N", help="weight of I/O, 10 to 1000")


def configure_fixed(parser: argparse.ArgumentParser) -> None:
    """Those that are set once."""
    add = parser.add_argument
    add("--memory-swappiness", type=int, choices=range(-1, 101), metavar="N", default=-1,
        help="0 to 100: how gladly it swaps")  # fmt: skip
    add("--oom-kill-disable", action="store_true", help="wait when memory is out, kill nothing")
    add("--blkio-weight-device", action="append", default=[], metavar="DEVICE:N",
        help="weight of I/O of a device")  # fmt: skip
    for name, unit in (("bps", "SIZE"), ("iops", "N")):
        for verb in ("read", "write"):
            add(f"--device-{verb}-{name}", action="append", default=[], metavar=f"DEVICE:{unit}",
                help=f"limit of {verb}s a second")  # fmt: skip
    add("--device-cgroup-rule", action="append", default=[], metavar="'c 1:3 rwm'",
        help="allow devices by their numbers")  # fmt: skip


def extra(args: argparse.Namespace) -> dict[str, Any]:
    """The limits that `ContainerSpec` has no field for: a part of LinuxResources.

    Raises InvalidArgument for what makes no sense.
    """
    if args.cpus and (args.cpu_period is not None or args.cpu_quota is not None):
        raise InvalidArgument("--cpus and --cpu-period or --cpu-quota exclude each other")
    found = {
        "memory": {"reservation": args.memory_reservation},
        "cpu": {
            "period": args.cpu_period,
            "quota": args.cpu_quota,
            "realtimePeriod": args.cpu_rt_period,
            "realtimeRuntime": args.cpu_rt_runtime,
            "mems": args.cpuset_mems,
        },
        "blockIO": {"weight": args.blkio_weight},
    }
    return _without_nothing(found)


def fixed(args: argparse.Namespace) -> dict[str, Any]:
    """The same of those that are set once."""
    found: dict[str, dict[str, Any]] = {
        "memory": {
            "swappiness": args.memory_swappiness if args.memory_swappiness >= 0 else None,
            "disableOOMKiller": args.oom_kill_disable or None,
        },
        "blockIO": {
            "weightDevice": list(_per_device(args.blkio_weight_device, "weight")),
            "throttleReadBpsDevice": list(_per_device(args.device_read_bps, "rate")),
            "throttleWriteBpsDevice": list(_per_device(args.device_write_bps, "rate")),
            "throttleReadIOPSDevice": list(_per_device(args.device_read_iops, "rate")),
            "throttleWriteIOPSDevice": list(_per_device(args.device_write_iops, "rate")),
        },
    }
    made = _without_nothing(found)
    if args.device_cgroup_rule:
        made["devices"] = [_rule(text) for text in args.device_cgroup_rule]
    return made


def _without_nothing(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    kept = {
        kind: {key: value for key, value in fields.items() if value not in (None, [])}
        for kind, fields in found.items()
    }
    return {kind: fields for kind, fields in kept.items() if fields}


def _per_device(texts: list[str], field: str) -> Iterator[dict[str, int]]:
    for text in texts:
        path, _, value = text.rpartition(":")
        try:
            info = Path(path).stat()
            number = options.memory(value)
        except (OSError, argparse.ArgumentTypeError):
            number = 0
        if not number or not stat.S_ISBLK(info.st_mode):
            raise InvalidArgument(f'"{text}" is not a block device of this host and a number')
        yield {
            "major": os.major(info.st_rdev), "minor": os.minor(info.st_rdev), field: number,
        }  # fmt: skip


def _rule(text: str) -> dict[str, Any]:
    match = _RULE.fullmatch(text)
    if match is None:
        raise InvalidArgument(f'rule for devices "{text}" is not such as "c 1:3 rwm"')
    made: dict[str, Any] = {"allow": True, "type": match[1], "access": match[4]}
    numbers = {"major": match[2], "minor": match[3]}
    return made | {name: int(number) for name, number in numbers.items() if number != "*"}


def _swap(text: str) -> int:
    return -1 if text == "-1" else options.memory(text)


def _weight(text: str) -> int:
    if not text.isdecimal() or not 10 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f'"{text}" is not a weight from 10 to 1000')
    return int(text)

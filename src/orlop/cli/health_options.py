"""How a container's health is checked: options of `orlop run`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from orlop.cli.moments import duration
from orlop.errors import InvalidArgument

_TIMES = {
    "interval": "between two checks (30s)",
    "timeout": "that a check may take (30s)",
    "start-period": "in which failures do not count yet (0s)",
    "start-interval": "between two checks in the start period (5s)",
}


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--health-cmd", metavar="LINE", help="shell command that tells whether it is well")
    for name, meaning in _TIMES.items():
        add(f"--health-{name}", type=duration, default=0, metavar="TIME", help=f"time {meaning}")
    add("--health-retries", type=int, default=0, metavar="N",
        help="failures in a row that make it unhealthy (3)")  # fmt: skip
    add("--no-healthcheck", action="store_true", help="not even what the image asks for")


def labels(args: argparse.Namespace, config: Mapping[str, Any]) -> dict[str, str]:
    """The label for what is asked for, and otherwise for what the image config says.

    Raises InvalidArgument.
    """
    if not (_given(args) or config.get("Healthcheck")):
        return {}
    from orlop.oci.healthcheck import LABEL, Healthcheck

    asked = Healthcheck.parse(_document(args))
    if args.no_healthcheck:
        if asked != Healthcheck():
            raise InvalidArgument("--no-healthcheck and --health-… exclude each other")
        return {}
    check = asked.over(Healthcheck.parse(config.get("Healthcheck") or {}))
    if asked != Healthcheck() and not check.wanted:
        raise InvalidArgument("the image has no healthcheck; give --health-cmd")
    if not check.wanted:
        return {}
    return {LABEL: check.with_shell(config.get("Shell") or ()).label}


def _given(args: argparse.Namespace) -> bool:
    return args.no_healthcheck or any(_document(args).values())


def _document(args: argparse.Namespace) -> dict[str, Any]:
    """What is asked for, as an image config would have it."""
    document: dict[str, Any] = {
        "Interval": args.health_interval,
        "Timeout": args.health_timeout,
        "StartPeriod": args.health_start_period,
        "StartInterval": args.health_start_interval,
        "Retries": args.health_retries,
    }
    if args.health_cmd is not None:
        document["Test"] = ["CMD-SHELL", args.health_cmd]
    return document

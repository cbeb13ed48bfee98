"""`python -m tests.vm [--hybrid] [--short | --shell] [ARGUMENT OF PYTEST…]`: run tests in there."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from pathlib import Path

from tests.vm.machine import run

_PATIENCE = 6
"""How many times slower than the host the tests expect the emulated machine to be."""
_LIMIT, _SHORT_LIMIT = 3600.0, 1200.0
_HYBRID = "systemd.unified_cgroup_hierarchy=0"
"""systemd then mounts the controllers of cgroup v1, and v2 without any beside them."""
_SHELL = "exec setsid --ctty --wait bash --login <>/dev/ttyS0 >&0 2>&0\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.vm")
    parser.add_argument("--short", action="store_true", help="only the short form")
    parser.add_argument("--shell", action="store_true", help="give a shell instead")
    parser.add_argument("--hybrid", action="store_true", help="cgroup v1 with v2 beside it")
    parser.add_argument("--limit", type=float, help="seconds for all of it")
    args, arguments = parser.parse_known_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    limit = args.limit or (_SHORT_LIMIT if args.short else _LIMIT)
    parameters = _HYBRID if args.hybrid else ""
    if args.shell:
        return run(_SHELL, limit=limit, shell=True, parameters=parameters)
    if args.short:
        arguments += ["-m", "short"]
    if not any(Path(each.partition("::")[0]).exists() for each in arguments):
        arguments.append("tests/vm")
    command = [
        *(".venv/bin/python", "-m", "pytest", "-p", "tests.vm.honest", "-p", "no:cacheprovider"),
        *("--timeout", str(120 * _PATIENCE), *arguments),
    ]
    script = f"export ORLOP_TEST_PATIENCE={_PATIENCE} HOME=/root\n{shlex.join(command)}\n"
    return run(script, limit=limit, parameters=parameters)


if __name__ == "__main__":
    sys.exit(main())

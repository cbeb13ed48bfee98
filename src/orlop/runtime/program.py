"""Runs a shim's program for a moment: to start a shim, to clear up, to tell about itself."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from orlop.errors import DeadlineExceeded, Unknown
from orlop.rpc import CallContext
from orlop.sys.program import Done, Program


def run(
    argv: Sequence[str],
    text: bytes,
    what: str,
    timeout: float,
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    ctx: CallContext | None = None,
) -> Done:
    """Run a shim's program to its end, as long as the call `ctx` is wanted.

    Raises Unknown, with `what` it was doing, if it cannot be run, takes more than `timeout` seconds
    or prints without end, Cancelled, DeadlineExceeded.
    """
    about = f'shim "{argv[0]}"'
    try:
        program = Program(argv, text, cwd=cwd, env=env)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise Unknown(f"{about} cannot be run: {reason}") from None
    if ctx is not None:
        ctx.on_cancel(program.kill)
    try:
        done = program.result(timeout)
    except (DeadlineExceeded, Unknown) as error:
        raise Unknown(f"{about} {what}: {error.message}") from None
    if ctx is not None:
        ctx.check()
    return done


def end_shims(namespace: str, id: str, bundle: Path) -> None:
    """Kill the shim of a bundle that does not listen to anybody: it works there, and for it."""
    wanted = {namespace.encode(), id.encode()}
    for entry in os.scandir("/proc"):
        if not entry.name.isdecimal():
            continue
        with suppress(OSError):
            if Path(entry.path, "cwd").readlink() != bundle:
                continue
            arguments = Path(entry.path, "cmdline").read_bytes().split(b"\0")
            if wanted <= set(arguments):
                os.kill(int(entry.name), signal.SIGKILL)

"""Keyless signatures: sigstore bundles with a certificate, checked without asking anybody.

The checks are those of the library `sigstore`, which is large and reads hostile input with many
parsers: it runs in a short-lived process of its own (`orlop.trust.sigstore_process`).
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from orlop import typed
from orlop.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument
from orlop.trust.signers import Identity

BUNDLES_MAX = 32
_LIMIT = 30.0  # seconds


class Task(msgspec.Struct):
    """What the process reads from stdin."""

    trusted_root: str
    identities: list[Identity]
    bundles: list[bytes]


class Verdict(msgspec.Struct):
    """On one bundle: the signer and what was signed, or why it does not count."""

    error: str = ""
    signer: str = ""
    payload_type: str = ""
    payload: bytes = b""


class Report(msgspec.Struct):
    """What the process writes to stdout; `problem` if no bundle could be looked at."""

    verdicts: list[Verdict] = []
    problem: str = ""


def verify(
    bundles: Sequence[bytes], identities: Sequence[Identity], trusted_root: Path
) -> list[Verdict]:
    """One verdict a bundle, in their order; BUNDLES_MAX of them at most are looked at.

    Raises InvalidArgument for a trusted root that is none, FailedPrecondition without the library,
    and DeadlineExceeded.
    """
    task = Task(str(trusted_root), list(identities), list(bundles[:BUNDLES_MAX]))
    command = [sys.executable, "-I", "-m", "orlop.trust.sigstore_process"]
    try:
        done = subprocess.run(
            command,
            input=msgspec.json.encode(task),
            capture_output=True,
            timeout=_LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise DeadlineExceeded(f"keyless signatures: no verdict after {_LIMIT:.0f} s") from None
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise FailedPrecondition(f"keyless signatures cannot be checked: {last}")
    report = typed.decode(done.stdout, Report)
    if report.problem:
        raise InvalidArgument(f'trusted root "{trusted_root}": {report.problem}')
    return report.verdicts

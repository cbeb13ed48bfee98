"""Image verifiers: programs in a folder that accept or reject an image (containerd's contract).

Each is run as `PROGRAM -name NAME -digest DIGEST -stdin-media-type TYPE` with the descriptor's JSON
on stdin. It accepts with exit status 0; what it writes to stdout is the reason.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from orlop.errors import DeadlineExceeded, FailedPrecondition, PermissionDenied
from orlop.oci.descriptor import Descriptor
from orlop.rpc import CallContext
from orlop.sys.program import as_input

DESCRIPTOR_TYPE = "application/vnd.oci.descriptor.v1+json"
OUTPUT_MAX = 16 << 10
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
_TICK = 0.1  # seconds between looks at whether the call was cancelled

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Verifiers:
    """The programs in `folder`, in the order of their names.

    At most `most` of them are asked, all with -1. Each has `limit` seconds. Without the folder, or
    with an empty one, every image is accepted, as by containerd.
    """

    folder: Path
    most: int = 10
    limit: float = 10

    def check(self, name: str, target: Descriptor, ctx: CallContext) -> None:
        """Return if all accept the image `name`, which is `target`.

        Raises PermissionDenied if one rejects it, DeadlineExceeded if one takes too long and
        FailedPrecondition if one cannot be run.
        """
        for program in self._programs():
            what = f'image verifier "{program.name}"'
            about = f'image "{name}" with digest "{target.digest}"'
            status, reason = self._run(program, name, target, ctx, f"{what} on {about}")
            if status:
                ending = f"exit status {status}" if status > 0 else f"signal {-status}"
                raise PermissionDenied(f"{what} rejects {about}: {reason or ending}")
            _log.info("%s accepts %s: %s", what, about, reason)

    def _programs(self) -> list[Path]:
        try:
            names = sorted(os.listdir(self.folder))  # noqa: PTH208 - names, in containerd's order
        except FileNotFoundError:
            return []
        except OSError as error:
            raise FailedPrecondition(
                f'image verifiers in "{self.folder}" cannot be listed: {error.strerror}'
            ) from None
        return [self.folder / each for each in (names if self.most < 0 else names[: self.most])]

    def _run(
        self, program: Path, name: str, target: Descriptor, ctx: CallContext, what: str
    ) -> tuple[int, str]:
        arguments = ["-name", name, "-digest", target.digest, "-stdin-media-type", DESCRIPTOR_TYPE]
        try:
            with as_input(msgspec.json.encode(target)) as stdin:
                process = subprocess.Popen(
                    [str(program), *arguments],
                    stdin=stdin,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env=_ENVIRONMENT,
                    cwd="/",
                    start_new_session=True,
                )
        except OSError as error:
            raise FailedPrecondition(f"{what} cannot be run: {error.strerror}") from None
        with process:
            try:
                output, complaint = _collect(process, time.monotonic() + self.limit, ctx)
            except TimeoutError:
                raise DeadlineExceeded(f"{what} took longer than {self.limit} s") from None
            finally:
                # Also what it started itself, which may outlive it and hold its streams.
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        if complaint:
            _log.warning("%s says: %s", what, complaint)
        return process.returncode, output


def _collect(
    process: subprocess.Popen[bytes], deadline: float, ctx: CallContext
) -> tuple[str, str]:
    """Its stdout and stderr, each cut at OUTPUT_MAX, once it has ended; TimeoutError past it."""
    assert process.stdout is not None
    assert process.stderr is not None
    texts = {process.stdout.fileno(): bytearray(), process.stderr.fileno(): bytearray()}
    pidfd = os.pidfd_open(process.pid)
    try:
        with selectors.DefaultSelector() as selector:
            for descriptor in (pidfd, *texts):
                selector.register(descriptor, selectors.EVENT_READ)
            ended = False
            while not ended:
                ctx.check()
                if time.monotonic() > deadline:
                    raise TimeoutError
                ready = {key.fd for key, _ in selector.select(_TICK)}
                ended = pidfd in ready
                for descriptor in ready & texts.keys():
                    if not _read(descriptor, texts[descriptor]):
                        selector.unregister(descriptor)
            for descriptor, text in texts.items():
                _drain(descriptor, text)
    finally:
        os.close(pidfd)
    output, complaint = (each.decode(errors="replace").strip() for each in texts.values())
    return output, complaint


def _read(descriptor: int, text: bytearray) -> bool:
    """Read once and keep what fits; False at the end of the stream."""
    data = os.read(descriptor, 1 << 16)
    text += data[: OUTPUT_MAX - len(text)]
    return bool(data)


def _drain(descriptor: int, text: bytearray) -> None:
    """Read what an ended program left in its stream, without waiting for its children."""
    os.set_blocking(descriptor, False)
    with suppress(BlockingIOError):
        while len(text) < OUTPUT_MAX and _read(descriptor, text):
            pass

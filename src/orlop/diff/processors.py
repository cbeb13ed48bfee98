"""Stream processors: programs that turn a layer of a foreign media type into one that is known.

The contract is containerd's, as imgcrypt's `ctd-decoder` has it: the layer comes on standard input,
what it is turned into goes to standard output, `STREAM_PROCESSOR_MEDIATYPE` tells the type, and a
client's payload, if there is one, is a serialized `Any` on descriptor 3.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field

from google.protobuf.any_pb2 import Any

from orlop.errors import FailedPrecondition, InvalidArgument
from orlop.oci import mediatypes

_TYPE = "STREAM_PROCESSOR_MEDIATYPE"
_PAYLOAD = 3
_STEPS = 8
_SAID = 1024  # bytes of a program's complaint that are passed on
_PATIENCE = 5.0  # seconds in which one whose output has ended must end


@dataclass(frozen=True, slots=True)
class Processor:
    """One program; `env` is added to the daemon's environment, as KEY=VALUE."""

    id: str
    accepts: Sequence[str]
    returns: str
    path: str
    args: Sequence[str] = ()
    env: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Processors:
    """Those that there are, by id."""

    known: Mapping[str, Processor] = field(default_factory=dict)

    def takes(self, media_type: str) -> bool:
        """Whether a layer of the type can be applied."""
        try:
            self._steps(media_type)
        except InvalidArgument:
            return False
        return True

    @contextmanager
    def plain(
        self, media_type: str, source: int, payloads: Mapping[str, Any] | None = None
    ) -> Iterator[int]:
        """A descriptor of the layer in `source`, a file, as a tar that is known here.

        It is the file itself where no program is needed. Raises InvalidArgument without a program
        for the type, FailedPrecondition when one fails: whoever reads less than all is told of that
        rather than of what he missed.
        """
        steps = self._steps(media_type)
        os.lseek(source, 0, os.SEEK_SET)
        if not steps:
            yield source
            return
        with ExitStack() as closing:
            runs, stream = [], source
            for step, kind in zip(steps, [media_type, *(s.returns for s in steps)], strict=False):
                run = _Run(step, kind, stream, (payloads or {}).get(step.id))
                runs.append(run)
                closing.callback(run.close)
                stream = run.output
            try:
                yield stream
            except Exception as error:
                for run in runs:
                    run.check(error)
                raise
            for run in runs:
                run.check()

    def _steps(self, media_type: str) -> list[Processor]:
        steps: list[Processor] = []
        while not mediatypes.is_layer(media_type):
            found = (each for each in self.known.values() if media_type in each.accepts)
            step = next(found, None)
            if step is None or len(steps) == _STEPS:
                raise InvalidArgument(
                    f'no processor for media-type "{media_type}": it is not a layer'
                )
            steps.append(step)
            media_type = step.returns
        return steps


class _Run:
    """A program at work, in a process group of its own: `output` is what it writes to."""

    def __init__(self, what: Processor, media_type: str, source: int, payload: Any | None) -> None:
        self._what = what
        self._status: int | None = None
        self._said = b""
        with ExitStack() as theirs, ExitStack() as undo:
            self.output, write = _pipe(theirs)
            undo.callback(self._close)
            said, complain = _pipe(theirs)
            undo.callback(os.close, said)
            fds = [source, write, complain]
            try:
                if payload is not None:
                    fds.append(_file_of(payload.SerializeToString(), theirs))
                self._pid = _spawn(what, media_type, fds)
                undo.callback(self._kill)
                self._end = os.pidfd_open(self._pid)
            except OSError as error:
                raise FailedPrecondition(
                    f'stream processor "{what.id}": {what.path}: {error.strerror}'
                ) from error
            undo.pop_all()
        self._listener = threading.Thread(target=self._listen, args=(said,), daemon=True)
        self._listener.start()

    def check(self, error: Exception | None = None) -> None:
        """Wait for its end; FailedPrecondition with what it said if it failed by itself."""
        self._close()  # which ends a program that writes on
        poll = select.poll()
        poll.register(self._end, select.POLLIN)
        if not poll.poll(_PATIENCE * 1000):
            if error is None:
                raise FailedPrecondition(
                    f'stream processor "{self._what.id}" has ended its output, and does not end'
                )
            return
        code = self._reap()
        if code > 0 or (code < 0 and error is None):
            self._listener.join(_PATIENCE)
            said = self._said.decode(errors="replace").strip()
            raise FailedPrecondition(
                f'stream processor "{self._what.id}" failed with status {code}: {said}'
            ) from error

    def close(self) -> None:
        """However far it has come; what it has started goes, too."""
        self._close()
        self._reap()
        os.close(self._end)

    def _listen(self, said: int) -> None:
        """What it complains of first; the rest is read, that it may go on."""
        with open(said, "rb", buffering=0) as pipe:
            while data := pipe.read(_SAID):
                self._said += data[: _SAID - len(self._said)]

    def _reap(self) -> int:
        if self._status is None:
            self._status = self._kill()
        return self._status

    def _kill(self) -> int:
        """Kill it with its group, if it has not ended; how it ended."""
        with suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)  # before it is reaped the number is its own
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])

    def _close(self) -> None:
        output, self.output = self.output, -1
        if output >= 0:
            os.close(output)


def _pipe(theirs: ExitStack) -> tuple[int, int]:
    """A pipe; the program's end is closed here once it has it."""
    read, write = os.pipe2(os.O_CLOEXEC)
    theirs.callback(os.close, write)
    return read, write


def _file_of(data: bytes, theirs: ExitStack) -> int:
    fd = os.memfd_create("payload", os.MFD_CLOEXEC)
    theirs.callback(os.close, fd)
    os.write(fd, data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _spawn(what: Processor, media_type: str, fds: Sequence[int]) -> int:
    """Start it with exactly these as its descriptors 0, 1, …; its pid."""
    extra = dict(each.partition("=")[::2] for each in what.env)
    return os.posix_spawn(
        what.path,
        [what.path, *what.args],
        {**os.environ, **extra, _TYPE: media_type},
        file_actions=[(os.POSIX_SPAWN_DUP2, fd, at) for at, fd in enumerate(fds)],
        setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),  # Python ignores them
        setpgroup=0,
    )

"""The keeper: the shim's process that stays, and does almost nothing.

An interpreter that works touches most of the pages that it shares with the fork server, and a shim
works for a few milliseconds in the life of a container. So the work is done by a *hand*: a child
that is forked when something happens, and that goes when nothing has happened for a while. What it
knows it leaves to the keeper (`rest`): some bytes that the keeper never looks into, the descriptors
of its client, streams and terminals, and which of them are worth waking up for.

The keeper is the subreaper of the containers' processes, so it is the keeper who learns how they
end. It tells the hand, or keeps it for the next one. If a hand dies by itself, so does the keeper:
the shim is dead then, which the daemon knows how to deal with.

    hand → keeper   parts of a `marshal`ed state, each after one byte, `+` or, for the last, `.`;
                    descriptors travel with the parts; or `!` and a request to fork a helper;
                    or `=`: the shim has been told whose it is, and takes its name; or `#` and how
                    many exits it has been told of, which the keeper may forget
    keeper → hand   one `EXIT` for each process that ended, or for a signal to stop; one `BORN` for
                    each helper
"""

from __future__ import annotations

import marshal
import os
import select
import struct
import time
import traceback
from collections.abc import Callable, Container, Mapping, Sequence
from typing import NamedTuple

from orlop.sys import bare
from orlop.sys.process import set_child_subreaper, set_parent_death_signal

EXIT = struct.Struct("=iiq")
"""A process id, its wait status, and the time in nanoseconds since the epoch."""
BORN = struct.Struct("=i")
"""The process id of a helper, or the error number, negative, why there is none."""
NAME = "orlop-shim"
HAND = "orlop-shim-hand"
_PART = 32 * 1024
_PART_FDS = 200
_MORE, _LAST, _FORK, _NAME, _HEARD = b"+", b".", b"!", b"=", b"#"
_COUNT = struct.Struct("=q")
_SIGKILL, _SIGTERM, _SIGCHLD = 9, 15, 17
_PAUSE = 0.1
"""Seconds before a hand is forked again for which the system had no room."""
STOP = 0
"""In place of a process id: somebody has told the shim to stop."""


class Ended(NamedTuple):
    """A process that the keeper has reaped, or `STOP`."""

    pid: int
    status: int
    at: int


class Rest(NamedTuple):
    """What a hand leaves."""

    state: bytes
    fds: Sequence[int]
    watched: Mapping[int, int]
    """Poll masks by the place of a descriptor in `fds`."""
    awaited: Sequence[int]
    """The processes whose exits somebody waits for."""
    seen: int
    """How many of the exits it was told it knows of."""


class Awakening(NamedTuple):
    """What a hand begins with."""

    keeper: int
    """The keeper's pid, which is the shim's to the outside."""
    control: bare.Socket
    state: bytes
    fds: list[int]
    ended: list[Ended]


def leave(control: bare.Socket, rest: Rest) -> None:
    """A hand's last act: hand its state over. The process must end then.

    Raises OSError if that cannot be begun, as when too many descriptors are on their way already.
    """
    body = marshal.dumps((rest.state, dict(rest.watched), list(rest.awaited), rest.seen))
    parts = [body[at : at + _PART] for at in range(0, len(body), _PART)]
    fds = [rest.fds[at : at + _PART_FDS] for at in range(0, len(rest.fds), _PART_FDS)]
    parts += [b""] * (len(fds) - len(parts))
    control.setblocking(True)
    for number, part in enumerate(parts):
        mark = _LAST if number == len(parts) - 1 else _MORE
        while True:
            try:
                bare.send(control, mark + part, fds[number] if number < len(fds) else ())
                break
            except OSError:
                if not number:
                    control.setblocking(False)
                    raise
            time.sleep(_PAUSE)  # there is no way back; and without the keeper we die


def ask_for_helper(control: bare.Socket, request: bytes, fds: Sequence[int]) -> None:
    """Have the keeper fork a helper; it answers with a `BORN`."""
    bare.send(control, _FORK + request, fds)


def take_name(control: bare.Socket) -> None:
    """Have the keeper called a shim: it was a spare one."""
    bare.send(control, _NAME)


def confirm(control: bare.Socket, told: int) -> None:
    """Have the keeper forget the exits that the hand has been told of, if there is room to say so.

    A hand that never rests, as that of a container with many probes, would make it remember all.
    """
    try:
        bare.send(control, _HEARD + _COUNT.pack(told))
    except BlockingIOError:
        pass  # the next one says it as well


class Keeper:
    """Forks a hand whenever there is something to do; `hand` is what it does, to its exit code.

    `helper` is what a helper does with a request and its descriptors: a process of its own that
    shares the keeper's memory and outlives it.
    """

    def __init__(
        self, hand: Callable[[Awakening], int], helper: Callable[[bytes, list[int]], int]
    ) -> None:
        self._hand = hand
        self._helper = helper
        self._state = b""
        self._fds: list[int] = []
        self._watched: Mapping[int, int] = {}
        self._awaited: Container[int] | None = None
        self._ended: list[Ended] = []
        self._forgotten = 0
        self._news: list[bytes] = []
        self._pid = 0
        self._code: int | None = None
        set_child_subreaper()
        self._wake, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        bare.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        for number in (_SIGCHLD, _SIGTERM):
            bare.signal(number, _note)

    def run(self, fds: Sequence[int]) -> int:
        """Serve with the descriptors `fds` until a hand ends the shim; its exit code."""
        self._fds = list(fds)
        while True:
            control = self._fork()
            code = self._attend(control)
            control.close()
            if code is not None:
                return code
            self._sleep()

    def _fork(self) -> bare.Socket:
        """A hand. While the system has no room for one, the containers go on without."""
        while True:
            try:
                return self._try_fork()
            except OSError:
                if not self._state:
                    raise
            time.sleep(_PAUSE)

    def _try_fork(self) -> bare.Socket:
        ours, theirs = bare.seqpacket_pair()
        keeper = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            ours.close()
            self._be_hand(keeper, theirs)
        theirs.close()
        ours.setblocking(False)
        for fd in self._fds:
            os.close(fd)
        self._fds, self._state, self._forgotten = [], b"", 0
        self._news, self._awaited, self._code = [], None, None
        return ours

    def _be_hand(self, keeper: int, control: bare.Socket) -> None:
        code = 1
        try:
            set_parent_death_signal(_SIGKILL)
            if os.getppid() != keeper:
                return  # it died before it could take us along
            bare.set_name(HAND)
            bare.set_wakeup_fd(-1)
            bare.signal(_SIGTERM, bare.SIG_IGN)  # the keeper tells of it
            os.close(self._wake)
            os.close(self._waker)
            start = Awakening(keeper, control, self._state, self._fds, self._ended)
            code = self._hand(start)
        except BaseException:  # noqa: BLE001 - it must never return into the keeper
            traceback.print_exc()
        finally:
            os._exit(code)

    def _attend(self, control: bare.Socket) -> int | None:
        """Tell the hand of exits until it goes; its exit code, or None if it left its state."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        parts: list[bytes] = []
        while True:
            poll.register(control, select.POLLIN | (select.POLLOUT if self._news else 0))
            for fd, events in poll.poll():
                if fd == self._wake:
                    self._take_signals()
                elif events & ~select.POLLOUT:
                    part, fds = self._take_part(control)
                    if part[:1] == _FORK:
                        self._news.append(BORN.pack(self._fork_helper(part[1:], fds)))
                        continue
                    if part[:1] == _HEARD:
                        self._forget(*_COUNT.unpack(part[1:]))
                        continue
                    if part[:1] == _NAME:
                        bare.set_name(NAME)
                        continue
                    self._fds += fds
                    if part == b"":
                        return self._await_hand()
                    parts.append(part[1:])
                    if part[:1] == _LAST:
                        self._await_hand()
                        self._remember(b"".join(parts))
                        return None
            self._tell(control)

    def _take_part(self, control: bare.Socket) -> tuple[bytes, list[int]]:
        while True:
            try:
                return bare.receive(control, _PART + 1, _PART_FDS)
            except ConnectionResetError:
                continue  # it went with unread news; what it said before is still to come

    def _fork_helper(self, request: bytes, fds: list[int]) -> int:
        try:
            pid = os.fork()
        except OSError as error:
            pid = -(error.errno or 1)
        if pid == 0:
            self._be_helper(request, fds)
        for fd in fds:
            os.close(fd)
        return pid

    def _be_helper(self, request: bytes, fds: list[int]) -> None:
        code = 1
        try:
            os.setsid()
            bare.set_wakeup_fd(-1)
            for number in (_SIGCHLD, _SIGTERM):
                bare.signal(number, bare.SIG_DFL)
            code = self._helper(request, fds)
        except BaseException:  # noqa: BLE001 - it must never return into the keeper
            traceback.print_exc()
        finally:
            os._exit(code)

    def _remember(self, body: bytes) -> None:
        self._state, self._watched, awaited, seen = marshal.loads(body)
        self._awaited = {STOP, *awaited}
        self._forget(seen)
        self._ended = [each for each in self._ended if each.pid in self._awaited]

    def _forget(self, told: int) -> None:
        """Drop the first of all the exits that this hand was told of."""
        del self._ended[: told - self._forgotten]
        self._forgotten = told

    def _await_hand(self) -> int:
        """It has said its last word; its copies of all descriptors are closed after this."""
        if self._code is None:
            self._code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        self._pid = 0
        return self._code

    def _tell(self, control: bare.Socket) -> None:
        try:
            while self._news:
                control.send(self._news[0])
                del self._news[0]
        except (BlockingIOError, BrokenPipeError, ConnectionResetError):
            pass  # later; or it is going, and the next one will be told

    def _sleep(self) -> None:
        """Wait until there is something to do."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        for number, mask in self._watched.items():
            poll.register(self._fds[number], mask)
        while not self._ended:
            if any(fd != self._wake for fd, _ in poll.poll()):
                return
            self._take_signals()

    def _take_signals(self) -> None:
        try:
            arrived = os.read(self._wake, 4096)
        except BlockingIOError:
            return
        if _SIGTERM in arrived:
            self._keep(Ended(STOP, 0, time.time_ns()))
        self._reap()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._pid:
                self._code = os.waitstatus_to_exitcode(status)
            elif self._awaited is None or pid in self._awaited:
                self._keep(Ended(pid, status, time.time_ns()))

    def _keep(self, ended: Ended) -> None:
        self._ended.append(ended)
        self._news.append(EXIT.pack(*ended))


def _note(_number: int, _frame: object) -> None:
    """The wake-up descriptor carries the signal; there is nothing to do here."""

"""The daemon's side of the network worker: ask it, start it, start another if it died."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterable
from contextlib import suppress
from typing import TypeVar

import msgspec

from orlop import errors, typed
from orlop.fork.worker import Companion, Spawner
from orlop.network import messages
from orlop.network.model import Chain, Link, Neighbour
from orlop.network.operations import AnyOperation, DeleteLink, Route, Rule
from orlop.network.progress import Progress

_IDLE = 60.0
_LIMIT = 60.0
_JOB = "orlop.network.worker:serve"
_encode = msgspec.json.Encoder().encode
_decode = typed.decoder(messages.Answer).decode
Value = TypeVar("Value")


class Kernel:
    """The kernel's network, by a worker that is forked when first needed. Thread-safe.

    It ends when nobody has asked for `idle` seconds, unless `keep` is set: then the next request
    finds it warm. Every method raises the kernel's errors in words, Unavailable when the worker
    dies over a request, and DeadlineExceeded when it is ended as it does not answer: what it had
    done of a list of operations stays then, and the error says how much that is. What only deletes
    what may be gone already is asked of another worker instead.
    """

    def __init__(self, forks: Spawner, *, idle: float = _IDLE) -> None:
        self._forks = forks
        self._idle = idle
        self._lock = threading.Lock()
        self._worker: Companion | None = None
        self._progress: Progress | None = None
        self.keep = False

    @property
    def pid(self) -> int | None:
        """The worker's, if one has been started."""
        worker = self._worker
        return worker.pid if worker is not None else None

    def close(self) -> None:
        """End the worker; another request would start one again."""
        with self._lock:
            self._drop()
            if self._progress is not None:
                self._progress.close()
                self._progress = None

    def apply(self, *operations: AnyOperation) -> None:
        """Do all of these in order, or none of them."""
        again = all(isinstance(each, DeleteLink) and each.missing_ok for each in operations)
        request = messages.Apply(operations=list(operations), keep=self.keep)
        self._ask(request, type(None), again=again)

    def links(self, ns: str = "") -> list[Link]:
        return self._ask(messages.Look(what="links", ns=ns, keep=self.keep), list[Link])

    def routes(self, ns: str = "") -> list[Route]:
        return self._ask(messages.Look(what="routes", ns=ns, keep=self.keep), list[Route])

    def neighbours(self, ns: str = "") -> list[Neighbour]:
        return self._ask(messages.Look(what="neighbours", ns=ns, keep=self.keep), list[Neighbour])

    def rules(self, ns: str = "") -> list[Rule]:
        return self._ask(messages.Look(what="rules", ns=ns, keep=self.keep), list[Rule])

    def sysctl(self, name: str, ns: str = "") -> str:
        return self._ask(messages.ReadSysctl(name=name, ns=ns, keep=self.keep), str)

    def pin(self, path: str) -> None:
        """Make a network namespace, its lo up, and pin it at the file `path`."""
        self._ask(messages.Pin(path=path, keep=self.keep), type(None))

    def filter(self, commands: str, *, again: bool = False, check: bool = False) -> str:
        """Run commands of nftables in one transaction; what it prints.

        With `again` they may be run twice, should a worker die over them; with `check` they are
        only tried.
        """
        request = messages.Filter(commands=commands, check=check, keep=self.keep)
        return self._ask(request, str, again=again)

    def set_chains(self, version: int, chains: Iterable[Chain], *, check: bool = False) -> None:
        """Make these chains of iptables, of one version of IP, what they say.

        All of a table, or none; the tables one after the other. With `check` it is only tried.
        """
        request = messages.SetChains(
            version=version, chains=list(chains), check=check, keep=self.keep
        )
        self._ask(request, type(None), again=True)

    def forget_flows(self, ports: Iterable[int]) -> None:
        """Lead UDP packets to these ports of the host anew, also those of flows that go on."""
        request = messages.ForgetFlows(ports=sorted(ports), keep=self.keep)
        self._ask(request, type(None), again=True)

    def has_chains(self, version: int, chains: Iterable[Chain]) -> bool:
        """Whether these chains of iptables are still there, with rules and the jumps to them."""
        request = messages.HasChains(version=version, chains=list(chains), keep=self.keep)
        return self._ask(request, bool, again=True)

    def _ask(
        self, request: messages.AnyRequest, kind: type[Value], *, again: bool = False
    ) -> Value:
        """With `again`, another worker is asked if the first one dies over it."""
        data = _encode(request)
        with self._lock:
            try:
                answer = self._exchange(data)
                if answer == b"" or (again and not answer):
                    # Empty: it had stopped reading before it saw this.
                    self._drop()
                    answer = self._exchange(data)
            except TimeoutError:
                text = self._ended(f"has not answered for {_LIMIT:g} seconds", request)
                raise errors.DeadlineExceeded(text) from None
            except BaseException:
                self._drop()
                raise
            if not answer:
                raise errors.Unavailable(self._ended("died over a request", request))
        found = _decode(answer)
        if found.error is not None:
            raise errors.from_code(found.error.code, found.error.message)
        return typed.decode(found.value, kind)

    def _exchange(self, data: bytes) -> bytes | None:
        """The answer's bytes; empty for a worker that said goodbye, None for one that died."""
        if self._progress is None:
            self._progress = Progress.create()
        self._progress.clear()
        if self._worker is None:
            self._worker = self._begin(self._progress)
        channel = self._worker.channel
        try:
            with suppress(BrokenPipeError, ConnectionResetError):  # its goodbye may be there
                messages.send(channel, data)
            return messages.receive(channel)
        except ConnectionResetError:
            return None

    def _ended(self, why: str, request: messages.AnyRequest) -> str:
        """End the worker; what happened to it, and what of the request stays, in words."""
        pid = self.pid
        self._drop()
        text = f"network worker {pid} {why}"
        if isinstance(request, messages.Apply) and self._progress is not None:
            text += f": {self._progress.left(request.operations)}"
        return text

    def _begin(self, progress: Progress) -> Companion:
        try:
            made = Companion(
                self._forks,
                _JOB,
                {"idle": self._idle},
                socket.SOCK_STREAM,
                [progress.fd],
                name="orlop-network",
            )
        except OSError as error:
            raise errors.Unavailable(f"network worker cannot be started: {error}") from error
        made.channel.settimeout(_LIMIT)
        return made

    def _drop(self) -> None:
        if self._worker is not None:
            self._worker.close()
            self._worker = None

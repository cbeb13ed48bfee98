"""The shims of a daemon: which kind a runtime's name means, and who shares one."""

from __future__ import annotations

import errno
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from google.protobuf.any_pb2 import Any

from orlop import tracing
from orlop.errors import NotFound, OrlopError, Unavailable
from orlop.rpc import CallContext
from orlop.rpc.reactor import Reactor
from orlop.runtime.binary import BinaryShims, find_binary
from orlop.runtime.borrowed import BorrowedShims
from orlop.runtime.bundle import Bundle
from orlop.runtime.forked import ForkedShims
from orlop.runtime.launcher import Launcher
from orlop.runtime.model import Endpoint, Exit
from orlop.runtime.shim import Killable, Shim, socket_path

_log = logging.getLogger(__name__)
# What connect says when there is no shim (any more).
_NOBODY = (errno.ENOENT, errno.ECONNREFUSED)

OWN_RUNTIMES = ("io.containerd.runc.v2", "io.containerd.orlop.v2", "io.containerd.runc.v1")
"""Runtime names that the built-in shim serves, unless the operator says otherwise."""
CONNECT_TIMEOUT = 5.0
_RETRY = 0.01
_DEATH = 2.0
"""Seconds until a shim that was killed is gone."""


class Shims:
    """Starts shims, connects to them, and ends those that nobody uses any more.

    `runtimes` overrides what a runtime's name means: `orlop`, or the path of a binary. `binaries`
    makes the launcher of a path. Those in `on_death` are called, on a thread that must not wait,
    when the connection to a shim in use ends.
    """

    def __init__(
        self,
        reactor: Reactor,
        own: ForkedShims,
        binaries: Callable[[str], BinaryShims],
        runtimes: Mapping[str, str],
    ) -> None:
        self.on_death: list[Callable[[Shim], None]] = []
        self._reactor = reactor
        self._own = own
        self._binaries = binaries
        self._runtimes = {**dict.fromkeys(OWN_RUNTIMES, own.mark), **runtimes}
        self._lock = threading.Lock()
        self._launchers: dict[str, Launcher] = {own.mark: own, BorrowedShims.mark: BorrowedShims()}
        self._users: dict[Shim, int] = {}
        self._closed = False
        self._leaving: set[str] = set()
        self._groups: dict[tuple[str, str], Shim] = {}

    @property
    def alive(self) -> int:
        """How many are in use and answer."""
        with self._lock:
            return sum(not shim.closed.is_set() for shim in self._users)

    @property
    def own_runtimes(self) -> list[str]:
        """The runtime names that mean the built-in shim."""
        return [name for name, mark in self._runtimes.items() if mark == self._own.mark]

    def launcher(self, runtime: str) -> Launcher:
        """What starts the shims of a runtime's name; Unknown when there is no such runtime."""
        mark = self._runtimes.get(runtime) or find_binary(runtime)
        return self._launcher(mark)

    def _of(self, bundle: Bundle) -> Launcher:
        return self._launcher(bundle.shim or self._own.mark)

    def _launcher(self, mark: str) -> Launcher:
        with self._lock:
            if mark not in self._launchers:
                self._launchers[mark] = self._binaries(find_binary(mark))
            return self._launchers[mark]

    def start(self, ctx: CallContext, bundle: Bundle, runtime: str, options: Any | None) -> Shim:
        """A shim for the bundle: a new one, or that of the group that its spec names.

        Raises Unknown with what a shim binary said, Unavailable when the shim does not answer.
        """
        launcher = self.launcher(runtime)
        bundle.shim = launcher.mark
        group = bundle.group()
        if group and launcher is self._own:
            shim = self._join(bundle, group)
            if shim is not None:
                return shim
        with tracing.span("shim.start", {"container.id": bundle.id, "orlop.runtime": runtime}):
            shim = self._launch(ctx, launcher, bundle, options)
        if group and launcher is self._own:
            with self._lock:
                self._groups.setdefault((bundle.namespace, group), shim)
        return shim

    def _launch(
        self, ctx: CallContext, launcher: Launcher, bundle: Bundle, options: Any | None
    ) -> Shim:
        """A new shim; one that does not answer leaves nothing."""
        process: Killable | None = None
        try:
            endpoint, process = launcher.start(ctx, bundle, options)
            return self._attach(bundle, endpoint, process)
        except BaseException:
            if process is not None:
                process.kill()
                process.close()
            try:
                launcher.clean_up(bundle)
            except (OrlopError, OSError) as failure:
                _log.warning("task=%s leftovers of its shim: %s", bundle.id, failure)
            raise

    def _join(self, bundle: Bundle, group: str) -> Shim | None:
        with self._lock:
            shim = self._groups.get((bundle.namespace, group))
            if shim is None or shim.closed.is_set():
                return None
            self._users[shim] += 1
        bundle.endpoint = shim.endpoint
        return shim

    def join(
        self, bundle: Bundle, sandbox: str, host: Bundle | None, endpoint: Endpoint | None
    ) -> Shim:
        """The shim of a sandbox, for a container in it.

        `host` is the sandbox's bundle, None for one that is not kept here; `endpoint` is where a
        client says that it listens. One of both is known.
        """
        bundle.sandbox = sandbox
        if host is None:
            bundle.shim = BorrowedShims.mark
        else:
            bundle.shim = host.shim or self._own.mark
            endpoint = endpoint or host.endpoint
        assert endpoint is not None
        bundle.endpoint = endpoint
        return self._attach(bundle, endpoint, None)

    def connect(self, bundle: Bundle) -> Shim:
        """The shim that serves a bundle from before; Unavailable when it is no more.

        Raises OSError when it cannot be told, for want of descriptors or memory.
        """
        group = bundle.group() if bundle.shim == self._own.mark else ""
        shim = self._attach(bundle, bundle.endpoint, None, patient=False)
        if group:
            with self._lock:
                self._groups.setdefault((bundle.namespace, group), shim)
        return shim

    def _attach(
        self,
        bundle: Bundle,
        endpoint: Endpoint,
        process: Killable | None,
        *,
        patient: bool = True,
    ) -> Shim:
        """The connection to an endpoint, shared by all who use it."""
        with self._lock:
            known = self._known(bundle.namespace, endpoint)
        if known is not None:
            return known
        shim = self._connect(bundle, endpoint, process, patient)
        with self._lock:
            known = self._known(bundle.namespace, endpoint)
            if known is None:
                self._users[shim] = 1
        if known is None:
            return shim
        shim.close()  # somebody else was faster
        return known

    def _known(self, namespace: str, endpoint: Endpoint) -> Shim | None:
        """The connection to an endpoint, if there is one, with one user more; the lock is held."""
        for shim in self._users:
            same = (shim.namespace, shim.endpoint.address) == (namespace, endpoint.address)
            if same and not shim.closed.is_set():
                self._users[shim] += 1
                return shim
        return None

    def _connect(
        self, bundle: Bundle, endpoint: Endpoint, process: Killable | None, patient: bool
    ) -> Shim:
        deadline = time.monotonic() + (CONNECT_TIMEOUT if patient else 0.0)
        own = bundle.shim == self._own.mark
        while True:
            try:
                return Shim(
                    bundle.namespace, endpoint, self._reactor, self._lost, own=own, process=process
                )
            except OSError as error:
                if error.errno not in _NOBODY:
                    raise  # says nothing of the shim: this daemon is short of something
                # A binary's shim may say where it will listen before it does.
                if time.monotonic() >= deadline:
                    raise Unavailable(
                        f'shim of "{bundle.id}" at "{endpoint.address}": {error.strerror or error}'
                    ) from None
            time.sleep(_RETRY)

    def release(self, shim: Shim, bundle: Bundle) -> None:
        """One user less, that of a bundle; after the last one the shim is told to end.

        A program that does not is ended.
        """
        if not self._leave(shim):
            return
        if bundle.shim == BorrowedShims.mark:
            shim.close()
            return
        if not shim.shutdown():
            self._of(bundle).end(bundle)
            shim.closed.wait(_DEATH)
            shim.close()
        if not shim.own:
            patience = _DEATH if shim.closed.is_set() else 0.0
            _remove_dead_socket(socket_path(shim.endpoint.address), patience)

    def abandon(self, shim: Shim, bundle: Bundle, *, answers: bool) -> None:
        """End what a failed create has begun; `answers` says whether the shim is well.

        Raises OrlopError or OSError when something of it may be left.
        """
        if shim.own and not answers:
            # The call was given up, not the create: have it finished, and undone.
            answers = shim.undo_create(bundle.id)
        last = self._leave(shim)
        if last and answers and bundle.shim != BorrowedShims.mark:
            answers = shim.shutdown()
        if answers and shim.own:
            if last:
                shim.settle()
            return  # it has undone its part
        if last:
            shim.kill()
            self._of(bundle).end(bundle)
        self.clean_up(bundle)

    def forget(self, shim: Shim) -> None:
        """One user less of a connection that is dead, or was not needed."""
        if self._leave(shim):
            shim.close()

    def _leave(self, shim: Shim) -> bool:
        """Whether that was the last user, for whom the shim is to end."""
        with self._lock:
            users = self._users.get(shim, 0) - 1
            if users > 0:
                self._users[shim] = users
                return False
            self._users.pop(shim, None)
            for key in [key for key, each in self._groups.items() if each is shim]:
                del self._groups[key]
        return True

    def clean_up(self, bundle: Bundle) -> Exit:
        """Remove the container that a dead shim has left; see `Launcher.clean_up`."""
        ended = self._of(bundle).clean_up(bundle)
        with suppress(NotFound):
            path = socket_path(bundle.endpoint.address)
            if bundle.shim == self._own.mark and not bundle.shares_shim():
                Path(path).unlink(missing_ok=True)  # it may be dying still, and answer
            else:
                _remove_dead_socket(path)
        return ended

    def reap(self) -> None:
        """Remove the sockets that an earlier daemon's shims have left, once all are connected."""
        with self._lock:
            used = {socket_path(shim.endpoint.address) for shim in self._users}
        _remove_dead_sockets(path for path in self._own.sockets() if path not in used)

    def _lost(self, shim: Shim) -> None:
        with self._lock:
            used, closed = shim in self._users, self._closed
        if used:
            for tell in self.on_death:
                tell(shim)
        elif shim.own and not closed:
            # It removes its socket itself, unless it was killed in its last moment.
            path = socket_path(shim.endpoint.address)
            with self._lock:
                self._leaving.add(path)
            self._reactor.call_later(_DEATH, lambda: self._gone(path))

    def _gone(self, path: str) -> None:
        _remove_dead_socket(path)
        with self._lock:
            self._leaving.discard(path)

    def close(self) -> None:
        """Close every connection; the shims live on."""
        self._own.close()
        with self._lock:
            shims, self._users, self._closed = list(self._users), {}, True
            leaving = list(self._leaving)
        for shim in shims:
            shim.close()
        _remove_dead_sockets(leaving)


def _remove_dead_sockets(paths: Iterable[str]) -> None:
    for path in paths:
        try:
            _remove_dead_socket(path)
        except OSError as error:  # it takes no room to speak of
            _log.warning('socket "%s" of a dead shim stays: %s', path, error)


def _remove_dead_socket(path: str, patience: float = 0.0) -> None:
    """Remove a shim's socket unless somebody listens: it may be that of a group.

    One that is dying listens for a moment still: `patience` is how many seconds.
    """
    deadline = time.monotonic() + patience
    while path.startswith("/") and Path(path).exists():
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            if probe.connect_ex(path) in _NOBODY:
                Path(path).unlink(missing_ok=True)
        if time.monotonic() >= deadline:
            return
        time.sleep(_RETRY)

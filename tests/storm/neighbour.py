"""Another daemon, whose snapshotter the rooms have by proxy; it may be killed as well."""

from __future__ import annotations

import os
import signal
import traceback
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from orlop.rpc import ServiceTable
from orlop.rpc.grpc.server import GrpcServer
from orlop.rpc.reactor import Reactor
from orlop.snapshots.guests import GuestSnapshotsService
from tests.storm import points
from tests.storm.rooms import Rooms

SNAPSHOTTER = "overlayfs"


class Neighbour:
    """A process that serves the snapshotters of `root` at `address`, while the context lasts."""

    def __init__(self, root: Path, address: Path, react: points.React = lambda step: None) -> None:
        self._root = root
        self._address = address
        self._react = react
        self.killed = False

    def __enter__(self) -> Neighbour:
        ready, told = os.pipe()
        waiting, self._stop = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(ready)
            os.close(self._stop)
            status = 1
            try:
                self._serve(waiting, told)
                status = 0
            except BaseException:  # noqa: BLE001 - nothing may come out of here
                traceback.print_exc()
            finally:
                os._exit(status)
        os.close(told)
        os.close(waiting)
        os.read(ready, 1)
        os.close(ready)
        return self

    def _serve(self, waiting: int, told: int) -> None:
        points.watch(self._react)
        with ExitStack() as closing:
            rooms = Rooms(self._root, closing, [SNAPSHOTTER], self._address)
            reactor = Reactor()
            closing.callback(reactor.close)
            service = GuestSnapshotsService(rooms.snapshotters, SNAPSHOTTER)
            server = GrpcServer(ServiceTable(service), reactor)
            server.add_unix(self._address, 0o600)
            server.start()
            closing.callback(server.stop, grace=0.2)
            os.write(told, b".")
            os.close(told)
            os.read(waiting, 1)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._stop)
        _, status = os.waitpid(self._pid, 0)
        self.killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        assert self.killed or status == 0, "the neighbour failed by itself"

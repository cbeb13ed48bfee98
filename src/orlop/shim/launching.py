"""How the runtime makes processes: their streams before, their pid and console after."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence

from orlop.shim import criu, files
from orlop.shim.children import Exit
from orlop.shim.console import ConsoleSocket
from orlop.shim.host import Host
from orlop.shim.loop import Promise
from orlop.shim.process import Process
from orlop.shim.runc import Runc, RuncError, checked

Launch = Callable[[Sequence[int], str], Awaitable[None]]


class Launcher:
    """Makes the processes of one container; `owner` (uid, gid) gets their pipes.

    Each method gives the promise of the process's exit, and raises RuncError with what the runtime
    said.
    """

    def __init__(
        self, host: Host, id: str, bundle: str, runc: Runc, owner: tuple[int, int]
    ) -> None:
        self._host = host
        self._id = id
        self._bundle = bundle
        self._runc = runc
        self._owner = owner
        self._pid_file = f"{bundle}/init.pid"

    async def open_io(self, process: Process) -> None:
        """What must be there before anything is launched; errors as of `ProcessIO.open`."""
        await process.io.open(
            self._host.children,
            self._host.log,
            namespace=self._host.namespace,
            container=self._id,
            owner=self._owner,
        )

    async def create(self, init: Process) -> Promise[Exit]:
        """The first process of the container, which waits to be started."""

        async def launch(fds: Sequence[int], console: str) -> None:
            await self._runc.create(self._id, self._bundle, self._pid_file, fds, console)

        return await self._launch(init, self._pid_file, launch, "create")

    async def restore(self, init: Process, images: str, work: str) -> Promise[Exit]:
        """The first process as it was when the checkpoint in `images` was made, running."""

        async def launch(fds: Sequence[int], console: str) -> None:
            place = (self._id, self._bundle, self._pid_file, fds, console)
            plan = criu.kept_plan(images)
            env = plan.environment(f"{self._bundle}/criu.conf", restore=True)
            flags = plan.flags
            try:
                await self._runc.restore(*place, images=images, work=work, flags=flags, env=env)
            except RuncError as error:
                raise RuncError(error.message + criu.told(f"{work}/restore.log")) from error

        os.makedirs(work, mode=0o700, exist_ok=True)
        return await self._launch(init, self._pid_file, launch, "restore")

    async def exec(self, process: Process) -> Promise[Exit]:
        """A further process, by its spec."""
        prefix = f"{self._bundle}/.exec-{process.id}"
        spec_file, pid_file = f"{prefix}.json", f"{prefix}.pid"

        async def launch(fds: Sequence[int], console: str) -> None:
            await self._runc.exec(self._id, spec_file, pid_file, fds, console)

        try:
            files.write(spec_file, process.spec, create=True)
            return await self._launch(process, pid_file, launch, "exec")
        finally:
            files.remove(spec_file)
            files.remove(pid_file)

    async def _launch(
        self, process: Process, pid_file: str, launch: Launch, action: str
    ) -> Promise[Exit]:
        """Run runc, learn the pid and connect stdio."""
        loop, children = self._host.loop, self._host.children
        console = None
        if process.stdio.terminal:
            console = ConsoleSocket(loop, self._bundle, f".console-{process.id}")
        try:
            with children.expecting() as expected:
                await checked(action, launch(process.io.child_fds, console.path if console else ""))
                process.pid = int(files.read_text(pid_file))
                ended = expected.exit_of(process.pid)
            process.io.started(await console.master() if console else None)
            return ended
        finally:
            if console is not None:
                console.close()

"""All stdio of one process, from before runc starts it until the process is deleted."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from orlop.errors import InvalidArgument
from orlop.shim import attach
from orlop.shim.attach import Hub, SharedSink
from orlop.shim.children import Children
from orlop.shim.console import Console
from orlop.shim.log import Log
from orlop.shim.logger import Logger
from orlop.shim.loop import Loop, Task
from orlop.shim.rest import Busy, Luggage
from orlop.shim.runc import NULL
from orlop.shim.stdio import (
    FileSink,
    HeldSink,
    Sink,
    StdinPump,
    Stdio,
    open_error,
    open_sink,
    split_uri,
    thaw_sink,
)

DRAIN_LIMIT = 2.0
"""Seconds that a delete waits for output which other processes still hold open."""


class ProcessIO:
    """Opened by `open`, handed to runc as `child_fds`, ended by `exited`, `drain` and `close`."""

    def __init__(self, loop: Loop, stdio: Stdio) -> None:
        self._loop = loop
        self._stdio = stdio
        self._stdout = self._stderr = Sink()
        self._stdin: StdinPump | None = None
        self._stdin_pipe: tuple[int, int] | None = None
        self._logger: Logger | None = None
        self._hub: Hub | None = None
        self._console: Console | None = None
        self._size: tuple[int, int] | None = None
        self._finishing: Task[None] | None = None

    def listen(self, folder: str, name: str) -> None:
        """Let clients come that want to share the streams, if it is to be so.

        They find the socket `name` in `folder`, from before the process until its output has ended.
        """
        if attach.inner(self._stdio.stdout) is not None:
            self._hub = Hub.open(self._loop, folder, name)

    def freeze(self, luggage: Luggage) -> dict[str, Any]:
        """What `thaw` makes it from again; Busy while bytes are on their way."""
        if self._stdin_pipe is not None:
            raise Busy
        if self._finishing is not None and not self._finishing.done:
            raise Busy
        state: dict[str, Any] = {"size": self._size, "finished": self._finishing is not None}
        outputs = [self._stdout, self._stderr]
        if self._hub is not None:
            state["hub"] = self._hub.freeze(luggage)
            state["shared"] = [
                each.freeze(luggage) if isinstance(each, SharedSink) else None for each in outputs
            ]
            outputs = [each.target if isinstance(each, SharedSink) else each for each in outputs]
        if self._logger is not None:
            state["logger"] = self._logger.freeze(luggage)
        else:
            state["sinks"] = [each.freeze(luggage) for each in outputs]
        if self._console is not None:
            state["console"] = self._console.freeze(luggage)
        if self._stdin is not None:
            state["stdin"] = self._stdin.freeze(luggage)
        return state

    @classmethod
    def thaw(
        cls,
        loop: Loop,
        children: Children,
        log: Log,
        luggage: Luggage,
        stdio: Stdio,
        state: dict[str, Any],
    ) -> ProcessIO:
        self = cls(loop, stdio)
        self._size = state["size"]
        if "logger" in state:
            self._logger = Logger.thaw(loop, children, log, luggage, state["logger"])
            self._stdout, self._stderr = self._logger.stdout, self._logger.stderr
        else:
            self._stdout, self._stderr = (thaw_sink(loop, luggage, each) for each in state["sinks"])
        if "hub" in state:
            self._hub = Hub.thaw(loop, luggage, state["hub"])
            self._thaw_shared(luggage, self._hub, state["shared"])
        if "console" in state:
            self._console = Console.thaw(loop, luggage, state["console"], self._stdout)
        if state.get("stdin"):
            self._stdin = StdinPump.thaw(loop, luggage, state["stdin"])
        if state["finished"]:
            self._finishing = loop.spawn(_nothing())
        return self

    def _thaw_shared(self, luggage: Luggage, hub: Hub, shared: list[Any]) -> None:
        loop, terminal = self._loop, self._stdio.terminal
        thaw = SharedSink.thaw_shared
        out, err = shared
        if out is not None:
            self._stdout = thaw(
                loop, luggage, hub, attach.STDOUT, self._stdout, out, copied=terminal
            )
        if err is not None:
            self._stderr = thaw(loop, luggage, hub, attach.STDERR, self._stderr, err, copied=False)

    async def open(
        self,
        children: Children,
        log: Log,
        *,
        namespace: str,
        container: str,
        owner: tuple[int, int],
    ) -> None:
        """Open everything; never waits for a client.

        `owner` (uid, gid) gets the pipes, so that a process may reopen /dev/stdout. Raises
        NotFound, InvalidArgument or Unknown with the URI; nothing stays open then.
        """
        try:
            stdio = self._stdio
            if self._hub is not None:
                out, err = (attach.inner(uri) or "" for uri in (stdio.stdout, stdio.stderr))
                stdio = Stdio("", out, err, stdio.terminal)
            await self._open_outputs(children, log, namespace, container, stdio)
            if self._hub is not None:
                self._share(self._hub)
            self._open_stdin()
            if owner != (0, 0):
                for fd in self.child_fds:
                    if fd != NULL:
                        os.fchown(fd, *owner)
        except BaseException:
            self.close()
            raise

    async def _open_outputs(
        self, children: Children, log: Log, namespace: str, container: str, stdio: Stdio
    ) -> None:
        if split_uri(stdio.stdout)[0] in ("binary", "binary-v2"):
            self._logger = await Logger.start(
                self._loop,
                children,
                log,
                stdio.stdout,
                namespace=namespace,
                container=container,
                copied=stdio.terminal,
            )
            self._stdout, self._stderr = self._logger.stdout, self._logger.stderr
            return
        copied = stdio.terminal or self._hub is not None
        self._stdout = open_sink(self._loop, stdio.stdout, copied=copied)
        if stdio.terminal:
            return
        if stdio.stderr == stdio.stdout and isinstance(self._stdout, FileSink | HeldSink):
            self._stderr = FileSink(os.dup(self._stdout.fd))  # both in the order of writing
        else:
            self._stderr = open_sink(self._loop, stdio.stderr, copied=copied, held=not copied)

    def _share(self, hub: Hub) -> None:
        """Put the clients of a hub between the process and its outputs."""
        terminal = self._stdio.terminal
        self._stdout = SharedSink.open(
            self._loop, hub, attach.STDOUT, self._stdout, copied=terminal
        )
        if not terminal:
            self._stderr = SharedSink.open(
                self._loop, hub, attach.STDERR, self._stderr, copied=False
            )

    def _open_stdin(self) -> None:
        if attach.inner(self._stdio.stdin) is not None:
            if self._hub is None:
                raise InvalidArgument('stdin "attach:" needs a stdout that is shared as well')
            if not self._stdio.terminal:
                self._stdin_pipe = os.pipe2(os.O_CLOEXEC)
            return
        path = split_uri(self._stdio.stdin)[1]
        if not path:
            return
        try:
            os.stat(path)
        except OSError as error:
            raise open_error(path, error) from error
        self._stdin = StdinPump(self._loop, path)
        if not self._stdio.terminal:
            self._stdin_pipe = os.pipe2(os.O_CLOEXEC)

    @property
    def child_fds(self) -> Sequence[int]:
        """Descriptors 0, 1 and 2 of the process."""
        if self._stdio.terminal:
            return (NULL, NULL, NULL)
        stdin = self._stdin_pipe[0] if self._stdin_pipe else NULL
        return (stdin, self._stdout.fd, self._stderr.fd)

    def started(self, master: int | None = None) -> None:
        """runc has passed `child_fds` on, or has sent the `master` of a console."""
        if master is not None:
            self._console = Console(self._loop, master, self._stdout)
            if self._size is not None:
                self._console.resize(*self._size)
            self._take_input(self._console.input)
            return
        self._stdout.child_has_it()
        self._stderr.child_has_it()
        self._take_input(self._stdin_writer)

    def _take_input(self, target: Callable[[], int]) -> None:
        """Begin to copy input to `target`, which is opened if there is any."""
        if self._stdin is not None:
            self._stdin.start(target())
        elif self._hub is not None and self._stdio.stdin:
            self._hub.feed_into(target())

    def _stdin_writer(self) -> int:
        assert self._stdin_pipe is not None
        reader, writer = self._stdin_pipe
        self._stdin_pipe = None
        os.close(reader)
        os.set_blocking(writer, False)
        return writer

    def begin(self) -> None:
        """The process runs: let its input in."""
        if self._stdin is not None:
            self._stdin.begin()

    def resize(self, width: int, height: int) -> None:
        """Set the terminal's size, now or when there is one."""
        self._size = (width, height)
        if self._console is not None:
            self._console.resize(width, height)

    def close_stdin(self) -> None:
        if self._stdin is not None:
            self._stdin.end()
        if self._hub is not None:
            self._hub.close_input()

    def exited(self) -> None:
        """The process has ended: stop its input, bring out the rest of its output."""
        if self._stdin is not None:
            self._stdin.close()
        if self._hub is not None:
            self._hub.close_input()
        self._finishing = self._loop.spawn(self._finish())

    async def drain(self) -> None:
        """Wait until all output is out, for a while; then end the logger."""
        if self._finishing is not None:
            await self._loop.within(DRAIN_LIMIT, self._finishing)
        if self._logger is not None:
            self._close_outputs()
            await self._logger.finish()

    def close(self) -> None:
        """Let go of everything; idempotent."""
        if self._stdin is not None:
            self._stdin.close()
        for fd in self._stdin_pipe or ():
            os.close(fd)
        self._stdin_pipe = None
        self._close_outputs()
        if self._logger is not None:
            self._logger.close()
        if self._hub is not None:
            self._hub.close()
        self._stdout = self._stderr = Sink()
        self._stdin = self._console = self._logger = self._hub = None

    def _close_outputs(self) -> None:
        """What is copying goes first: nothing may wait for a descriptor that is closed."""
        if self._finishing is not None:
            self._finishing.cancel()
        if self._console is not None:
            self._console.close()
        self._stdout.close()
        self._stderr.close()

    async def _finish(self) -> None:
        """Bring all out, and let go of what it came through: it may be long until the delete."""
        if self._console is not None:
            await self._console.drained()
            self._console.close()
        await self._stdout.finish()
        await self._stderr.finish()
        if self._hub is not None:
            self._hub.close()


async def _nothing() -> None:
    """What is left to finish of a process whose output is all out."""

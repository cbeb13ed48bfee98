"""Streams: what a hand may leave to the next one."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest

from orlop.shim import openings
from orlop.shim.loop import Loop
from orlop.shim.rest import Busy, Luggage
from orlop.shim.runc import OURS_ALONE, spawn
from orlop.shim.stdio import FifoSink, StdinPump
from tests.unit.shim.test_loop import run


def test_input_of_a_process_that_is_still_to_be_started_is_not_forgotten(tmp_path: Path) -> None:
    pump = StdinPump(Loop(lambda _: None), str(tmp_path / "stdin"))
    with pytest.raises(Busy):
        pump.freeze(Luggage())


def test_a_program_that_is_being_started_does_not_pass_for_a_client(tmp_path: Path) -> None:
    """What nobody has read yet stays, although the program has not closed its copies yet."""
    loop = Loop(lambda error: pytest.fail(str(error)))
    path = tmp_path / "out"
    os.mkfifo(path)
    sink = FifoSink.open(loop, str(path), copied=False)
    os.write(sink.fd, b"early")
    os.set_inheritable(sink._reader, True)  # the moment before close-on-exec, for longer
    with Path(os.devnull).open("r+b") as null:
        pid = spawn(["sleep", "60"], dict.fromkeys(range(3), null.fileno()))

    async def finish() -> list[bytes]:
        try:
            await sink.finish()
            await loop.sleep(0)
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        client = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        await loop.sleep(0.2)
        try:
            return [os.read(client, 100) for _ in range(2)]
        finally:
            os.close(client)

    try:
        assert run(loop, finish()) == [b"early", b""]
        assert not OURS_ALONE
    finally:
        sink.close()
        loop.close()


def test_a_late_client_where_others_have_every_inotify(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scarce() -> int:
        raise OSError(errno.EMFILE, "too many")

    monkeypatch.setattr(openings, "open_inotify", scarce)
    loop = Loop(lambda error: pytest.fail(str(error)))
    path = tmp_path / "out"
    os.mkfifo(path)
    sink = FifoSink.open(loop, str(path), copied=False)
    os.write(sink.fd, b"early")

    async def finish() -> list[bytes]:
        await sink.finish()
        await loop.sleep(0.3)
        client = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            found = [os.read(client, 100)]
            assert sink._handover is not None
            await sink._handover
            return [*found, os.read(client, 100)]
        finally:
            os.close(client)

    try:
        assert run(loop, finish()) == [b"early", b""]
    finally:
        sink.close()
        loop.close()

"""Streams that the daemon refuses."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orlop.client import Connection
from orlop.client.bytestreams import Download, Upload
from orlop.client.streams import ProgressStream
from orlop.errors import Unimplemented
from tests.patience import patient
from tests.unit.rpc.guinea import Peer


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    """To a daemon that has no such streams."""
    peer = Peer("ttrpc", tmp_path / "s.ttrpc")
    with Connection(str(tmp_path / "s")) as connection:
        yield connection
    peer.close()


@pytest.mark.parametrize(
    "make",
    [
        lambda c: ProgressStream(c, lambda _: None),
        lambda c: Upload(c, io.BytesIO(b"x")),
        lambda c: Download(c, io.BytesIO()),
    ],
)
def test_nobody_waits_for_a_stream_that_is_refused(
    connection: Connection, make: Callable[[Connection], Any]
) -> None:
    with pytest.raises(Unimplemented):
        make(connection)
    deadline = time.monotonic() + patient(20)
    while any(each.name == "orlop-send" for each in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)

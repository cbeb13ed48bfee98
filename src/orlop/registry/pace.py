"""An end to bodies that trickle: a byte now and then keeps every other limit from being reached."""

from __future__ import annotations

import time

from urllib3 import BaseHTTPResponse
from urllib3.exceptions import HTTPError

WINDOW = 60.0
"""Seconds of waiting after which it is looked at how much has come."""
LEAST = 60 * 1024
"""Bytes that must have come by then."""


class Pace:
    """Reads one body. Only the time spent waiting for it counts."""

    def __init__(self) -> None:
        self._waited = 0.0
        self._came = 0

    def read(self, response: BaseHTTPResponse, most: int) -> bytes:
        """What has come, at most so many bytes; empty at the end. HTTPError when it is too slow."""
        began = time.monotonic()
        data: bytes = response.read1(most)
        self._waited += time.monotonic() - began
        self._came += len(data)
        if self._waited >= WINDOW:
            if self._came < LEAST:
                raise HTTPError(f"only {self._came} bytes came in {self._waited:.0f} s")
            self._waited, self._came = 0.0, 0
        return data


def read_whole(response: BaseHTTPResponse, most: int) -> bytes:
    """A body, or its first `most` bytes; HTTPError when it breaks off or is too slow."""
    pace, data = Pace(), bytearray()
    while len(data) < most and (piece := pace.read(response, most - len(data))):
        data += piece
    return bytes(data)

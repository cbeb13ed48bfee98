"""Several hosts that can stand in for each other: whom to ask first, and when to turn to another.

A mirror may be away, or have damaged content, while the registry itself is well.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from orlop.errors import Cancelled, DeadlineExceeded, OrlopError, Unavailable
from orlop.registry.host import Host
from orlop.registry.http import Response
from orlop.registry.repository import Repository

T = TypeVar("T")

_MEMORY = 60.0  # seconds


class Silence:
    """Hosts that lately did not answer: for a minute they are asked last. Thread-safe."""

    def __init__(self) -> None:
        self._until: dict[tuple[str, str], float] = {}

    def note(self, host: Host) -> None:
        now = time.monotonic()
        self._until = {key: end for key, end in self._until.items() if end > now}
        self._until[host.scheme, host.name] = now + _MEMORY

    def __contains__(self, host: Host) -> bool:
        return self._until.get((host.scheme, host.name), 0.0) > time.monotonic()


def in_turn(able: Sequence[Repository], silence: Silence, do: Callable[[Repository], T]) -> T:
    """Do it with the first that can; the last one's error tells of all, if all fail."""
    failures: list[OrlopError] = []
    for repository in sorted(able, key=lambda each: each.host in silence):
        try:
            return do(repository)
        except (Cancelled, DeadlineExceeded):
            raise
        except OrlopError as error:
            if isinstance(error, Unavailable):
                silence.note(repository.host)
            failures.append(error)
    *earlier, last = failures
    if not earlier:
        raise last
    before = "; ".join(each.message for each in earlier)
    raise type(last)(f"{last.message}; before that: {before}") from last


class Sources:
    """Where the bytes of one blob may come from: its addresses, by repository. Thread-safe."""

    def __init__(self, places: Mapping[Repository, str], silence: Silence) -> None:
        self._places = places
        self._silence = silence
        self._lock = threading.Lock()
        self._served: set[Repository] = set()
        self._passed: set[Repository] = set()
        self._liars: set[Repository] = set()

    def open(self, headers: Mapping[str, str]) -> tuple[Repository, Response]:
        """The answer to a request for it, and whose that is; those passed over are asked last."""
        with self._lock:
            able = [each for each in self._places if each not in self._liars]
            able.sort(key=self._passed.__contains__)

        def ask(repository: Repository) -> tuple[Repository, Response]:
            return repository, repository.request("GET", self._places[repository], headers)

        repository, response = in_turn(able, self._silence, ask)
        with self._lock:
            self._served.add(repository)
        return repository, response

    def pass_over(self, repository: Repository) -> bool:
        """Ask others before one that breaks off, or has something else; whether there are any."""
        with self._lock:
            self._passed.add(repository)
            return len(self._places) - len(self._liars) > 1

    def spoiled(self) -> bool:
        """What came was not the blob: ask those that sent it no more. Whether others are left.

        Of several that sent parts, those that were passed over are the likelier to have erred.
        """
        with self._lock:
            suspects = self._served - self._liars
            if len(suspects) > 1:
                suspects = suspects & self._passed or suspects
            left = self._places.keys() - self._liars - suspects
            if left:
                self._liars |= suspects
            self._served.clear()
            return bool(suspects and left)

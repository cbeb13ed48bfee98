"""Several hosts that can stand in for each other: whom to ask first, and when to turn to another.

A mirror may be away, or have damaged content, while the registry itself is well.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeVar

from orlop.errors import Cancelled, DeadlineExceeded, OrlopError, Unavailable
from orlop.registry.failures import Silent
from orlop.registry.host import Host
from orlop.registry.http import Response
from orlop.registry.repository import Repository, asked_once

T = TypeVar("T")

_MEMORY = 60.0  # seconds


class Silence:
    """Hosts that lately did not answer: for a minute they are asked last. Thread-safe.

    One that mirrors several registries is remembered for each by itself: what is behind it for one
    of them may be away.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until: dict[tuple[str, ...], float] = {}

    def note(self, host: Host) -> None:
        now = time.monotonic()
        with self._lock:
            self._until = {key: end for key, end in self._until.items() if end > now}
            self._until[_key(host)] = now + _MEMORY

    def __contains__(self, host: Host) -> bool:
        with self._lock:
            return self._until.get(_key(host), 0.0) > time.monotonic()


def _key(host: Host) -> tuple[str, ...]:
    return host.scheme, host.name, host.prefix, host.namespace


def in_turn(
    able: Sequence[Repository],
    silence: Silence,
    do: Callable[[Repository], T],
    passed: Collection[Repository] = (),
) -> T:
    """Do it with the first that can; the error of the last of `able` tells of all, if all fail.

    Those known to be silent come last, those `passed` over after the others, and who is followed
    gets little time. Where all are unavailable, one of them is waited for.
    """
    asleep = {each for each in able if each.host in silence}
    turn = sorted(able, key=lambda each: (each in asleep, each in passed))
    hurried = {each for each in able if len(able) > 1 and (each in asleep or each is not turn[-1])}
    failures: dict[Repository, OrlopError] = {}
    while turn:
        repository = turn.pop(0)
        try:
            with asked_once(repository in hurried):
                return do(repository)
        except (Cancelled, DeadlineExceeded):
            raise
        except OrlopError as error:
            if isinstance(error, Silent):
                silence.note(repository.host)
            failures[repository] = error
        if not turn:
            turn = [each for each in _worth_waiting_for(able, asleep, failures) if each in hurried]
            hurried.difference_update(turn)
    told = failures.pop(able[-1])
    if not failures:
        raise told
    others = "; ".join(each.message for each in failures.values())
    raise type(told)(f"{told.message}; before that: {others}") from told


def _worth_waiting_for(
    able: Sequence[Repository], asleep: set[Repository], failures: Mapping[Repository, OrlopError]
) -> list[Repository]:
    """Of hosts that are all unavailable, the last that answered so; or that was not known to be
    silent."""
    if not all(isinstance(each, Unavailable) for each in failures.values()):
        return []
    answered = [each for each in able if not isinstance(failures[each], Silent)]
    return (answered or [each for each in able if each not in asleep])[-1:]


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
            passed = self._passed.copy()

        def ask(repository: Repository) -> tuple[Repository, Response]:
            return repository, repository.request("GET", self._places[repository], headers)

        repository, response = in_turn(able, self._silence, ask, passed)
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

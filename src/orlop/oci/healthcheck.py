"""Healthchecks as image configs have them (Docker's `HEALTHCHECK`), and as a label keeps them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from orlop.errors import InvalidArgument

LABEL = "orlop/healthcheck"
"""On a container whose health orlopd watches; the JSON is that of an image config."""
KINDS = ("NONE", "CMD", "CMD-SHELL")
SECOND = 10**9
_SHELL = ("/bin/sh", "-c")
_LEAST = 10**6
_MOST = 2**63 - 1
_TIMES = {
    "interval": "Interval",
    "timeout": "Timeout",
    "start_period": "StartPeriod",
    "start_interval": "StartInterval",
}


class Healthcheck(NamedTuple):
    """What is run in a container to learn whether it is well. Times are nanoseconds.

    `test` is `("CMD", argument…)`, `("CMD-SHELL", line)` or `("NONE",)`; empty leaves it to the
    image, and 0 leaves a number to the image, or to `defaulted`.
    """

    test: tuple[str, ...] = ()
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Healthcheck:
        """From the members of an image config; InvalidArgument for what makes no sense."""
        times = {name: _number(document, key) for name, key in _TIMES.items()}
        for name, value in times.items():
            if 0 < value < _LEAST:
                raise InvalidArgument(f"healthcheck: {_TIMES[name]} is less than a millisecond")
        return cls(
            test=_test(document.get("Test") or ()), retries=_number(document, "Retries"), **times
        )

    @classmethod
    def of_label(cls, text: str) -> Healthcheck:
        try:
            document = json.loads(text)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise InvalidArgument(f"label {LABEL}: it is not a JSON object")
        return cls.parse(document)

    @property
    def wanted(self) -> bool:
        """Whether there is anything to run."""
        return bool(self.test) and self.test[0] != "NONE"

    @property
    def command(self) -> Sequence[str]:
        kind, *rest = self.test
        return [*_SHELL, " ".join(rest)] if kind == "CMD-SHELL" else rest

    @property
    def document(self) -> dict[str, Any]:
        """As an image config has it, without what is 0."""
        values = {key: getattr(self, name) for name, key in _TIMES.items()}
        values["Retries"] = self.retries
        return {"Test": list(self.test), **{key: value for key, value in values.items() if value}}

    @property
    def label(self) -> str:
        return json.dumps(self.document)

    def over(self, other: Healthcheck) -> Healthcheck:
        """This one, and where it says nothing the other."""
        mine = {name: getattr(self, name) or getattr(other, name) for name in self._fields}
        return Healthcheck(**mine)

    def with_shell(self, shell: Sequence[str]) -> Healthcheck:
        """The same with an image's own shell, if it has one."""
        if not shell or self.test[:1] != ("CMD-SHELL",):
            return self
        return Healthcheck(("CMD", *shell, " ".join(self.test[1:]))).over(self)

    def defaulted(self) -> Healthcheck:
        """With Docker's defaults."""
        return self.over(
            Healthcheck(
                interval=30 * SECOND, timeout=30 * SECOND, start_interval=5 * SECOND, retries=3
            )
        )


def _test(found: Any) -> tuple[str, ...]:
    if not isinstance(found, list | tuple) or not all(isinstance(each, str) for each in found):
        raise InvalidArgument("healthcheck: Test is not a list of strings")
    test = tuple(found)
    if test and (test[0] not in KINDS or (test[0] != "NONE" and not "".join(test[1:]).strip())):
        raise InvalidArgument(
            f"healthcheck: Test {list(test)} is not one of {', '.join(KINDS)} and a command"
        )
    return test


def _number(document: Mapping[str, Any], key: str) -> int:
    value = document.get(key) or 0
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST:
        raise InvalidArgument(f"healthcheck: {key} {value!r} is not a number from 0 to {_MOST}")
    return value

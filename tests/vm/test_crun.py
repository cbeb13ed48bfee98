"""The tasks of ctr with crun instead of runC, by BinaryName."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.compat.test_ctr_tasks import *  # noqa: F403 - the same tests
from tests.daemon_fixture import Orlopd, serving_with


class WithCrun(Orlopd):
    """An orlopd whose containers ctr wants run by crun."""

    def ctr_command(self, *arguments: str, namespace: str = "") -> list[str]:
        makes = arguments[:1] == ("run",) or arguments[:2] == ("containers", "create")
        length = 1 if arguments[:1] == ("run",) else 2
        if makes:
            arguments = (*arguments[:length], "--runc-binary", "crun", *arguments[length:])
        return super().ctr_command(*arguments, namespace=namespace)


@pytest.fixture  # type: ignore[no-redef]
def orlopd() -> Iterator[Orlopd]:
    yield from serving_with(WithCrun())

"""The tasks of ctr on pure cgroup v2: by runC, and by crun as BinaryName names it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.compat.test_ctr_tasks import *  # noqa: F403 - the same tests
from tests.daemon_fixture import Orlopd, serving_with


class WithCrun(Orlopd):
    """An orlopd whose containers `ctr run` wants run by crun.

    Its `containers create` has no such flag: what that makes is run by runC.
    """

    def ctr_command(self, *arguments: str, namespace: str = "") -> list[str]:
        if arguments[0] == "run":
            arguments = ("run", "--runc-binary", "crun", *arguments[1:])
        return super().ctr_command(*arguments, namespace=namespace)


@pytest.fixture(scope="module", params=[Orlopd, WithCrun], ids=["runc", "crun"])  # type: ignore[no-redef]
def orlopd(request: pytest.FixtureRequest) -> Iterator[Orlopd]:
    yield from serving_with(request.param())

"""A pull that an image verifier rejects leaves nothing; one that it accepts goes on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from orlop.client.pull import pull_image
from orlop.errors import OrlopError
from tests.daemon_fixture import Orlopd, serving

pytestmark = pytest.mark.root


@pytest.fixture
def verifiers(tmp_path: Path) -> Path:
    folder = tmp_path / "verifiers"
    folder.mkdir()
    return folder


@pytest.fixture
def guarded(tmp_path: Path, verifiers: Path) -> Iterator[Orlopd]:
    """An orlopd that asks the programs in `verifiers`."""
    config = tmp_path / "config.toml"
    config.write_text(f'[image_verifier]\nbin_dir = "{verifiers}"\n')
    yield from serving(["--config", str(config)])


def _write(folder: Path, script: str) -> None:
    (folder / "judge").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "judge").chmod(0o755)


def test_the_verdict_decides(guarded: Orlopd, verifiers: Path, registry: str) -> None:
    name = f"{registry}/test/busybox:latest"
    _write(verifiers, f"echo seen; test $2 = {name} && exit 4; exit 0")
    with guarded.connect() as connection, pytest.raises(OrlopError) as caught:
        pull_image(connection, name, plain_http=True)
    assert re.search(rf'verifier "judge" rejects image "{name}" .*sha256:.*seen', str(caught.value))
    assert guarded.ctr("images", "ls", "-q").stdout == ""
    assert guarded.ctr("content", "ls", "-q").stdout == ""
    assert guarded.ctr("leases", "ls", "-q").stdout == ""

    _write(verifiers, "exit 0")
    with guarded.connect() as connection:
        pull_image(connection, name, plain_http=True)
    assert guarded.ctr("images", "ls", "-q").stdout.strip() == name

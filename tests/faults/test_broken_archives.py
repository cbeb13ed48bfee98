"""Imports and exports that break off: files, clients and the daemon itself, and a full disk."""

from __future__ import annotations

import io
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from orlop.client.archive import export_images, import_images
from orlop.errors import OrlopError, ResourceExhausted
from orlop.sys.mount import Mount, mount_all, unmount
from tests.archive_fixture import docker, single_image, tar_of
from tests.daemon_fixture import Orlopd
from tests.patience import patient

pytestmark = pytest.mark.root

NAME = "registry.test/hull:1"


def single(text: str = "hello") -> bytes:
    return single_image(NAME, text)


def _import(orlopd: Orlopd, data: bytes) -> list[str]:
    with orlopd.connect() as connection:
        return import_images(connection, io.BytesIO(data))


class Broken(io.RawIOBase):
    """A file that breaks after the first bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        if data := self._data.read(min(size, 1000)):
            return data
        raise OSError("the disk is gone")

    def write(self, data: object) -> int:
        raise OSError("no space left")


def test_a_file_that_breaks_is_the_callers_error(orlopd: Orlopd) -> None:
    with orlopd.connect() as connection:
        with pytest.raises(OSError, match="the disk is gone"):
            import_images(connection, Broken(single()[:3000]))  # type: ignore[arg-type]
        assert import_images(connection, io.BytesIO(single())) == [NAME]
        with pytest.raises(OSError, match="no space left"):
            export_images(connection, [NAME], Broken(b""))  # type: ignore[arg-type]
        out = io.BytesIO()
        export_images(connection, [NAME], out)
        assert out.getvalue()


class Slow(io.RawIOBase):
    """A file that gives some of an archive, then nothing until it is told to."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)
        self.waits, self.go_on = threading.Event(), threading.Event()

    def read(self, size: int = -1) -> bytes:
        if data := self._data.read(size):
            return data
        self.waits.set()
        self.go_on.wait(patient(90))
        return b""


def _import_and_kill(orlopd: Orlopd, slow: Slow, pause: float = 0) -> list[OrlopError]:
    """Import until nothing more comes, then kill the daemon after `pause` seconds."""
    failures: list[OrlopError] = []

    def work() -> None:
        try:
            with orlopd.connect() as connection:
                import_images(connection, slow)  # type: ignore[arg-type]
        except OrlopError as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    assert slow.waits.wait(patient(60))
    if pause:
        slow.go_on.set()
        time.sleep(pause)
    orlopd.kill9()
    slow.go_on.set()
    thread.join(patient(30))
    assert not thread.is_alive()
    orlopd.start()
    return failures


@pytest.mark.parametrize("part", [0.05, 0.6, 0.99])
def test_killed_in_the_middle(orlopd: Orlopd, part: float) -> None:
    big = single(random.Random(1).randbytes(2 << 20).hex())
    assert len(_import_and_kill(orlopd, Slow(big[: int(len(big) * part)]))) == 1
    assert orlopd.ctr("images", "ls", "-q").stdout == ""
    assert len(orlopd.ctr("snapshots", "ls").stdout.splitlines()) == 1
    assert _import(orlopd, big) == [NAME]
    assert "complete (2/2)" in orlopd.ctr("images", "check").stdout
    assert len(orlopd.ctr("content", "active").stdout.splitlines()) == 1


def test_killed_at_the_end(orlopd: Orlopd) -> None:
    """While layers are unpacked and records made: the image is there, whole, or it is not."""
    for count, pause in enumerate((0.001, 0.005, 0.01, 0.02, 0.05)):
        archive = single(random.Random(count).randbytes(2 << 20).hex())
        failures = _import_and_kill(orlopd, Slow(archive), pause)
        found = orlopd.ctr("images", "check").stdout
        assert failures or NAME in found
        if NAME in found:
            assert "complete (2/2)" in found
        assert _import(orlopd, archive) == [NAME]
        checked = orlopd.ctr("images", "check").stdout
        assert "complete (2/2)" in checked
        assert "true" in checked
        orlopd.ctr("images", "rm", NAME)


def test_a_client_that_goes_away_leaves_nothing(orlopd: Orlopd) -> None:
    slow = Slow(single()[:4000])
    connection = orlopd.connect()
    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(import_images, connection, slow)  # type: ignore[arg-type]
        assert slow.waits.wait(patient(60))
        connection.close()
        slow.go_on.set()
        assert isinstance(working.exception(patient(20)), OrlopError)
    orlopd.wait_for(lambda: len(orlopd.ctr("leases", "ls").stdout.splitlines()) == 1)
    assert len(orlopd.ctr("content", "active").stdout.splitlines()) == 1
    assert orlopd.ctr("images", "ls", "-q").stdout == ""


def test_a_full_disk(orlopd: Orlopd) -> None:
    """Neither kind of archive leaves anything, and what fits later is taken."""
    orlopd.stop()
    mount_all([Mount("tmpfs", "tmpfs", options=("size=4m",))], orlopd.root / "content")
    try:
        orlopd.start()
        noise = random.Random(1).randbytes(5 << 20).hex()
        for archive in (single(noise), tar_of(docker("a:1", text=noise))):
            with pytest.raises(ResourceExhausted, match="no space left for content"):
                _import(orlopd, archive)
        assert orlopd.ctr("images", "ls", "-q").stdout == ""
        assert len(orlopd.ctr("content", "active").stdout.splitlines()) == 1
        assert _import(orlopd, single()) == [NAME]
        orlopd.stop()
    finally:
        unmount(orlopd.root / "content")

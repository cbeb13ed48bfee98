"""Archives with devices, unpacked in a user namespace, where none can be made."""

from __future__ import annotations

import io
import stat
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.root

_UNPACK = """
import os, sys
from orlop.errors import InvalidArgument
from orlop.tar.extract import Extractor
from orlop.tar.reader import TarReader
os.chroot(sys.argv[1])
extractor = Extractor(overlay=sys.argv[2] == "overlay", max_entries=100,
                      layer=sys.argv[2] != "archive")
try:
    extractor.apply(TarReader(lambda: sys.stdin.buffer.read(4096)))
except InvalidArgument as error:
    sys.exit(error.message)
"""
_NULL = {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3}


def _archive(*members: tuple[str, dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, fields in members:
            info = tarfile.TarInfo(name)
            for key, value in fields.items():
                setattr(info, key, value)
            archive.addfile(info)
    return buffer.getvalue()


def _link(target: str) -> dict[str, Any]:
    return {"type": tarfile.LNKTYPE, "linkname": target}


def _unpack(root: Path, archive: bytes, kind: str = "layer") -> str:
    """Unpack into a folder; why it failed, if it did."""
    namespaces = ["unshare", "--user", "--map-root-user"]
    done = subprocess.run(
        [*namespaces, sys.executable, "-c", _UNPACK, str(root), kind],
        input=archive,
        capture_output=True,
        check=False,
    )
    return done.stderr.decode()


def _names(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def test_links_to_devices_are_left_out_too(tmp_path: Path) -> None:
    members = [("dev/null", _NULL), ("zero", _link("./dev/null")), ("also", _link("zero")),
               ("pipe", {"type": tarfile.FIFOTYPE}), ("twin", _link("pipe"))]  # fmt: skip
    assert _unpack(tmp_path, _archive(*members)) == ""
    assert _names(tmp_path) == ["dev", "pipe", "twin"]


def test_a_device_takes_the_place_of_what_was_there(tmp_path: Path) -> None:
    for name in ("below", "linked"):
        (tmp_path / name).touch()
    members = [("null", {}), ("null", _NULL), ("below", _NULL), ("linked", _link("null")),
               ("tree/file", {}), ("tree", _NULL), ("last", {})]  # fmt: skip
    assert _unpack(tmp_path, _archive(*members)) == ""
    assert _names(tmp_path) == ["last"]


def test_what_a_whiteout_hides_stays_hidden(tmp_path: Path) -> None:
    assert _unpack(tmp_path, _archive((".wh.null", {}), ("null", _NULL)), "overlay") == ""
    found = (tmp_path / "null").stat()
    assert (stat.S_IFMT(found.st_mode), found.st_rdev) == (stat.S_IFCHR, 0)


def test_what_takes_the_place_of_a_device_is_there(tmp_path: Path) -> None:
    members = [("null", _NULL), ("null", {}), ("link", _link("null"))]
    assert _unpack(tmp_path, _archive(*members)) == ""
    assert _names(tmp_path) == ["link", "null"]
    assert (tmp_path / "link").samefile(tmp_path / "null")


def test_a_link_to_nothing_still_fails(tmp_path: Path) -> None:
    failed = _unpack(tmp_path, _archive(("null", _NULL), ("link", _link("nil"))))
    assert 'a hard link "link" to "nil", which is not in the layer' in failed


def test_an_archive_does_not_remove_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "null").write_text("kept")
    members = [("null", _NULL), ("link", _link("null"))]
    assert _unpack(tmp_path, _archive(*members), "archive") == ""
    assert (tmp_path / "null").read_text() == "kept"
    assert _names(tmp_path) == ["null"]

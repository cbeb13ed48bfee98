"""The machine's second disk: this checkout as it is now, its Python packages, and what to run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.daemon_fixture import BUSYBOX
from tests.registry_fixture import build_busybox, skopeo_copy

CHECKOUT = Path(__file__).parents[2]
_NEEDLESS = {"mypy", "mypyc", "pip", "setuptools", "grpc_tools", "grimp", "ruff"}
"""What tests do not import, and is large."""


def write_disk(disk: Path, script: str, python: str) -> None:
    """Write the disk image `disk`; the guest, whose Python has version `python`, runs `script`.

    The checkout has its own path in the guest, so that its virtual environment works there.
    """
    if python != f"{sys.version_info.major}.{sys.version_info.minor}":
        raise SystemExit(
            f"the virtual machine has Python {python}, the virtual environment {sys.version}: "
            f"remove .venv and run make setup PYTHON=/usr/bin/python{python}"
        )
    # Beside the checkout's files, for hard links.
    stage = disk.parent / "stage"
    inside = stage / "checkout"
    _link_sources(inside)
    _link_environment(inside)
    subprocess.run(
        [sys.executable, "-m", "compileall", "-q", "-s", inside, "-p", CHECKOUT, inside / "src"],
        check=True,
    )
    (stage / "run").write_text(
        f"mkdir -p '{CHECKOUT}'\nmount --bind /media/host/checkout '{CHECKOUT}'\n"
        f"cd '{CHECKOUT}'\nexport ORLOP_TEST_IMAGE=/media/host/image\n{script}"
    )
    _prepare_image(stage / "image")
    size = _size(stage) * 5 // 4 + (64 << 20)
    make = ["mke2fs", "-q", "-t", "ext4", "-L", "host", "-O", "^has_journal", "-d"]
    subprocess.run([*make, stage, disk, f"{size >> 10}K"], check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(stage)


def _link_sources(inside: Path) -> None:
    """Everything that git would show, changed and new files too."""
    command = [
        "git",
        "-c",
        f"safe.directory={CHECKOUT}",
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
        "-z",
    ]
    listed = subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True).stdout
    for name in listed.decode().split("\0"):
        source = CHECKOUT / name
        if name and source.exists():
            (inside / name).parent.mkdir(parents=True, exist_ok=True)
            _link(str(source), str(inside / name))


def _link_environment(inside: Path) -> None:
    """The virtual environment, made one of the guest's Python."""
    environment = Path(sys.prefix)
    copy = inside / environment.relative_to(CHECKOUT)
    shutil.copytree(
        environment,
        copy,
        symlinks=True,
        copy_function=_link,
        ignore=lambda _, names: {name for name in names if name in _NEEDLESS or "mypyc" in name},
    )
    for program in copy.glob("bin/python*"):
        program.unlink()
        program.symlink_to("/usr/bin/python3")
    settings = copy / "pyvenv.cfg"
    settings.unlink()  # a hard link
    settings.write_text("home = /usr/bin\ninclude-system-site-packages = false\n")


def _prepare_image(folder: Path) -> None:
    """The small image of the tests (`registry_fixture.PREPARED`)."""
    folder.mkdir()
    build_busybox(folder / "layout")
    skopeo_copy(f"oci:{folder}/layout:latest", f"docker-archive:{folder}/busybox.tar:{BUSYBOX}")


def _link(source: str, target: str) -> None:
    os.link(source, target, follow_symlinks=False)


def _size(folder: Path) -> int:
    """Bytes on disk, in blocks, with room for what describes the files."""
    return sum((path.lstat().st_size + 4095) // 4096 * 4096 + 512 for path in folder.rglob("*"))

"""Mounts that mount(2) alone cannot make: of files by loop devices, and by programs for FUSE."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

from orlop.sys import loop
from orlop.sys.mount import LOOP, Mount, mount_one

_DEVICE = "device="
_OUTPUT_MAX = 1000
# What one of our processes may ignore is not to be ignored there.
_RESTORED = (signal.SIGCHLD, signal.SIGINT, signal.SIGPIPE, signal.SIGTERM, signal.SIGXFSZ)


def by_devices(item: Mount, target: Path) -> None:
    """By loop devices that go with the mount: of the source, and of erofs's other devices."""
    read_only = item.type == "erofs" or "ro" in item.options
    held: list[loop.Device] = []

    def device(image: str) -> str:
        path = Path(image)
        held.append(loop.attach(path, read_only=True) if read_only else loop.attach_to_mount(path))
        return held[-1].path

    try:
        source = device(item.source)
        options = tuple(
            _DEVICE + device(each.removeprefix(_DEVICE)) if each.startswith(_DEVICE) else each
            for each in item.options
            if each != LOOP
        )
        mount_one(item._replace(source=source, options=options), target)
    finally:
        for each in held:
            each.close()


def by_program(item: Mount, target: Path) -> None:
    """A type `fuse3.NAME` by `mount.fuse3 … -t NAME`, and `fuse.NAME` by `mount.fuse`.

    Raises OSError if that mounts nothing, with what it says.
    """
    family, _, kind = item.type.partition(".")
    program = f"mount.{family}"
    options = [each for option in item.options for each in ("-o", option)]
    before = target.stat().st_dev
    try:
        said = _run([program, item.source, str(target), *options, "-t", kind])
    except FileNotFoundError:
        text = f'"{item.type}" is mounted by "{program}", which is not in PATH: install {family}'
        raise OSError(errno.ENOENT, text, str(target)) from None
    # Rather than its exit code, which nobody gets whose children are reaped by the kernel.
    if target.stat().st_dev == before:
        raise OSError(errno.EIO, f'"{program}" has not mounted "{item.type}": {said}', str(target))


def _run(argv: list[str]) -> str:
    """What a program prints, also one that leaves another behind which keeps its output open."""
    output = os.memfd_create("output", os.MFD_CLOEXEC)
    try:
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, output, 1),
            (os.POSIX_SPAWN_DUP2, output, 2),
        ]
        pid = os.posix_spawnp(argv[0], argv, os.environ, file_actions=actions, setsigdef=_RESTORED)
        try:
            os.waitpid(pid, 0)
        except ChildProcessError:  # it has ended, and somebody else has reaped it
            pass
        return os.pread(output, _OUTPUT_MAX, 0).decode(errors="replace").strip()
    finally:
        os.close(output)

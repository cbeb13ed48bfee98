"""The steps at which a process may be killed, or its disk be full."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from orlop.metadata import Transaction
from orlop.snapshots.deletion import Deletion
from orlop.snapshots.shelf import Shelf
from orlop.sys import mount

React = Callable[[str], None]

_EVENTS = {
    "fcntl.ioctl", "os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.rename",
    "os.rmdir", "os.symlink", "os.truncate", "shutil.rmtree", "subprocess.Popen",
}  # fmt: skip
_NAMED = (Shelf, Deletion)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_TOOLS = ("orlop.metadata.database", "orlop.content.files", "orlop.sys.")


def watch(react: React) -> None:
    """Call `react` with the name of each step before it is taken; for the rest of this process."""

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in _EVENTS or (event == "open" and _writes(args)):
            step(event)

    def step(what: str) -> None:
        place = _place(sys._getframe(2))
        if place:
            react(f"{place}: {what}")

    sync = os.fsync
    after_commit = Transaction.run_after_commit

    def synced(fd: int) -> None:
        step("fsync")
        sync(fd)
        step("fsynced")

    def committed(transaction: Transaction) -> None:
        step("committed")
        after_commit(transaction)

    call = mount.call  # type: ignore[attr-defined]

    def called(name: str, *args: Any, **about: Any) -> int:
        step(name)
        return call(name, *args, **about)

    mount.call = called  # type: ignore[attr-defined]
    os.fsync = synced  # type: ignore[assignment]
    Transaction.run_after_commit = committed  # type: ignore[assignment, method-assign]
    _watch_commits(step)
    sys.addaudithook(hook)


def _watch_commits(step: React) -> None:
    execute = Transaction.execute

    def executed(transaction: Transaction, sql: str, *params: Any) -> Any:
        if not sql.lstrip().startswith(("SELECT", "WITH")):
            step(sql.split(None, 1)[0])
        return execute(transaction, sql, *params)

    Transaction.execute = executed  # type: ignore[assignment, method-assign]


def _writes(args: tuple[Any, ...]) -> bool:
    flags = args[2] if len(args) > 2 else 0
    return isinstance(flags, int) and bool(flags & _WRITING)


def _place(frame: FrameType | None) -> str:
    """The function of orlop's that takes the step, and the one of a room that it does it for.

    With the snapshotter whose step it is; "" for what a test does.
    """
    found: list[str] = []
    in_room, shelf = False, ""
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        function = frame.f_code.co_name
        ours = module.startswith("orlop.") and module != "orlop.metadata.database"
        if ours and not in_room and not function.startswith("<"):  # a comprehension
            in_room = not module.startswith(_TOOLS)
            if in_room or not found:
                found.append(f"{module.removeprefix('orlop.')}.{function}")
        if ours and isinstance(owner := frame.f_locals.get("self"), _NAMED):
            shelf = f" of {owner.name}"
            break
        frame = frame.f_back
    return " < ".join(found) + shelf if in_room else ""

"""What a process may change about itself: name, parentage, namespaces, capabilities."""

from __future__ import annotations

import ctypes
import itertools
import os
from collections.abc import Collection, Iterator
from pathlib import Path

from orlop.sys.libc import bind, call, raise_errno, syscall

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

CAP_CHOWN = 0
CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2
CAP_FOWNER = 3
CAP_FSETID = 4
CAP_SETGID = 6
CAP_SETUID = 7
CAP_SETPCAP = 8
CAP_NET_ADMIN = 12
CAP_NET_RAW = 13
CAP_SYS_CHROOT = 18
CAP_SYS_PTRACE = 19
CAP_SYS_ADMIN = 21
CAP_MKNOD = 27
CAP_SETFCAP = 31

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_CAPBSET_READ = 23
_PR_CAPBSET_DROP = 24
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION_3 = 0x20080522
_NAME_MAX = 15


_PRCTL = bind("prctl", ctypes.c_int, *[ctypes.c_ulong] * 4)

# ioprio_set(2); the C library has no function for it.
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}
_IOPRIO_WHO_PROCESS, _IOPRIO_IDLE = 1, 3 << 13
_LEAST = 19


def _prctl(option: int, value: int = 0) -> None:
    if _PRCTL(option, value, 0, 0, 0) == -1:
        raise_errno(f"prctl {option}")


def set_name(name: str) -> None:
    """Set what `ps` shows of this thread, cut to 15 bytes."""
    call("prctl", _PR_SET_NAME, ctypes.c_char_p(name.encode()[:_NAME_MAX]), 0, 0, 0)


def set_child_subreaper() -> None:
    """Become the parent of orphaned descendants."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def set_parent_death_signal(number: int) -> None:
    """Get signal `number` when the parent thread dies."""
    _prctl(_PR_SET_PDEATHSIG, number)


def set_no_new_privs() -> None:
    """Never gain privileges through exec again."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def mark(pid: int) -> str:
    """Who a process is, whoever has its pid later; "" for one that has ended.

    Raises OSError for want of descriptors, memory or permission, which tells nothing of it.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - pathlib is no help here
            fields = file.read().rpartition(b")")[2].decode().split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    state, began = fields[0], fields[19]
    return f"{pid}-{began}" if state not in "ZX" else ""


def is_alive(marked: str) -> bool:
    """Whether a process still runs that has had this mark."""
    pid = marked.partition("-")[0]
    return pid.isdecimal() and mark(int(pid)) == marked


def unshare(flags: int) -> None:
    """Leave the namespaces in `flags`; this thread only, except for the user namespace."""
    call("unshare", flags, about=f"unshare {flags:#x}")


def setns(fd: int, flags: int = 0) -> None:
    """Enter the namespace behind `fd`; this thread only."""
    call("setns", fd, flags, about=f"setns {flags:#x}")


def in_user_namespace() -> bool:
    """Whether root, for this process, is root of no more than its user has (user_namespaces(7))."""
    return Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]


def known_capabilities() -> Iterator[int]:
    """The numbers of the capabilities that this kernel has."""
    for number in itertools.count():
        try:
            _prctl(_PR_CAPBSET_READ, number)
        except OSError:
            return
        yield number


def bounding_capabilities() -> list[int]:
    """The numbers of those that this process and its children can ever have (capabilities(7))."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapBnd:"):
            mask = int(line.split()[1], 16)
            return [number for number in range(mask.bit_length()) if mask >> number & 1]
    return []


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def keep_capabilities(kept: Collection[int]) -> None:
    """Drop every capability but those in `kept`: bounding, permitted, effective, inheritable."""
    for number in known_capabilities():
        if number not in kept:
            _prctl(_PR_CAPBSET_DROP, number)
    data = (_Data * 2)()
    for number in kept:
        word = data[number // 32]
        word.effective |= 1 << number % 32
        word.permitted |= 1 << number % 32
    header = _Header(_CAPABILITY_VERSION_3, 0)
    call("capset", ctypes.byref(header), data, about="capset")


def be_patient() -> None:
    """Let everybody else go first, to the processor and to the disk."""
    os.nice(_LEAST)
    number = _IOPRIO_SET.get(os.uname().machine)
    if number is not None:
        syscall(number, _IOPRIO_WHO_PROCESS, 0, _IOPRIO_IDLE)

"""iptables-save and iptables-restore, and their like for IPv6; for the worker alone."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Container, Iterator, Sequence

import msgspec

from orlop.errors import FailedPrecondition
from orlop.network.model import Chain
from orlop.sys.process import set_parent_death_signal

_PROGRAMS = {4: "iptables", 6: "ip6tables"}
_FOLDERS = "/usr/sbin:/sbin"
_LOCK_WAIT = 20
_LIMIT = 40.0
_SHUT = re.compile("-A ORLOP-[^ ]+-EXIT -j DROP")


def set_chains(version: int, chains: Sequence[Chain], *, check: bool = False) -> None:
    """Make the chains what they say, each table in one transaction; what is so already stays.

    Others' chains are left alone. With `check` it is only tried. Raises FailedPrecondition with
    what the program says, or that it is not installed.
    """
    program = _PROGRAMS[version]
    if not any(each.rules for each in chains) and _path(f"{program}-save") is None:
        return
    text = changes(_run(f"{program}-save"), chains)
    if text:
        test = ["--test"] if check else []
        _run(f"{program}-restore", "--noflush", "--wait", str(_LOCK_WAIT), *test, text=text)


def has_chains(version: int, chains: Sequence[Chain]) -> bool:
    """Whether jumps to the chains and rules in them are there; which ones is not looked at."""
    wanted = [each for each in chains if each.rules]
    if not wanted:
        return True
    saved = _run(f"{_PROGRAMS[version]}-save")
    there = set()
    for table, line in _lines(saved):
        there |= {(table, line), (table, " ".join(line.split()[:2]))}
    return all(_stands(each, there) for each in _where_wanted(saved, wanted))


def _stands(chain: Chain, there: Container[tuple[str, str]]) -> bool:
    if not chain.rules:
        return (chain.table, f":{chain.name}") not in there
    jump = (chain.table, f"-A {chain.hook} -j {chain.name}")
    return (chain.table, f"-A {chain.name}") in there and (not chain.hook or jump in there)


def changes(saved: str, chains: Sequence[Chain]) -> str:
    """What iptables-restore is to read, given what iptables-save has written; "" is nothing.

    A chain is written anew in any case. A jump to it stays where it is, which may be behind others'
    rules by somebody's wish, and comes first if it is new, or last if it is to: but before that to
    a chain of another of us that drops all the rest.
    """
    there = Counter(_lines(saved))
    chains = _where_wanted(saved, chains)
    found: list[str] = []
    for table in dict.fromkeys(each.table for each in chains):
        rules, ends = [], []
        mine = [each for each in chains if each.table == table]
        known = [each for each in mine if each.rules or there[table, f":{each.name}"]]
        for each in known:
            jump = f"{each.hook} -j {each.name}"
            jumps = there[table, f"-A {jump}"] if each.hook else 0
            rules += [f"-A {each.name} {rule}" for rule in each.rules]
            if each.rules and each.hook and not jumps:
                if behind := each.last and _first_shut(saved, each):
                    rules.insert(0, f"-I {each.hook} {behind} -j {each.name}")
                else:
                    rules.append(f"{'-A' if each.last else '-I'} {jump}")
            if not each.rules:
                rules += [f"-D {jump}"] * jumps
                ends.append(f"-X {each.name}")
        if known:
            begins = [f":{each.name} - [0:0]" for each in known]
            found += [f"*{table}", *begins, *rules, *ends, "COMMIT"]
    return "".join(f"{line}\n" for line in found)


def _first_shut(saved: str, chain: Chain) -> int:
    """The place among the hook's rules of the first jump to another's EXIT that drops; or 0."""
    lines = [line for table, line in _lines(saved) if table == chain.table]
    shut = {f"-A {chain.hook} -j {line.split()[1]}" for line in lines if _SHUT.fullmatch(line)}
    hooked = (line for line in lines if line.startswith(f"-A {chain.hook} "))
    return next((place for place, line in enumerate(hooked, 1) if line in shut), 0)


def _where_wanted(saved: str, chains: Sequence[Chain]) -> list[Chain]:
    """Those that only another policy asks for are to have no rules."""
    policies = {}
    table = ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith(":"):
            chain, policy = line[1:].split()[:2]
            policies[table, chain] = policy
    return [
        each
        if each.policy in ("", policies.get((each.table, each.hook)))
        else msgspec.structs.replace(each, rules=())
        for each in chains
    ]


def _lines(saved: str) -> Iterator[tuple[str, str]]:
    """Each with its table; of chains only the name."""
    table = ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith(":"):
            yield table, line.split()[0]
        else:
            yield table, line


def _path(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:{_FOLDERS}")


def _run(program: str, *arguments: str, text: str = "") -> str:
    path = _path(program)
    if path is None:
        raise FailedPrecondition(f"{program} is not found: install iptables")
    try:
        done = subprocess.run(
            [path, *arguments],
            input=text,
            capture_output=True,
            encoding="utf-8",
            errors="replace",  # others' comments may be anything
            timeout=_LIMIT,
            check=False,
            # One that waits for its lock must not write old rules after our end.
            preexec_fn=lambda: set_parent_death_signal(signal.SIGKILL),
        )
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise FailedPrecondition(f'"{path}" cannot be run: {reason}') from None
    except subprocess.TimeoutExpired:
        raise FailedPrecondition(f'"{path}" has not ended within {_LIMIT:g} seconds') from None
    if done.returncode:
        raise FailedPrecondition(f"{program} refuses: {' '.join(done.stderr.split())}")
    return done.stdout

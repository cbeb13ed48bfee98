"""The run as a whole."""

from __future__ import annotations

import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from tests.daemon_fixture import BUSYBOX, Orlopd
from tests.soak.killer import Killer, loggers
from tests.soak.ledger import Ledger
from tests.soak.sailor import Sailor
from tests.soak.vitals import Vitals, held
from tests.soak.watcher import Watcher

# A long run is measured once it has been under way for so long, and at its end.
_WARM = 0.2
_MORE_DESCRIPTORS = 4
_MORE_THREADS_PER_CLIENT = 4
_MORE_MEMORY = 8 * 1024


def soak(
    archive: Path, *, seconds: float, clients: int, seed: int, kills: int = 0, pause: float = 0.4
) -> Ledger:
    """Run `clients` for some time, or until so many kills are done; what went wrong is in it.

    `archive` holds the small image. The daemon's end, and what it leaves, is checked as in tests.
    """
    ledger = Ledger()
    daemon = Orlopd()
    logs = Path(tempfile.mkdtemp(prefix="soak-"))
    try:
        daemon.start()
        daemon.ctr("images", "import", str(archive))
        daemon.ctr("run", "--rm", BUSYBOX, "first", "true")
        idle = Vitals.of(daemon.pid)
        until = time.monotonic() + (kills * pause * 3 if kills else seconds)
        sailors = [
            Sailor(daemon.connect, BUSYBOX, each, seed, until, ledger, logs, rough=bool(kills))
            for each in range(clients)
        ]
        watcher = Watcher(daemon.connect, ledger)
        watcher.start()
        for sailor in sailors:
            sailor.start()
        if kills:
            killer = Killer(daemon, ledger, logs, seed, kills, pause)
            killer.start()
            killer.join()
            for sailor in sailors:
                sailor.stop()
        else:
            time.sleep(seconds * _WARM)
            warm = Vitals.of(daemon.pid)
        for sailor in sailors:
            sailor.join()
        watcher.stop()
        if not kills:
            _check_vitals(daemon, idle, warm, clients, ledger)
        if not watcher.heard:
            ledger.fault("no event came")
        if not ledger.faults:
            _check_end(daemon, ledger, logs)
        if ledger.faults:
            told = " ".join(ledger.faults)
            harmed = [each for each in ledger.history if f"{each.partition(':')[0]} " in f"{told} "]
            ledger.faults += ["harmed were:", *harmed, daemon.log.read_text()[-4000:]]
    finally:
        daemon.discard()
        shutil.rmtree(logs)
    return ledger


def _check_vitals(daemon: Orlopd, idle: Vitals, warm: Vitals, clients: int, ledger: Ledger) -> None:
    """With the clients gone, the daemon holds what it held before, and its threads' memory."""
    spare = idle.descriptors + _MORE_DESCRIPTORS
    with suppress(AssertionError):  # connections close after their clients have gone
        daemon.wait_for(lambda: Vitals.of(daemon.pid).descriptors <= spare, 10)
    end = Vitals.of(daemon.pid)
    ledger.vitals = [idle, warm, end]
    if end.descriptors > spare:
        ledger.fault(
            f"descriptors: {idle.descriptors} before, {end.descriptors} after: {held(daemon.pid)}"
        )
    if end.threads > warm.threads + _MORE_THREADS_PER_CLIENT * clients:
        ledger.fault(f"threads: {warm.threads} early on, {end.threads} at the end")
    if end.memory > 1.1 * warm.memory + _MORE_MEMORY:
        ledger.fault(f"memory: {warm.memory} kB early on, {end.memory} kB at the end")


def _check_end(daemon: Orlopd, ledger: Ledger, logs: Path) -> None:
    """Nothing is left: not of the daemon, and not of any container."""
    daemon.stop()
    with suppress(AssertionError):
        daemon.wait_for(lambda: not daemon.leftovers() and not loggers(logs), 30)
    ledger.faults += [f"left is logger {pid}" for pid in loggers(logs)]
    for kind, found in daemon.leftovers().items():
        ledger.faults += [f"left of {kind}: {each}" for each in found]
    before, traceback, after = daemon.log.read_text().partition("Traceback")
    if traceback:
        ledger.faults += ["an error that nobody had thought of:", before[-300:] + after[:3000]]

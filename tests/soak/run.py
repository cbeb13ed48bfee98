"""The run as a whole."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from tests.daemon_fixture import BUSYBOX, Orlopd
from tests.soak.killer import Killer
from tests.soak.ledger import Ledger
from tests.soak.sailor import Sailor
from tests.soak.watcher import Watcher


def soak(
    archive: Path, *, seconds: float, clients: int, seed: int, kills: int = 0, pause: float = 0.4
) -> Ledger:
    """Run `clients` for some time, or until so many kills are done; what went wrong is in it.

    `archive` holds the small image. The daemon's end, and what it leaves, is checked as in tests.
    """
    ledger = Ledger()
    daemon = Orlopd()
    try:
        daemon.start()
        daemon.ctr("images", "import", str(archive))
        until = time.monotonic() + (kills * pause * 3 if kills else seconds)
        sailors = [
            Sailor(daemon.connect, BUSYBOX, each, seed, until, ledger, rough=bool(kills))
            for each in range(clients)
        ]
        watcher = Watcher(daemon.connect, ledger)
        watcher.start()
        for sailor in sailors:
            sailor.start()
        if kills:
            killer = Killer(daemon, ledger, seed, kills, pause)
            killer.start()
            killer.join()
            for sailor in sailors:
                sailor.stop()
        for sailor in sailors:
            sailor.join()
        watcher.stop()
        if not watcher.heard:
            ledger.fault("no event came")
        if not ledger.faults:
            _check_end(daemon, ledger)
        if ledger.faults:
            told = " ".join(ledger.faults)
            harmed = [each for each in ledger.history if f"{each.partition(':')[0]} " in f"{told} "]
            ledger.faults += ["harmed were:", *harmed, daemon.log.read_text()[-4000:]]
    finally:
        daemon.discard()
    return ledger


def _check_end(daemon: Orlopd, ledger: Ledger) -> None:
    """Nothing is left: not of the daemon, and not of any container."""
    daemon.stop()
    with suppress(AssertionError):
        daemon.wait_for(lambda: not daemon.leftovers(), 10)
    for kind, found in daemon.leftovers().items():
        ledger.faults += [f"left of {kind}: {each}" for each in found]
    if "Traceback" in daemon.log.read_text():
        ledger.faults.append("orlopd had an error that nobody had thought of")

"""The signal that ends the daemon."""

from __future__ import annotations

import subprocess
import sys

from tests.patience import patient

_ANOTHER_THREAD = """
import signal, threading, time
from orlop.daemon.lifecycle import StopSignal

def take():
    time.sleep(0.2)
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
    time.sleep(20)

stop = StopSignal()
threading.Thread(target=take, daemon=True).start()
print(stop.wait())
"""


def test_another_thread_may_take_it() -> None:
    """The kernel chooses the thread; the main one waits in a system call that must then end."""
    done = subprocess.run(
        [sys.executable, "-c", _ANOTHER_THREAD],
        capture_output=True, text=True, timeout=patient(60), check=True,
    )  # fmt: skip
    assert done.stdout == "SIGTERM\n"

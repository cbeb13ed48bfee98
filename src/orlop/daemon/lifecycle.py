"""The daemon's life: lock, fork server, rooms, serving, and a clean end."""

from __future__ import annotations

import faulthandler
import gc
import logging
import os
import signal
import sys
import time
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from types import FrameType

from orlop.daemon import metrics, status
from orlop.daemon.config import Config
from orlop.daemon.rootlock import RootLock
from orlop.daemon.systemd import Notifier
from orlop.fork.client import ForkServer
from orlop.sys.limits import use_all_descriptors

_log = logging.getLogger(__name__)

PRELOAD = ("orlop.shim.main", "orlop.fork.worker", "orlop.diff.unpack", "orlop.diff.pack")
# Objects made since the last look for garbage in cycles; of which there is little.
_GARBAGE = 10_000
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def run(config: Config) -> None:
    """Serve until SIGTERM or SIGINT; containers live on.

    Raises OrlopError or OSError when the daemon cannot start.
    """
    began = time.monotonic()
    with ExitStack() as closing:
        stop = StopSignal()
        faulthandler.enable()  # should an extension module end us, the log says where
        faulthandler.register(signal.SIGUSR1, file=sys.stderr, all_threads=True)
        manager = Notifier()
        _make_folders(config)
        closing.callback(RootLock(Path(config.root)).release)
        # Before any thread; and before the imports below, so that both warm up side by side.
        forks = ForkServer(_preloaded(config))
        forks.start()
        closing.callback(forks.stop)
        use_all_descriptors()  # a task takes two, a client one or more

        from orlop.daemon import assembly  # noqa: PLC0415 - see above

        assembly.serve(config, forks, closing)
        # What is here now stays: to look through it again and again would hold up every call.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_GARBAGE)
        manager.notify("READY=1")
        passed = 1000 * (time.monotonic() - began)
        _log.info('pid=%d serving on "%s" after %.0f ms', os.getpid(), config.address, passed)
        name = stop.wait()
        _log.info("stopping on %s; containers live on", name)
        manager.notify("STOPPING=1")
    _log.info("stopped")


def _preloaded(config: Config) -> tuple[str, ...]:
    shown = ((config.metrics, metrics.PRELOAD), (config.status, status.PRELOAD))
    more = (modules for section, modules in shown if section.address)
    return (*PRELOAD, *chain.from_iterable(more))


class StopSignal:
    """Waits for SIGTERM or SIGINT. A second one ends the process at once."""

    def __init__(self) -> None:
        # The kernel may give the signal to any thread, and a Python handler runs in the main one
        # only once that wakes up: what wakes it is the byte that the C handler writes.
        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(self._read, True)
        signal.set_wakeup_fd(self._write)
        for number in _STOP_SIGNALS:
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        for each in _STOP_SIGNALS:
            signal.signal(each, signal.SIG_DFL)

    def wait(self) -> str:
        """The name of the signal."""
        while (number := os.read(self._read, 1)[0]) not in _STOP_SIGNALS:
            pass
        return signal.Signals(number).name


def _make_folders(config: Config) -> None:
    for path, mode in ((Path(config.root), 0o700), (Path(config.state), 0o711)):
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(mode)

"""What a container prints, on its way to the client."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

from benchmarks.api import Api
from benchmarks.measure import Result, at_least, at_most
from benchmarks.rivals import Rival
from benchmarks.stage import Stage, name
from orlop.client import containers
from orlop.client.fifos import Fifos

_READ = 1 << 20


def bench_output(stage: Stage) -> list[Result]:
    """`dd if=/dev/zero bs=1M` to a client that reads a fifo."""
    megabytes, rounds = (256, 3) if stage.quick else (1024, 5)
    rows: list[list[tuple[float, float, float]]] = [[], []]
    with stage.apis() as apis:
        for index in range(rounds + 1):
            for rival, api, row in zip(stage.rivals, apis, rows, strict=True):
                figures = _measure(rival, api, stage.folder, megabytes)
                if index:
                    row.append(figures)
    ours, theirs = (map(statistics.median, zip(*row, strict=True)) for row in rows)
    what = ("stdout to client", "stdout, CPU per GB: daemon and shim", "stdout, CPU per GB: client")
    units, budgets = ("MB/s", "s", "s"), (at_least(1.5), at_most(1), at_most(1))
    return [Result(*each) for each in zip(what, ours, theirs, units, budgets, strict=True)]


def _measure(rival: Rival, api: Api, folder: Path, megabytes: int) -> tuple[float, float, float]:
    """Megabytes a second, and the processor time of both sides for a gigabyte."""
    container, size = name(), megabytes << 20
    with Fifos(folder, container, stdin=False, terminal=False) as fifos:
        assert fifos.stdout_fd is not None
        os.set_blocking(fifos.stdout_fd, True)
        dd = ["dd", "if=/dev/zero", "bs=1M", f"count={megabytes}"]
        api.create(container, dd, fifos.streams)
        start, server, client = time.perf_counter(), rival.meter.cpu(), time.thread_time()
        api.start(container)
        while size:
            size -= len(os.read(fifos.stdout_fd, _READ))
        passed, client = time.perf_counter() - start, time.thread_time() - client
        containers.wait(api.connection, container)
        server = rival.meter.cpu() - server
        api.remove(container)
    gigabytes = megabytes / 1024
    return megabytes / passed, server / gigabytes, client / gigabytes

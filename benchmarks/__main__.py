"""`python -m benchmarks [--quick] [NAME…]`: run the comparisons and print their ratios."""

from __future__ import annotations

import argparse
import compileall
import sys
from collections.abc import Callable
from pathlib import Path

import orlop
from benchmarks import (
    archives,
    attaching,
    calls,
    content,
    docker_engine,
    garbage,
    idle,
    metrics,
    naming,
    output,
    publishing,
    rivals,
    running,
    storage,
    transfers,
    unpacking,
)
from benchmarks.measure import Result, show, show_heading
from benchmarks.stage import Stage

# In an order in which none finds what another has left.
BENCHES: dict[str, Callable[[Stage], list[Result]]] = {
    "small": transfers.bench_small,
    "run": running.bench_run,
    "docker": docker_engine.bench_docker,
    "rate": running.bench_rate,
    "exec": running.bench_exec,
    "exit": running.bench_exit,
    "output": output.bench_output,
    "memory": idle.bench_memory,
    "idle": idle.bench_idle,
    "crowd": idle.bench_crowd,
    "scrape": metrics.bench_scrape,
    "scrapes": metrics.bench_scrapes,
    "layers": transfers.bench_layers,
    "again": transfers.bench_again,
    "link": transfers.bench_link,
    "large": transfers.bench_large,
    "unpack": unpacking.bench_unpack,
    "push": transfers.bench_push,
    "archives": archives.bench_archives,
    "calls": calls.bench_calls,
    "content": content.bench_content,
    "lists": calls.bench_lists,
    "garbage": garbage.bench_garbage,
    "blobs": storage.bench_blobs,
    "snapshots": storage.bench_snapshots,
    "diff": storage.bench_diff,
    "start": calls.bench_start,
    "attach": attaching.bench_attach,
    "ports": publishing.bench_ports,
    "names": naming.bench_names,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, smaller images")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHES)}")
    args = parser.parse_args()
    if unknown := set(args.names) - set(BENCHES):
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}")
    # As an installation does: from source, each start takes a third longer.
    compileall.compile_dir(Path(orlop.__file__).parent, quiet=1)
    show_heading()
    with (
        rivals.folder("images") as folder,
        rivals.registry() as host,
        rivals.orlopd() as ours,
        rivals.containerd() as theirs,
    ):
        stage = Stage(ours, theirs, host, folder, args.quick)
        for name, bench in BENCHES.items():
            if name in args.names or not args.names:
                show(bench(stage))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`python -m benchmarks [--quick] [NAME…]`: run the comparisons and print their ratios."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import images, rivals, transfers
from benchmarks.archives import bench_archives
from benchmarks.measure import Result, in_turns, show
from benchmarks.rivals import Rival

IDLE = 10
_NAMES = ["run", "memory", "small", "layers", "again", "link", "large", "push", "archives"]


def bench_run(ours: Rival, theirs: Rival, image: str, rounds: int) -> list[Result]:
    """`ctr run --rm … true`, the same ctr and the same runc."""

    def job(rival: Rival) -> Callable[[], object]:
        return lambda: rival.run_ctr("run", "--rm", image, "job", "true")

    return [in_turns("ctr run --rm true", job(ours), job(theirs), rounds=rounds, budget=0.65)]


def bench_memory(ours: Rival, theirs: Rival, image: str) -> list[Result]:
    """What one more idle container adds, in proportional set size, with ten of them."""
    figures = []
    for rival in (ours, theirs):
        for index in range(IDLE):
            rival.run_ctr("run", "-d", image, f"idle-{index}", "sleep", "1000")
        time.sleep(1)
        figures.append(sum(map(_pss, _shims(rival))) / IDLE)
        for index in range(IDLE):
            rival.run_ctr("tasks", "rm", "-f", f"idle-{index}")
            rival.run_ctr("containers", "rm", f"idle-{index}")
    return [Result("shim PSS, of ten", figures[0] / 1024, figures[1] / 1024, "MB", 0.5)]


def _shims(rival: Rival) -> set[int]:
    """The parents of the containers' processes."""
    tasks = [line.split() for line in rival.run_ctr("tasks", "ls").splitlines()[1:]]
    found = {_parent(int(pid)) for _, pid, _ in tasks}
    if len(found) != IDLE:
        raise RuntimeError(f"{len(found)} shims, {IDLE} expected")
    return found


def _parent(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("PPid:"):
            return int(line.split()[1])
    raise RuntimeError(f"no parent of {pid}")


def _pss(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise RuntimeError(f"no PSS of {pid}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the large image")
    parser.add_argument("names", nargs="*", choices=[[], *_NAMES])
    args = parser.parse_args()
    wanted = args.names or _NAMES
    results: list[Result] = []
    with (
        rivals.folder("images") as folder,
        rivals.registry() as host,
        rivals.orlopd() as ours,
        rivals.containerd() as theirs,
    ):
        small = images.push_small(host, folder)
        if "small" in wanted:
            results += transfers.bench_pull(ours, theirs, "pull, small image", small, rounds=7)
        if {"run", "memory"} & set(wanted):
            for rival in (ours, theirs):
                rival.run_ctr("images", "pull", "--plain-http", small)
        if "run" in wanted:
            results += bench_run(ours, theirs, small, rounds=5 if args.quick else 20)
        if "memory" in wanted:
            results += bench_memory(ours, theirs, small)
        if {"layers", "link", "again"} & set(wanted):
            results += _layered(ours, theirs, host, folder, wanted)
        if {"large", "archives", "push"} & set(wanted):
            results += _large(ours, theirs, host, folder, wanted, quick=args.quick)
    show(results)
    return 0


def _layered(
    ours: Rival, theirs: Rival, host: str, folder: Path, wanted: Sequence[str]
) -> list[Result]:
    """Thirty layers, some 25 MB."""
    results: list[Result] = []
    image = images.push_large(host, folder, "layered", layers=30, files=100, file_size=21_500)
    if "layers" in wanted:
        results += transfers.bench_pull(ours, theirs, "pull, 30 layers", image, rounds=5)
    if "again" in wanted:
        results += transfers.bench_again(ours, theirs, image, rounds=7)
    if "link" in wanted:
        results += transfers.bench_link(ours, theirs, host, image, rounds=3)
    return results


def _large(
    ours: Rival, theirs: Rival, host: str, folder: Path, wanted: Sequence[str], *, quick: bool
) -> list[Result]:
    """A gigabyte and 130,000 files, or a tenth of that."""
    results: list[Result] = []
    files = 1300 if quick else 13_000
    image = images.push_large(host, folder, "large", layers=10, files=files, file_size=21_500)
    if "large" in wanted:
        results += transfers.bench_pull(ours, theirs, "pull, large image", image, rounds=3)
        results += transfers.bench_pull_memory(image)
    if "push" in wanted:
        results += transfers.bench_push(ours, theirs, image, rounds=3)
    if "archives" in wanted:
        results += bench_archives(
            ours, theirs, image, folder, 3, lambda: transfers.empty_all(ours, theirs)
        )
    return results


if __name__ == "__main__":
    sys.exit(main())

"""`python -m benchmarks [--quick] [NAME…]`: run the comparisons and print their ratios."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import images, rivals
from benchmarks.archives import bench_archives
from benchmarks.measure import Result, in_turns, show
from benchmarks.rivals import Rival, run

IDLE = 10
_NAMES = ["run", "memory", "small", "large", "archives"]


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


def bench_pull(ours: Rival, theirs: Rival, what: str, image: str, rounds: int) -> list[Result]:
    """Pull and unpack; orlop by its own command, containerd by ctr, both by ctr as well."""
    orlop = str(Path(sys.executable).parent / "orlop")
    counter = iter(range(1000))

    def ctr_pull(rival: Rival) -> Callable[[], object]:
        def pull() -> None:
            rival.run_ctr("-n", f"round{next(counter)}", "images", "pull", "--plain-http", image)

        return pull

    def orlop_pull() -> None:
        run([orlop, "-a", ours.address, "-n", f"round{next(counter)}", "pull", "-q", image])

    def clean() -> None:
        empty_all(ours, theirs)

    return [
        in_turns(f"{what}: orlop pull", orlop_pull, ctr_pull(theirs), rounds=rounds, budget=0.33,
                 between=clean),
        in_turns(f"{what}: ctr images pull", ctr_pull(ours), ctr_pull(theirs), rounds=rounds,
                 budget=1.0, between=clean),
    ]  # fmt: skip


def empty_all(*rivals: Rival) -> None:
    for rival in rivals:
        empty(rival)


def empty(rival: Rival) -> None:
    """Remove every image, snapshot and blob, so that the next pull does all the work again."""
    for namespace in rival.run_ctr("namespaces", "ls", "-q").split():
        at = ("-n", namespace)
        for name in rival.run_ctr(*at, "images", "ls", "-q").split():
            rival.run_ctr(*at, "images", "rm", "--sync", name)
        while names := _snapshots(rival, namespace):
            for name in names:
                run_quietly(rival.ctr(*at, "snapshots", "rm", name))
        for digest in rival.run_ctr(*at, "content", "ls", "-q").split():
            run_quietly(rival.ctr(*at, "content", "rm", digest))


def _snapshots(rival: Rival, namespace: str) -> list[str]:
    lines = rival.run_ctr("-n", namespace, "snapshots", "ls").splitlines()[1:]
    return [line.split()[0] for line in lines]


def run_quietly(command: list[str]) -> None:
    try:
        run(command)
    except RuntimeError:
        pass  # the collector was faster, or a child is still there: the next round sees


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
            results += bench_pull(ours, theirs, "pull, small image", small, rounds=7)
        for rival in (ours, theirs):
            rival.run_ctr("images", "pull", "--plain-http", small)
        if "run" in wanted:
            results += bench_run(ours, theirs, small, rounds=5 if args.quick else 20)
        if "memory" in wanted:
            results += bench_memory(ours, theirs, small)
        if {"large", "archives"} & set(wanted):
            files = 1300 if args.quick else 13_000
            large = images.push_large(host, folder, layers=10, files=files, file_size=21_500)
        if "large" in wanted:
            results += bench_pull(ours, theirs, "pull, large image", large, rounds=3)
        if "archives" in wanted:
            results += bench_archives(
                ours, theirs, large, folder, 3, lambda: empty_all(ours, theirs)
            )
    show(results)
    return 0


if __name__ == "__main__":
    sys.exit(main())

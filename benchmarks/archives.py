"""Import and export of an archive: orlop by its library and by ctr, containerd by ctr."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.measure import Result, at_most, in_turns
from benchmarks.rivals import Rival
from benchmarks.stage import Stage
from benchmarks.transfers import empty_all
from orlop.client import Connection
from orlop.client.archive import export_images, import_images


def bench_archives(stage: Stage) -> list[Result]:
    """Import, unpacking, and export of the large image."""
    ours, theirs, image, rounds = stage.ours, stage.theirs, stage.large, 3
    archive, out = stage.folder / "archive.tar", stage.folder / "out.tar"
    theirs.run_ctr("images", "pull", "--plain-http", image)
    theirs.run_ctr("images", "export", str(archive), image)
    counter = iter(range(1000))

    def clean() -> None:
        empty_all(ours, theirs)

    def ctr_import(rival: Rival) -> Callable[[], object]:
        return lambda: rival.run_ctr(
            "-n", f"round{next(counter)}", "images", "import", str(archive)
        )

    def orlop_import() -> None:
        with (
            Connection(ours.address, f"round{next(counter)}") as connection,
            archive.open("rb") as file,
        ):
            import_images(connection, file)

    imports = [
        in_turns("archive: import", orlop_import, ctr_import(theirs), rounds=rounds,
                 budget=at_most(0.5), between=clean),
        in_turns("archive: ctr images import", ctr_import(ours), ctr_import(theirs),
                 rounds=rounds, budget=at_most(1.0), between=clean),
    ]  # fmt: skip
    for rival in (ours, theirs):
        rival.run_ctr("-n", "kept", "images", "import", str(archive))

    def ctr_export(rival: Rival) -> Callable[[], object]:
        return lambda: rival.run_ctr("-n", "kept", "images", "export", str(out), image)

    def orlop_export() -> None:
        with Connection(ours.address, "kept") as connection, out.open("wb") as file:
            export_images(connection, [image], file)

    exports = [
        in_turns("archive: export", orlop_export, ctr_export(theirs), rounds=rounds,
                 budget=at_most(0.5)),
        # ctr reads content 32 KiB a call: this is the time that calls take.
        in_turns("archive: ctr images export", ctr_export(ours), ctr_export(theirs),
                 rounds=rounds, budget=at_most(2.0)),
    ]  # fmt: skip
    clean()
    return imports + exports

"""The command line of the soak."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.daemon_fixture import BUSYBOX
from tests.registry_fixture import build_busybox, skopeo_copy
from tests.soak.run import soak


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak")
    parser.add_argument("--seconds", type=float, default=1200)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=0, help="kill so many things instead")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "busybox.tar"
        build_busybox(Path(folder) / "layout")
        skopeo_copy(f"oci:{folder}/layout:latest", f"docker-archive:{archive}:{BUSYBOX}")
        ledger = soak(
            archive, seconds=args.seconds, clients=args.clients, seed=args.seed, kills=args.kills
        )
    killed = ", ".join(f"{count} {what}" for what, count in sorted(ledger.kills.items()))
    print(f"{ledger.steps} steps; killed: {killed or 'nothing'}; {len(ledger.faults)} faults")
    for vitals in ledger.vitals:
        print(vitals)
    for fault in ledger.faults:
        print(fault)
    return bool(ledger.faults)


if __name__ == "__main__":
    sys.exit(main())

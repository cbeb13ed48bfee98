"""What the commands about checkpoints share."""

from __future__ import annotations

import argparse


def add_folder_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint-dir", default="", metavar="FOLDER",
        help="a folder of this host that holds checkpoints, instead of the daemon")  # fmt: skip

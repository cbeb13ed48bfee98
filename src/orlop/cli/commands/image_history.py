"""`orlop image history`: how an image was made, the newest step first."""

from __future__ import annotations

import argparse
from datetime import datetime
from typing import Any

from orlop.cli import table
from orlop.client import Connection, details, images
from orlop.errors import NotFound

_STEP_WIDTH = 60


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-trunc", action="store_true", help="show steps in full")
    parser.add_argument("image")


def run(args: argparse.Namespace, connection: Connection) -> int:
    image = images.get(connection, images.local_name(connection, args.image))
    found = details.of_this_machine(connection, image)
    if found.manifest is None or not found.config:
        raise NotFound(f'config of image "{image.name}"')
    sizes = [layer.size for layer in found.manifest.layers]
    rows = []
    for step in _steps(found.config, len(sizes)):
        # A step that changed no file has no layer (OCI image spec, config.md, "history").
        size = 0 if step.get("empty_layer") or not sizes else sizes.pop(0)
        rows.append(
            (
                _when(step.get("created")),
                _clip(step.get("created_by"), 0 if args.no_trunc else _STEP_WIDTH),
                table.size(size),
                _clip(step.get("comment"), 0 if args.no_trunc else _STEP_WIDTH),
            )
        )
    table.show(("CREATED", "CREATED BY", "SIZE", "COMMENT"), reversed(rows))
    return 0


def _steps(config: dict[str, Any], layers: int) -> list[dict[str, Any]]:
    """The history, or as many nameless steps as there are layers where it tells none."""
    history = config.get("history")
    if not isinstance(history, list) or not history:
        return [{} for _ in range(layers)]
    return [each for each in history if isinstance(each, dict)]


def _when(text: object) -> str:
    try:
        return table.ago(datetime.fromisoformat(str(text)).timestamp())
    except (ValueError, OverflowError):
        return ""


def _clip(text: object, width: int) -> str:
    """One line that does nothing to a terminal."""
    line = " ".join(str(text or "").split())
    line = "".join(c for c in line if c.isprintable())
    return line if not width or len(line) <= width else f"{line[: width - 1]}…"

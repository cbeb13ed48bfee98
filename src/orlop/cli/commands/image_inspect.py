"""`orlop image inspect`: what images consist of, as JSON."""

from __future__ import annotations

import argparse
import json
from typing import Any

from orlop.cli.each import failed
from orlop.client import Connection, details, images
from orlop.errors import OrlopError


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", nargs="+", metavar="IMAGE")


def run(args: argparse.Namespace, connection: Connection) -> int:
    found, status = [], 0
    for name in args.images:
        try:
            found.append(_inspect(connection, images.local_name(connection, name)))
        except OrlopError as error:
            status = failed(error)
    print(json.dumps(found, indent=4))
    return status


def _inspect(connection: Connection, name: str) -> dict[str, Any]:
    image = images.get(connection, name)
    return {
        "name": image.name,
        "digest": image.target.digest,
        "media_type": image.target.media_type,
        "labels": dict(image.labels),
        "created_at": image.created_at.ToJsonString(),
        "updated_at": image.updated_at.ToJsonString(),
        "platforms": [_platform(each) for each in details.platforms_of(connection, image)],
    }


def _platform(found: details.PlatformImage) -> dict[str, Any]:
    manifest = found.manifest
    return {
        "platform": found.platform,
        "digest": found.digest,
        "media_type": found.media_type,
        "complete": not found.missing,
        "missing": found.missing,
        "size": found.size,
        "layers": [
            {"digest": layer.digest, "media_type": layer.media_type, "size": layer.size}
            for layer in (manifest.layers if manifest else ())
        ],
        "config": found.config,
    }

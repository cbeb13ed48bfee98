"""`orlop images`: list images."""

from __future__ import annotations

import argparse
from datetime import datetime
from typing import Any

from orlop.cli import form, table
from orlop.client import Connection, images
from orlop.oci import reference
from orlop.rpc.convert import nanoseconds

_ID_LENGTH = 12
_COLUMNS = {"IMAGE": "Name", "DIGEST": "ID", "CREATED": "CreatedSince", "SIZE": "Size"}


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-q", "--quiet", action="store_true", help="names only")
    add("--no-trunc", action="store_true", help="whole digests")
    form.add_option(parser)
    add("name", nargs="?", metavar="REPOSITORY[:TAG]", help="only these")


def run(args: argparse.Namespace, connection: Connection) -> int:
    found = [each for each in images.list_all(connection) if _matches(each.name, args.name)]
    if args.quiet:
        for image in found:
            print(image.name)
        return 0
    rows = [_row(connection, image, whole=args.no_trunc) for image in found]
    form.show(rows, _COLUMNS, args.format)
    return 0


def _matches(name: str, wanted: str | None) -> bool:
    if wanted is None:
        return True
    full = str(reference.normalize(wanted))
    tagged = ":" in wanted.rpartition("/")[2] or "@" in wanted
    return name == full if tagged else _repository(name) == _repository(full)


def _repository(name: str) -> str:
    bare = name.partition("@")[0]
    folder, slash, last = bare.rpartition("/")
    return f"{folder}{slash}{last.partition(':')[0]}"


def _row(connection: Connection, image: images.Image, *, whole: bool) -> dict[str, Any]:
    created = nanoseconds(image.created_at) / 1e9
    digest = image.target.digest
    size = images.size(connection, image)
    repository = _repository(image.name)
    return {
        "Name": image.name,
        "Repository": repository,
        "Tag": image.name.removeprefix(repository).partition("@")[0].removeprefix(":"),
        "ID": digest if whole else digest.partition(":")[2][:_ID_LENGTH],
        "Digest": digest,
        "CreatedAt": datetime.fromtimestamp(created).astimezone().isoformat(timespec="seconds"),
        "CreatedSince": table.ago(created),
        "Size": "incomplete" if size is None else table.size(size),
        "Labels": dict(image.labels),
    }

"""`orlop manifest inspect`: the manifest or index of an image, as it is."""

from __future__ import annotations

import argparse
import json
import sys

from orlop.cli import transfers
from orlop.client import Connection, details, images
from orlop.errors import NotFound
from orlop.oci.descriptor import Descriptor


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-v", "--verbose", action="store_true", help="also what an index lists")
    transfers.add_registry(parser)
    parser.add_argument("image", help="looked up here first, then in its registry")


def run(args: argparse.Namespace, connection: Connection) -> int:
    name = images.full_name(args.image)
    target, data = _find(connection, args, name)
    if not args.verbose:
        sys.stdout.buffer.write(data)  # its bytes are what the digest is of
        if sys.stdout.isatty() and not data.endswith(b"\n"):
            sys.stdout.buffer.write(b"\n")
        sys.stdout.buffer.flush()
        return 0
    shown = [_shown(target, data)]
    for child in details.children(data, target.media_type):
        repository = name.partition("@")[0]
        shown.append(_shown(*_find(connection, args, f"{repository}@{child.digest}", child)))
    print(json.dumps(shown, indent=4))
    return 0


def _find(
    connection: Connection, args: argparse.Namespace, name: str, known: Descriptor | None = None
) -> tuple[Descriptor, bytes]:
    try:
        if known is None:
            target = images.get(connection, name).target
            known = Descriptor(media_type=target.media_type, digest=target.digest, size=target.size)
        return known, images.document(connection, known.digest)
    except NotFound:
        from orlop.client.remote import fetch_manifest

        with transfers.advising(name):
            return fetch_manifest(
                name,
                answer=transfers.answer(args),
                plain_http=args.plain_http,
                folders=transfers.hosts_folders(args, connection),
            )


def _shown(target: Descriptor, data: bytes) -> dict[str, object]:
    return {
        "digest": target.digest,
        "media_type": target.media_type,
        "size": target.size,
        "document": json.loads(data),
    }

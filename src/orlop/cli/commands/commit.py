"""`orlop commit`: make an image of what a container has changed."""

from __future__ import annotations

import argparse
import signal
import sys
from types import FrameType

from orlop.client import Connection, containers
from orlop.client.commit import commit

_ENDING = (signal.SIGTERM, signal.SIGHUP)


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-a", "--author", default="", help="who made it: NAME <MAIL>")
    parser.add_argument("-m", "--message", default="", help="what for, in the image's history")
    parser.add_argument("-c", "--change", action="append", default=[], metavar="INSTRUCTION",
        help="an instruction of a Dockerfile: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, "
        "ONBUILD, STOPSIGNAL, USER, VOLUME or WORKDIR (may be repeated)")  # fmt: skip
    parser.add_argument("-p", "--pause", action="store_true", default=True,
        help="let a running container stand still meanwhile (as it does anyway)")  # fmt: skip
    parser.add_argument("--no-pause", "--pause=false", action="store_false", dest="pause",
        help="let it go on")  # fmt: skip
    parser.add_argument("container")
    parser.add_argument("image", nargs="?", default="", help="the name of the new image")


def _end(number: int, frame: FrameType | None) -> None:
    """In order: the container must not stay paused."""
    for each in _ENDING:
        signal.signal(each, signal.SIG_IGN)
    sys.exit(128 + number)


def run(args: argparse.Namespace, connection: Connection) -> int:
    for number in _ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)
    image = commit(
        connection,
        containers.get(connection, args.container),
        args.image,
        author=args.author,
        message=args.message,
        changes=args.change,
        pause=args.pause,
    )
    print(image.target.digest if args.image else image.name)
    return 0

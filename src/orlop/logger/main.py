"""`orlop-logger`: the log writer as a program, for any shim that knows `binary://`.

`binary:///usr/bin/orlop-logger?path=/var/log/x.log&format=json-file|cri&max-size=10m&max-file=10`
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from orlop.descriptors import is_open, open_standard
from orlop.errors import OrlopError
from orlop.logger import options, writer
from orlop.logger.rotation import RotatingFile

USAGE = f"""usage: orlop-logger path FILE [format {"|".join(options.FORMATS)}]
                    [max-size SIZE] [max-file N]

A shim starts it, by a URI such as binary:///usr/bin/orlop-logger?path=/var/log/one.log, and gives
it the container's output on descriptors 3 and 4.
"""
FAILURE = 1
USAGE_ERROR = 2


def main() -> int:
    open_standard()
    arguments = sys.argv[1:]
    by_shim = all(map(is_open, (writer.STDOUT, writer.STDERR, writer.READY)))
    if not by_shim or len(arguments) % 2:
        sys.stderr.write(USAGE)
        return USAGE_ERROR
    return serve(dict(zip(arguments[::2], arguments[1::2], strict=True)))


def serve(values: Mapping[str, str]) -> int:
    """Be a log writer; the exit status."""
    try:
        wanted = options.parse(values)
        file = RotatingFile(wanted.path, wanted.max_size, wanted.max_file)
    except OrlopError as error:
        return _give_up(error.message)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        return _give_up(f'log "{error.filename}": {reason}')
    writer.run(wanted, file)
    return 0


def _give_up(reason: str) -> int:
    """Descriptor 5 tells that a logger is ready; orlop's shim also reads there why it is not."""
    os.write(writer.READY, reason.encode())
    return FAILURE

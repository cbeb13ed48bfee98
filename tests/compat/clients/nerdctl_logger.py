"""The log driver that nerdctl is when run as `nerdctl _NERDCTL_INTERNAL_LOGGING STORE`.

Output comes on descriptors 3 and 4; 5 is closed when the driver is ready. It asks the daemon for
the container's end, and stops reading then, whether the pipes have ended or not.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import IO

from orlop.errors import NotFound
from orlop.wire.services import tasks_pb2
from tests.compat.clients.peer import Peer
from tests.patience import patient

MAGIC = "_NERDCTL_INTERNAL_LOGGING"


def main() -> None:
    magic, store = sys.argv[1:]
    assert magic == MAGIC
    namespace, container = os.environ["CONTAINER_NAMESPACE"], os.environ["CONTAINER_ID"]
    folder = Path(store) / namespace / container
    settings = json.loads((folder / "log-config.json").read_text())
    os.close(5)
    with (folder / "log.json").open("w") as log:
        copying = [
            threading.Thread(target=_copy, args=(name, fd, log), daemon=True)
            for name, fd in (("stdout", 3), ("stderr", 4))
        ]
        for each in copying:
            each.start()
        _await_end(settings["host"], namespace, container)
        for each in copying:
            each.join(patient(5))  # for what is on its way, whether the pipes end or not
    (folder / "done").touch()


def _copy(name: str, fd: int, log: IO[str]) -> None:
    with os.fdopen(fd) as stream:
        for line in stream:
            print(json.dumps({"stream": name, "log": line}), file=log, flush=True)


def _await_end(address: str, namespace: str, container: str) -> None:
    """There is no task yet when a logger starts: its creation waits for the logger."""
    peer = Peer(address, namespace)
    while True:
        try:
            peer.tasks.wait(tasks_pb2.WaitRequest(container_id=container))
        except NotFound:
            time.sleep(0.1)
        else:
            return


if __name__ == "__main__":
    main()

"""The fork server's own process: `python -m orlop.fork.server FD MODULE…`.

It imports the given modules, freezes the garbage collector, and then answers requests on the
SOCK_SEQPACKET socket FD. A request is a JSON object with descriptors attached (SCM_RIGHTS):

    {"entry": "package.module:function", "args": {…}, "name": "orlop-shim"}

and the answer is `{"pid": N}` or `{"error": "…"}`. The function runs in the forked child as
`function(args, fds)` and its return value is the exit code. It begins once the answer is on its
way: a child that the daemon was never told of, and for which it has another one forked by the next
server, must not live beside that one. End of file ends the server; its children live on.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import socket
import sys
import traceback
from contextlib import ExitStack
from typing import Any, NoReturn

from orlop.sys import bare
from orlop.sys.process import set_name

MAX_REQUEST = 64 * 1024
MAX_FDS = 32
_IGNORED = tuple(map(int, (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)))
"""What a server ignores or Python does, and its children must not."""


def serve(control: socket.socket) -> None:
    """Answer fork requests until the daemon closes its end."""
    while True:
        try:
            message, fds, _, _ = socket.recv_fds(control, MAX_REQUEST, MAX_FDS)
        except ConnectionResetError:
            return  # the daemon left without reading our last answer
        if not message:
            return
        try:
            _answer(control, json.loads(message), fds)
        except (BrokenPipeError, ConnectionResetError):
            return  # the daemon did not live to see it
        finally:
            for fd in fds:
                os.close(fd)


def _answer(control: socket.socket, request: dict[str, Any], fds: list[int]) -> None:
    """Fork a child, tell of it, and let it begin. If this process dies meanwhile, so does it."""
    with ExitStack() as opened:
        try:
            birth, go = os.pipe2(os.O_CLOEXEC)
            opened.callback(os.close, birth)
            opened.callback(os.close, go)
            pid = os.fork()
        except OSError as error:
            control.send(json.dumps({"error": str(error)}).encode())
            return
        if pid == 0:
            os.close(go)
            control.close()
            _be_child(request, fds, birth)
        control.send(json.dumps({"pid": pid}).encode())
        os.write(go, b"!")


def _be_child(request: dict[str, Any], fds: list[int], birth: int) -> NoReturn:
    code = 1
    try:
        if os.read(birth, 1):
            os.close(birth)
            code = _run_child(request, fds)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:  # noqa: BLE001 - the child must never return into the server's loop
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _run_child(request: dict[str, Any], fds: list[int]) -> int:
    os.setsid()
    for number in _IGNORED:
        bare.signal(number, bare.SIG_DFL)
    bare.set_name(request["name"])
    name, _, function = request["entry"].partition(":")
    # Looking a module up by import touches much of what is shared.
    module = sys.modules.get(name) or importlib.import_module(name)
    entry = getattr(module, function)
    return int(entry(request["args"], fds) or 0)


def _forget_fork_hooks() -> None:
    """Let no module have code run in every child.

    What `threading` and `random` would repair there is not broken after the fork of a process with
    one thread (that forks draw the same random numbers matters to nobody: names and secrets come
    from the kernel), and it touches 0.6 MB of memory, which each child would own from then on.
    """
    os.register_at_fork = _no_hook


def _no_hook(**_: object) -> None:
    """In the place of `os.register_at_fork`."""


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    # Children are reaped by the kernel: nobody here waits for them.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    # Ctrl-C in the daemon's terminal is the daemon's business.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    set_name("orlop-fork")
    _forget_fork_hooks()
    for module in sys.argv[2:]:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()
    try:
        control.send(b'{"ready": true}')
    except BrokenPipeError:
        return  # the daemon did not live to see it
    serve(control)


if __name__ == "__main__":
    main()

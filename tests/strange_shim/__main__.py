"""The program: `python -m tests.strange_shim MANNERS FLAGS… start|delete`, as daemons run shims."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError

from orlop.rpc.convert import timestamp
from orlop.wire.bootstrap_pb2 import BootstrapParams, BootstrapResult
from orlop.wire.task_v2_pb2 import DeleteResponse
from tests.strange_shim.manners import Manners
from tests.strange_shim.serving import serve

SOCKETS = Path("/run/containerd/s")
GROUPS = ("io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id")
DEPRECATED = "shim was started through the deprecated API but was built against the new API"


def main() -> int:
    manners = Path(sys.argv[1])
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for name in ("namespace", "address", "publish-binary", "id", "bundle"):
        parser.add_argument(f"-{name}", default="")
    parser.add_argument("-debug", action="store_true")
    parser.add_argument("-v", action="store_true")
    parser.add_argument("action", nargs="?")
    arguments = parser.parse_args(sys.argv[2:])
    now = Manners.read(manners)
    if arguments.v:
        print(
            f"containerd-shim-strange-v1:\n  Version:  {now.says or now.release}\n  Revision: 0\n"
        )
        return 0
    if now.step == arguments.action and now.fault:
        _misbehave(now.fault)
    if arguments.action == "delete":
        return _delete(arguments)
    return _start(arguments, now, manners)


def _misbehave(fault: str) -> None:
    """At `start` or `delete`."""
    match fault:
        case "hang":
            time.sleep(1000)
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "refuse":
            sys.exit("strange: out of sorts")
        case "noise":
            sys.stdout.buffer.write(random.Random(1).randbytes(1000))
            sys.exit(0)
        case "endless":
            while True:
                sys.stdout.buffer.write(b"x" * 65536)
        case "nobody":
            sys.stdout.write("unix:///run/containerd/s/strange-nobody")
            sys.exit(0)
        case "future":
            sys.stdout.write('{"version": 4, "address": "unix:///x", "protocol": "ttrpc"}')
            sys.exit(0)


def _start(arguments: argparse.Namespace, now: Manners, manners: Path) -> int:
    _read_input(sys.stdin.buffer.read(), arguments, now)
    bundle = Path.cwd()
    key = f"{arguments.address}/{arguments.namespace}/{_group(bundle) or arguments.id}"
    name = hashlib.sha256(key.encode()).hexdigest()[:16]
    path = SOCKETS / f"strange-{arguments.namespace}-{name}"
    address = f"unix://{path}"
    listener = _listen(path)
    if listener is not None and os.fork() == 0:
        os.setsid()
        null = os.open("/dev/null", os.O_RDWR)
        for fd in range(3):
            os.dup2(null, fd)
        serve(listener, path, manners, arguments.namespace)
    if now.version < (2, 0):
        Path(bundle, "address").write_text(address)
        sys.stdout.write(address)
    elif now.version < (2, 3):
        sys.stdout.write(json.dumps({"version": 3, "address": address, "protocol": "ttrpc"}))
    else:
        result = BootstrapResult(version=3, address=address, protocol="ttrpc")
        sys.stdout.buffer.write(result.SerializeToString())
    return 0


def _read_input(data: bytes, arguments: argparse.Namespace, now: Manners) -> None:
    """As the releases do: the first fail at what is no Any, the last at what is no BootstrapParams;
    those between do not care."""
    if now.version >= (2, 3):
        params = BootstrapParams()
        with suppress(DecodeError):
            params.ParseFromString(data)
        if (params.instance_id, params.namespace) != (arguments.id, arguments.namespace):
            sys.exit(DEPRECATED)
        extensions = [each.value for each in params.extensions]
    elif now.version < (1, 7) and data:
        options = Any.FromString(data)
        if not options.type_url:
            sys.exit("strange: type with url : not found")
        extensions = [options]
    else:
        extensions = []
    told = [each.type_url for each in extensions]
    Path("options-told.json").write_text(json.dumps(told))


def _group(bundle: Path) -> str:
    annotations = json.loads(Path(bundle, "config.json").read_text()).get("annotations") or {}
    return next((annotations[name] for name in GROUPS if name in annotations), "")


def _listen(path: Path) -> socket.socket | None:
    """None if the shim of the group is there already."""
    SOCKETS.mkdir(mode=0o711, parents=True, exist_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(path))
    except OSError:
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(path)) == 0:
                return None
        path.unlink()
        listener.bind(str(path))
    listener.listen()
    return listener


def _is_ours(pid: int) -> bool:
    """Whether a process was started by the same daemon: if it has ended, it may be anybody's."""
    mark = f"ORLOPD_UNDER_TEST={os.environ['ORLOPD_UNDER_TEST']}\0".encode()
    return mark in Path(f"/proc/{pid}/environ").read_bytes()


def _delete(arguments: argparse.Namespace) -> int:
    pid = 0
    with suppress(FileNotFoundError, ProcessLookupError):
        pid = int(Path(arguments.bundle, "init.pid").read_text())
        if _is_ours(pid):
            os.killpg(pid, signal.SIGKILL)
    answer = DeleteResponse(pid=pid, exit_status=137, exited_at=timestamp(time.time_ns()))
    sys.stdout.buffer.write(answer.SerializeToString())
    return 0


if __name__ == "__main__":
    sys.exit(main())

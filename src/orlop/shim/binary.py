"""`containerd-shim-orlop-v2`: the shim as an ordinary shim binary, for any daemon of the protocol.

A daemon runs `BINARY FLAGS start` in a container's bundle, and gets the address of a shim that
serves on; `BINARY FLAGS delete` cleans up after a dead one; `-v` and `-info` describe it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import socket
import sys
from pathlib import Path

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError

from orlop.descriptors import open_standard
from orlop.errors import OrlopError
from orlop.shim.cleanup import cleanup
from orlop.shim.files import read_text, remove
from orlop.shim.main import run
from orlop.shim.runc import DEFAULT_BINARY, spawn
from orlop.shim.service import parse_options
from orlop.sys.process import set_name
from orlop.wire.types_pb2 import RuntimeInfo

NAME = "containerd-shim-orlop-v2"
VERSION = "0.1.0"
RUNTIME = "io.containerd.orlop.v2"
SOCKET_DIR = "/run/containerd/s"
GROUP_ANNOTATIONS = ("io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id")
FEATURES_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/features/Features"


def main() -> int:
    open_standard()
    arguments = _parse(sys.argv[1:])
    if arguments.v:
        sys.stdout.write(f"{NAME}:\n  Version:  {VERSION}\n  Revision: \n")
        return 0
    try:
        if arguments.info:
            return _info()
        if arguments.action == "delete":
            return _delete(arguments)
        return _start(arguments)
    except (OrlopError, OSError, ValueError) as error:
        sys.stderr.write(f"{NAME}: {error}\n")
        return 1


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=NAME, allow_abbrev=False)
    for name in ("namespace", "address", "publish-binary", "id", "bundle"):
        parser.add_argument(f"-{name}", f"--{name}", default="")
    for name in ("debug", "v", "info"):
        parser.add_argument(f"-{name}", f"--{name}", action="store_true")
    parser.add_argument("action", nargs="?", choices=["start", "delete"])
    arguments = parser.parse_args(argv)
    described = arguments.v or arguments.info
    if not described and not (arguments.action and arguments.namespace and arguments.id):
        parser.error("an action, -namespace and -id are required")
    return arguments


def _start(arguments: argparse.Namespace) -> int:
    # What the daemon says there (options or BootstrapParams) comes again with Create, or by flags.
    sys.stdin.buffer.read()
    bundle = os.getcwd()
    path = socket_path(arguments.address, arguments.namespace, _group(bundle) or arguments.id)
    listener = _listen(path)
    if listener is not None:
        with listener:
            _serve_in_background(arguments, bundle, listener)
    address = f"unix://{path}"
    Path(bundle, "address").write_text(address)
    # Daemons since 1.7 set this variable, and take JSON; those before take the bare address.
    if "MAX_SHIM_VERSION" in os.environ:
        address = json.dumps({"version": 2, "address": address, "protocol": "ttrpc"})
    sys.stdout.write(address)
    return 0


def socket_path(address: str, namespace: str, group: str) -> str:
    """Where the shim of a group of containers listens: short, and the same for all of them."""
    name = hashlib.sha256(f"{address}/{namespace}/{group}".encode()).hexdigest()
    return f"{SOCKET_DIR}/{name}"


def _group(bundle: str) -> str:
    """The pod that a container belongs to, by its annotations, or ""."""
    annotations = json.loads(read_text(f"{bundle}/config.json")).get("annotations") or {}
    return next((annotations[name] for name in GROUP_ANNOTATIONS if annotations.get(name)), "")


def _listen(path: str) -> socket.socket | None:
    """A listening socket at `path`; None if the shim of the group is there already."""
    os.makedirs(os.path.dirname(path), mode=0o711, exist_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(path)
    except OSError:
        if _answers(path):
            listener.close()
            return None
        remove(path)
        listener.bind(path)
    os.chmod(path, 0o600)
    listener.listen()
    return listener


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0


def _serve_in_background(
    arguments: argparse.Namespace, bundle: str, listener: socket.socket
) -> None:
    args = {
        "namespace": arguments.namespace,
        "id": arguments.id,
        "bundle": bundle,
        "ttrpc_address": os.environ.get("TTRPC_ADDRESS") or f"{arguments.address}.ttrpc",
        "debug": arguments.debug,
    }
    if os.fork():
        return
    code = 1
    try:
        os.setsid()
        set_name("orlop-shim")
        os.chdir("/")
        null = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)  # the daemon waits for the end of our output
        code = run(args, [listener.detach()])
    finally:
        os._exit(code)


def _delete(arguments: argparse.Namespace) -> int:
    bundle = arguments.bundle or os.getcwd()
    response = cleanup(arguments.namespace, arguments.id, bundle)
    path = socket_path(arguments.address, arguments.namespace, _group_or_id(bundle, arguments.id))
    if not _answers(path):
        remove(path)
    sys.stdout.buffer.write(response.SerializeToString())
    return 0


def _group_or_id(bundle: str, id: str) -> str:
    try:
        return _group(bundle) or id
    except (OSError, ValueError):
        return id


def _info() -> int:
    packed = AnyMessage()
    try:
        packed.ParseFromString(sys.stdin.buffer.read())
        options = parse_options(packed)
    except DecodeError:
        options = parse_options(AnyMessage())
    info = RuntimeInfo(name=RUNTIME)
    info.version.version = VERSION
    if packed.type_url:
        info.options.CopyFrom(packed)
    features = _features(options.binary_name or DEFAULT_BINARY)
    if features:
        info.features.type_url = FEATURES_TYPE
        info.features.value = features
    sys.stdout.buffer.write(info.SerializeToString())
    return 0


def _features(binary: str) -> bytes:
    """What `runc features` says (JSON); empty if the runtime has no such command."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    output = os.memfd_create("features")
    try:
        pid = spawn([binary, "features"], {0: null, 1: output, 2: null})
        if os.waitpid(pid, 0)[1] != 0:
            return b""
        return os.pread(output, 1 << 20, 0)
    finally:
        os.close(null)
        os.close(output)

"""Shims that are programs of their own, driven by containerd's shim protocol.

`BINARY FLAGS start`, run in the bundle, leaves a shim behind and prints where it listens;
`BINARY FLAGS delete` clears up after one that died. What goes in and comes out of them has changed
over the years; see `_input` and `parse_start`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError

from orlop.errors import InvalidArgument, Unimplemented, Unknown
from orlop.rpc.convert import nanoseconds
from orlop.runtime.bundle import Bundle
from orlop.runtime.model import Endpoint, Exit
from orlop.runtime.shim import Killable
from orlop.wire.bootstrap_pb2 import LOG_LEVEL_DEBUG, BootstrapParams, BootstrapResult
from orlop.wire.task_v2_pb2 import DeleteResponse
from orlop.wire.types_pb2 import RuntimeInfo

START_TIMEOUT = 30.0
DELETE_TIMEOUT = 10.0
DESCRIBE_TIMEOUT = 5.0
API_MAX = 3
# The first containerd whose shims take BootstrapParams; those before take the options, or nothing.
_BOOTSTRAP_SINCE = (2, 3)
_VERSION = re.compile(rb"^\s*Version:\s*v?(\d+)\.(\d+)", re.MULTILINE)


class BinaryShims:
    """Starts shims of the program at `path`.

    `address` is the daemon's gRPC socket, `version` the containerd release that it stands for.
    """

    def __init__(self, path: str, address: str, version: str, *, debug: bool = False) -> None:
        self.mark = path
        self._address = address
        self._version = version
        self._debug = debug
        self._lock = threading.Lock()
        self._probed: bool | None = None

    def start(self, bundle: Bundle, options: Any | None) -> tuple[Endpoint, Killable | None]:
        """Run `start`; Unknown, with what the program said, when it fails."""
        done = self._run(
            [*self._flags(bundle.namespace, bundle.id), "start"],
            bundle,
            self._input(bundle, options),
            START_TIMEOUT,
            merge=True,
        )
        if done.returncode:
            raise Unknown(f"failed to start shim: start failed: {_text(done.stdout)}")
        endpoint = parse_start(done.stdout)
        bundle.endpoint = endpoint
        return endpoint, None

    def clean_up(self, bundle: Bundle) -> Exit:
        """Run `delete`; Unknown, with what the program said, when it fails."""
        flags = [*self._flags(bundle.namespace, bundle.id), "-bundle", os.fspath(bundle.path)]
        done = self._run([*flags, "delete"], bundle, b"", DELETE_TIMEOUT, merge=False)
        if done.returncode:
            raise Unknown(f'"{self.mark}" delete failed: {_text(done.stderr)}')
        try:
            answer = DeleteResponse.FromString(done.stdout)
        except DecodeError:
            raise Unknown(f'"{self.mark}" delete printed no DeleteResponse') from None
        return Exit(answer.exit_status, nanoseconds(answer.exited_at), answer.pid)

    def info(self, options: Any) -> RuntimeInfo:
        """What the program says of itself and its runtime (`-info`)."""
        done = self._describe("-info", options.SerializeToString())
        if done.returncode:
            raise Unknown(f'"{self.mark}" -info failed: {_text(done.stderr)}')
        try:
            return RuntimeInfo.FromString(done.stdout)
        except DecodeError:
            raise Unknown(f'"{self.mark}" -info printed no RuntimeInfo') from None

    def _flags(self, namespace: str, id: str) -> list[str]:
        flags = ["-namespace", namespace, "-address", self._address]
        flags += ["-publish-binary", sys.argv[0], "-id", id]
        return [*flags, "-debug"] if self._debug else flags

    def _input(self, bundle: Bundle, options: Any | None) -> bytes:
        """What `start` reads: the parameters or, before containerd 2.3, the options alone."""
        if not self._takes_parameters():
            return options.SerializeToString() if options is not None else b""
        params = BootstrapParams(
            instance_id=bundle.id,
            namespace=bundle.namespace,
            containerd_version=self._version,
            containerd_ttrpc_address=f"{self._address}.ttrpc",
            containerd_grpc_address=self._address,
            containerd_binary=sys.argv[0],
        )
        if self._debug:
            params.log_level = LOG_LEVEL_DEBUG
        if options is not None:
            params.extensions.add(value=options)
        return params.SerializeToString()

    def _takes_parameters(self) -> bool:
        """Whether the program is of containerd 2.3 or later, by its `-v`; asked once."""
        with self._lock:
            probed = self._probed
        if probed is None:
            found = _VERSION.search(self._describe("-v", b"").stdout)
            probed = found is not None and tuple(map(int, found.groups())) >= _BOOTSTRAP_SINCE
            with self._lock:
                self._probed = probed
        return probed

    def _describe(self, flag: str, text: bytes) -> subprocess.CompletedProcess[bytes]:
        try:
            return subprocess.run(
                [self.mark, flag],
                input=text,
                capture_output=True,
                timeout=DESCRIBE_TIMEOUT,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unknown(f'"{self.mark}" {flag} failed: {error}') from None

    def _run(
        self, arguments: list[str], bundle: Bundle, text: bytes, timeout: float, *, merge: bool
    ) -> subprocess.CompletedProcess[bytes]:
        environment = {
            **os.environ,
            "TTRPC_ADDRESS": f"{self._address}.ttrpc",
            "GRPC_ADDRESS": self._address,
            "NAMESPACE": bundle.namespace,
            "MAX_SHIM_VERSION": "2",
            "GOMAXPROCS": "2",
        }
        try:
            return subprocess.run(
                [self.mark, *arguments],
                cwd=bundle.path,
                env=environment,
                input=text,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if merge else subprocess.PIPE,
                process_group=0,
                timeout=timeout,
                check=False,
            )
        except OSError as error:
            raise Unknown(f'shim "{self.mark}" cannot be run: {error.strerror}') from None
        except subprocess.TimeoutExpired:
            raise Unknown(f'shim "{self.mark}" {arguments[-1]}: no end in {timeout:g} s') from None


def parse_start(output: bytes) -> Endpoint:
    """Where a shim listens, from what its `start` printed.

    A BootstrapResult since containerd 2.3, JSON since 1.7, the bare address before. Raises
    InvalidArgument for anything else, Unimplemented for a version that is not known.
    """
    endpoint = _from_result(output) or _from_json(output)
    if endpoint is None:
        text = _text(output)
        if "://" not in text or len(text.split()) != 1:
            raise InvalidArgument(f"shim printed no address: {text!r}")
        endpoint = Endpoint(2, text)
    if endpoint.version > API_MAX:
        raise Unimplemented(f"version {endpoint.version} of the shim API")
    return endpoint


def _from_result(output: bytes) -> Endpoint | None:
    try:
        result = BootstrapResult.FromString(output)
    except DecodeError:
        return None
    if result.version < 2 or not result.address:
        return None
    return Endpoint(result.version, result.address, result.protocol or "ttrpc")


def _from_json(output: bytes) -> Endpoint | None:
    try:
        facts = json.loads(output)
        return Endpoint(int(facts["version"]), str(facts["address"]), str(facts["protocol"]))
    except (ValueError, KeyError, TypeError):
        return None


def _text(output: bytes) -> str:
    return output.decode(errors="replace").strip()


def find_binary(runtime: str) -> str:
    """The path of the shim that a runtime's name stands for, by containerd's rule.

    An absolute path is itself; of a dotted name the last two parts count: `io.containerd.kata.v2`
    is `containerd-shim-kata-v2`, on PATH or beside this program.
    """
    if runtime.startswith("/"):
        if not Path(runtime).is_file():
            raise Unknown(f'runtime "{runtime}" binary not installed: file does not exist')
        return runtime
    parts = runtime.split(".")
    if "/" in runtime or len(parts) < 2 or not all(parts):
        raise InvalidArgument(f'runtime name "{runtime}" is neither a path nor like "io.name.v1"')
    name = f"containerd-shim-{parts[-2]}-{parts[-1]}"
    folders = [*os.get_exec_path(), os.path.dirname(os.path.realpath(sys.argv[0]))]  # noqa: PTH120
    for folder in folders:
        path = os.path.join(folder, name)  # noqa: PTH118 - a search of PATH is text
        if os.access(path, os.X_OK):
            return path
    raise Unknown(f'runtime "{runtime}" binary not installed "{name}": file does not exist')

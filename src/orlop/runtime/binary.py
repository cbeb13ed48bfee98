"""Shims that are programs of their own, driven by containerd's shim protocol.

`BINARY FLAGS start`, run in the bundle, leaves a shim behind and prints where it listens;
`BINARY FLAGS delete` clears up after one that died. What goes in and comes out of them has changed
over the years; see `_input` and `parse_start`.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
from pathlib import Path

from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError

from orlop.errors import InvalidArgument, OrlopError, Unimplemented, Unknown
from orlop.rpc import CallContext
from orlop.rpc.convert import nanoseconds
from orlop.runtime.bundle import Bundle
from orlop.runtime.model import Endpoint, Exit
from orlop.runtime.program import end_shims, run
from orlop.runtime.shim import Killable
from orlop.sys.program import Done
from orlop.wire.bootstrap_pb2 import LOG_LEVEL_DEBUG, BootstrapParams, BootstrapResult
from orlop.wire.task_v2_pb2 import DeleteResponse
from orlop.wire.types_pb2 import RuntimeInfo

_log = logging.getLogger(__name__)

START_TIMEOUT = 30.0
DELETE_TIMEOUT = 10.0
DESCRIBE_TIMEOUT = 5.0
API_MIN, API_MAX = 2, 3
_SAID_MAX = 4096
# The first containerd whose shims take BootstrapParams; those before take the options, or nothing.
_BOOTSTRAP_SINCE = (2, 3)
# Docker Engine 20.10 and older still offer it.
_RETIRED = "io.containerd.runtime.v1.linux"
# What those that take them say when they are given the options alone.
_DEPRECATED = b"started through the deprecated API"
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
        self._probed: dict[tuple[int, ...], bool] = {}

    def start(
        self, ctx: CallContext, bundle: Bundle, options: Any | None
    ) -> tuple[Endpoint, Killable | None]:
        """Run `start`; Unknown, with what the program said, when it fails.

        A start that is given up, or answers nonsense, leaves no shim.
        """
        argv = [self.mark, *self._flags(bundle.namespace, bundle.id), "start"]
        try:
            done = self._run(argv, bundle, self._input(bundle, options), START_TIMEOUT, ctx)
            if done.code and _DEPRECATED in done.stderr + done.stdout:
                # Newer than its version, which is not containerd's but its own.
                self._remember(takes_parameters=True)
                done = self._run(argv, bundle, self._input(bundle, options), START_TIMEOUT, ctx)
            if done.code:
                said = _text(done.stderr + done.stdout) or _ending(done.code)
                raise Unknown(f"failed to start shim: start failed: {said}")
            endpoint = parse_start(done.stdout)
        except OrlopError:
            self.end(bundle)
            raise
        bundle.endpoint = endpoint
        return endpoint, None

    def end(self, bundle: Bundle) -> None:
        """Kill the shim that was started in a bundle; that of a group stays, elsewhere."""
        end_shims(bundle.namespace, bundle.id, bundle.path)

    def clean_up(self, bundle: Bundle) -> Exit:
        """Run `delete`; Unknown, with what the program said, when it fails."""
        flags = [*self._flags(bundle.namespace, bundle.id), "-bundle", os.fspath(bundle.path)]
        done = self._run([self.mark, *flags, "delete"], bundle, b"", DELETE_TIMEOUT, None)
        if done.code:
            said = _text(done.stderr) or _ending(done.code)
            raise Unknown(f'"{self.mark}" delete failed: {said}')
        try:
            answer = DeleteResponse.FromString(done.stdout)
        except DecodeError:
            raise Unknown(f'"{self.mark}" delete printed no DeleteResponse') from None
        return Exit(answer.exit_status, nanoseconds(answer.exited_at), answer.pid)

    def info(self, options: Any) -> RuntimeInfo:
        """What the program says of itself and its runtime (`-info`)."""
        done = self._describe("-info", options.SerializeToString())
        if done.code:
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
            known = self._probed.get(_identity(self.mark))
        if known is not None:
            return known
        try:
            found = _VERSION.search(self._describe("-v", b"").stdout)
        except Unknown as error:
            _log.warning('shim="%s" does not tell its version: %s', self.mark, error)
            return False
        return self._remember(
            takes_parameters=found is not None
            and tuple(map(int, found.groups())) >= _BOOTSTRAP_SINCE
        )

    def _remember(self, *, takes_parameters: bool) -> bool:
        """For this very file: another may be installed in its place."""
        with self._lock:
            self._probed = {_identity(self.mark): takes_parameters}
        return takes_parameters

    def _describe(self, flag: str, text: bytes) -> Done:
        return run([self.mark, flag], text, flag, DESCRIBE_TIMEOUT)

    def _run(
        self, argv: list[str], bundle: Bundle, text: bytes, timeout: float, ctx: CallContext | None
    ) -> Done:
        environment = {
            **os.environ,
            "TTRPC_ADDRESS": f"{self._address}.ttrpc",
            "GRPC_ADDRESS": self._address,
            "NAMESPACE": bundle.namespace,
            "MAX_SHIM_VERSION": "2",
            "GOMAXPROCS": "2",
        }
        return run(argv, text, argv[-1], timeout, cwd=bundle.path, env=environment, ctx=ctx)


def _identity(path: str) -> tuple[int, ...]:
    try:
        found = os.stat(path)  # noqa: PTH116 - a path is text here
    except OSError as error:
        raise Unknown(f'shim "{path}": {(error.strerror or str(error)).lower()}') from None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


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
    if not API_MIN <= endpoint.version <= API_MAX:
        raise Unimplemented(f"version {endpoint.version} of the shim API")
    return endpoint


def _from_result(output: bytes) -> Endpoint | None:
    try:
        result = BootstrapResult.FromString(output)
    except DecodeError:
        return None
    if result.version < API_MIN or not result.address:
        return None
    return Endpoint(result.version, result.address, result.protocol or "ttrpc")


def _from_json(output: bytes) -> Endpoint | None:
    try:
        facts = json.loads(output)
        return Endpoint(int(facts["version"]), str(facts["address"]), str(facts["protocol"]))
    except (ValueError, KeyError, TypeError):
        return None


def _text(output: bytes) -> str:
    """What a program said, as far as it can be shown in an error."""
    return output[:_SAID_MAX].decode(errors="replace").strip()


def _ending(code: int) -> str:
    return f"exit code {code}" if code > 0 else f"killed by signal {-code}"


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
    problem = f'runtime "{runtime}" binary not installed "{name}": file does not exist'
    if runtime == _RETIRED:
        problem += '; it went with containerd 1: use "io.containerd.runc.v2"'
    raise Unknown(problem)

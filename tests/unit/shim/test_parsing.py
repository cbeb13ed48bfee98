"""Small texts: runtime logs, URIs, options, log lines."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage

from orlop.errors import InvalidArgument
from orlop.shim.log import _quoted
from orlop.shim.logger import command
from orlop.shim.runc import last_error
from orlop.shim.service import parse_options
from orlop.shim.stdio import split_uri
from orlop.wire.runc_pb2 import Options


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ('{"level":"error","msg":"first"}\n{"level":"error","msg":"last"}\n', "last"),
        ('{"level":"error","msg":"it"}\n{"level":"warning","msg":"not this"}\n', "it"),
        ('{"level":"fatal","msg":" spaces "}\nno json\n[1]\n', "spaces"),
        ('{"level":"error","msg":"cut off', ""),
    ],
)
def test_the_last_error_of_a_runtime(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "log").write_text(text)
    assert last_error(str(tmp_path / "log")) == expected


def test_no_log_is_no_error(tmp_path: Path) -> None:
    assert last_error(str(tmp_path / "none")) == ""


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("", ("fifo", "")),
        ("/run/a b", ("fifo", "/run/a b")),
        ("/run/100%25?x", ("fifo", "/run/100%25?x")),
        ("fifo:///run/x", ("fifo", "/run/x")),
        ("file:///a%20b", ("file", "/a b")),
        ("binary:///bin/log?a=1", ("binary", "/bin/log")),
    ],
)
def test_uris(uri: str, expected: tuple[str, str]) -> None:
    assert split_uri(uri) == expected


def test_the_arguments_of_a_logger() -> None:
    uri = "binary:///usr/bin/log?--id=a%20b&--flag=&plain&--id=c&env.LANG=C"
    argv = ["/usr/bin/log", "--id", "a b", "--flag", "", "plain", ""]
    assert command(uri) == (argv, {"LANG": "C"})


def test_options() -> None:
    options = Options(root="/r", systemd_cgroup=True)
    packed = AnyMessage(type_url="x/containerd.runc.v1.Options", value=options.SerializeToString())
    assert parse_options(packed) == options
    assert parse_options(AnyMessage()) == Options()
    with pytest.raises(InvalidArgument):
        parse_options(AnyMessage(type_url="runtimeoptions.v1.Options"))
    with pytest.raises(InvalidArgument):
        parse_options(AnyMessage(type_url="containerd.runc.v1.Options", value=b"\xff"))


@pytest.mark.parametrize(
    ("value", "quoted"),
    [("plain", "plain"), ("", '""'), ("two words", '"two words"'), ('a"b\n', '"a\\"b\\n"')],
)
def test_log_values(value: str, quoted: str) -> None:
    assert _quoted(value) == quoted

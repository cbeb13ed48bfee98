"""Types that several threads want at once."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import orlop
from orlop import typed

_SOURCES = Path(orlop.__file__).parent
_UNTYPED = frozenset({"structs"})
_TYPED = "msgspec.convert", "msgspec.json.Decoder"

# New types in each round, which threads want at the same moment: with msgspec alone it is over,
# by a segmentation fault, in the first rounds.
_CROWD = """
import sys, threading, types
from orlop import typed

def make():
    module = sys.modules["fresh"] = types.ModuleType("fresh")
    exec('''import msgspec

class Leaf(msgspec.Struct):
    names: "list[str]"
    size: "int" = 0

class Tree(msgspec.Struct):
    leaves: "list[Leaf]"
    first: "Leaf | None" = None
''', vars(module))
    return module.Tree

def want(kind, barrier, found):
    barrier.wait()
    document = {"leaves": [{"names": ["a"], "size": 1}], "first": {"names": []}}
    found.append(typed.convert(document, kind).leaves[0].size)

sys.setswitchinterval(1e-6)
for _ in range(60):
    kind, barrier, found = make(), threading.Barrier(8), []
    threads = [threading.Thread(target=want, args=(kind, barrier, found)) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert found == [1] * 8, found
"""


def test_a_crowd_of_threads_may_want_a_type_for_the_first_time() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _CROWD], capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_decoder_is_made_once() -> None:
    assert typed.decoder(list[int]) is typed.decoder(list[int])
    assert typed.decode(b"[1]", list[int]) == typed.convert((1,), list[int]) == [1]


def test_nobody_else_decodes_to_types() -> None:
    found = [
        f"{path.relative_to(_SOURCES)}:{line}"
        for path in _SOURCES.rglob("*.py")
        if path.name != "typed.py"
        for line in _typed_calls(ast.parse(path.read_text()))
    ]
    assert not found, "use orlop.typed, which is safe with threads"


def _typed_calls(tree: ast.AST) -> Iterator[int]:
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module="msgspec") if {each.name for each in node.names} - _UNTYPED:
                yield node.lineno
            case ast.Call(func=ast.Attribute()):
                whole = ast.unparse(node.func)
                named = len(node.args) > 1 or any(each.arg == "type" for each in node.keywords)
                if whole in _TYPED or (whole == "msgspec.json.decode" and named):
                    yield node.lineno

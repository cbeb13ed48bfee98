"""Which image runs where: containerd's rules, case by case."""

from __future__ import annotations

import pytest

from orlop.errors import InvalidArgument
from orlop.oci import platform
from orlop.oci.descriptor import Platform

# Wanted, what is offered, and which of that is taken; "" for none.
CASES = [
    ("linux/amd64", "linux/arm64 linux/amd64", "linux/amd64"),
    ("linux/amd64", "linux/arm64 linux/arm/v7", ""),
    ("linux/amd64", "windows/amd64 darwin/amd64", ""),
    ("linux/x86_64", "linux/amd64", "linux/amd64"),
    ("linux/amd64/v1", "linux/amd64", "linux/amd64"),
    ("linux/amd64/v2", "linux/amd64/v3 linux/amd64 linux/amd64/v2", "linux/amd64/v2"),
    ("linux/amd64/v3", "linux/amd64 linux/amd64/v2", "linux/amd64/v2"),
    ("linux/amd64/v3", "linux/amd64/v4 linux/amd64", "linux/amd64"),
    ("linux/amd64/v2", "linux/386 linux/amd64/v3", "linux/386"),
    ("linux/386", "linux/amd64", ""),
    ("linux/386", "linux/i686", "linux/386"),
    ("linux/arm/v7", "linux/arm/v5 linux/arm/v6 linux/arm/v8", "linux/arm/v6"),
    ("linux/arm/v7", "linux/arm/v6 linux/arm/v7", "linux/arm/v7"),
    ("linux/arm", "linux/arm/v7", "linux/arm/v7"),
    ("linux/armhf", "linux/arm/v7", "linux/arm/v7"),
    ("linux/armel", "linux/arm/v7 linux/arm/v6", "linux/arm/v6"),
    ("linux/arm/v6", "linux/arm/v7", ""),
    ("linux/arm/v5", "linux/arm/v5", "linux/arm/v5"),
    ("linux/arm/v8", "linux/arm/v7 linux/arm64", "linux/arm/v7"),
    ("linux/arm64", "linux/arm/v7 linux/arm64/v8", "linux/arm64"),
    ("linux/arm64", "linux/arm/v6 linux/arm/v8", "linux/arm/v8"),
    ("linux/arm64/v8", "linux/aarch64", "linux/arm64"),
    ("linux/arm64/v9", "linux/arm64", "linux/arm64"),
    ("linux/s390x", "linux/ppc64le linux/s390x", "linux/s390x"),
    ("linux/riscv64", "linux/riscv64", "linux/riscv64"),
    ("windows(10.0.17763)/amd64", "windows(10.0.20348.1)/amd64 windows(10.0.17763.9)/amd64",
     "windows(10.0.17763.9)/amd64"),
    ("windows(10.0.17763)/amd64", "windows(10.0.20348.1)/amd64", ""),
    ("windows(10.0.17763)/amd64", "windows/amd64", "windows/amd64"),
    ("linux/amd64", "linux(+sse9)/amd64 linux/amd64", "linux/amd64"),
    ("linux/amd64", "linux(+sse9)/amd64", ""),
    ("linux(+sse9+x)/amd64", "linux(+sse9)/amd64", "linux(+sse9)/amd64"),
]  # fmt: skip


@pytest.mark.parametrize(("wanted", "offered", "taken"), CASES)
def test_the_best(wanted: str, offered: str, taken: str) -> None:
    offers = [(platform.parse(each), platform.parse(each)) for each in offered.split()]
    found = platform.best(platform.parse(wanted), offers)
    assert (platform.text(found) if found else "") == taken


def test_what_says_nothing_is_taken_last() -> None:
    offers: list[tuple[Platform | None, str]] = [(None, "unsaid"), (Platform("amd64", "linux"), "")]
    assert platform.best(platform.parse("linux/amd64"), offers) == ""
    assert platform.best(platform.parse("linux/arm64"), offers) == "unsaid"


@pytest.mark.parametrize(
    "text",
    ["linux/arm/v7", "linux/amd64", "windows(10.0.17763)/amd64", "linux(+a+b)/arm64",
     "windows(10.0.20348.1+win32k)/amd64"],
)  # fmt: skip
def test_text_and_back(text: str) -> None:
    assert platform.text(platform.parse(text)) == text


@pytest.mark.parametrize("text", ["", "/", "a/b/c/d", "linux/", "x()y/amd64", "li nux"])
def test_nonsense(text: str) -> None:
    with pytest.raises(InvalidArgument, match="is not OS/ARCHITECTURE"):
        platform.parse(text)

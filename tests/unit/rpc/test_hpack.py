"""Header compression: the examples of RFC 7541, appendix C, and what is against its rules."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orlop.errors import InvalidArgument
from orlop.rpc.grpc.hpack import HEADERS_MAX, Decoder, encode

FIRST = (
    (":method", "GET"),
    (":scheme", "http"),
    (":path", "/"),
    (":authority", "www.example.com"),
)
SECOND = (*FIRST, ("cache-control", "no-cache"))
THIRD = (
    (":method", "GET"),
    (":scheme", "https"),
    (":path", "/index.html"),
    (":authority", "www.example.com"),
    ("custom-key", "custom-value"),
)
PLAIN = (
    "828684410f7777772e6578616d706c652e636f6d",
    "828684be58086e6f2d6361636865",
    "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
)
HUFFMAN = (
    "828684418cf1e3c2e5f23a6ba0ab90f4ff",
    "828684be5886a8eb10649cbf",
    "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
)


@pytest.mark.parametrize("blocks", [PLAIN, HUFFMAN])
def test_the_examples_of_the_specification(blocks: tuple[str, ...]) -> None:
    decoder = Decoder()
    for block, expected in zip(blocks, (FIRST, SECOND, THIRD), strict=True):
        assert decoder.decode(bytes.fromhex(block)) == expected


def test_a_block_means_what_the_table_says_now() -> None:
    decoder = Decoder()
    decoder.decode(b"\x40\x01a\x01b")
    assert decoder.decode(b"\xbe") == decoder.decode(b"\xbe") == (("a", "b"),)
    decoder.decode(b"\x40\x01c\x01d")
    assert decoder.decode(b"\xbe") == (("c", "d"),)


def test_the_table_forgets_the_oldest() -> None:
    decoder = Decoder()
    for number in range(200):
        value = b"%03d" % number
        decoder.decode(b"\x40\x01n\x03" + value)
    assert decoder.decode(b"\xbe") == (("n", "199"),)
    with pytest.raises(InvalidArgument, match="not there"):
        decoder.decode(bytes((0xFF, 61 + 120 - 127)))
    assert decoder.decode(b"\x20") == ()  # of no size from now on
    with pytest.raises(InvalidArgument, match="not there"):
        decoder.decode(b"\xbe")


@pytest.mark.parametrize(
    "block",
    [
        pytest.param("80", id="index 0"),
        pytest.param("be", id="an index beyond the table"),
        pytest.param("ffffffffff7f", id="an endless integer"),
        pytest.param("0003616200", id="a name that ends early"),
        pytest.param("40", id="a literal of nothing"),
        pytest.param("8220", id="a size after a header"),
        pytest.param("3fe21f", id="a size beyond the limit"),
        pytest.param("0001610584", id="a value that ends early"),
        pytest.param("00016181ff84ffffffff", id="padding that is too long"),
        pytest.param("0001618100", id="padding of zeros"),
    ],
)
def test_what_is_malformed_is_refused(block: str) -> None:
    with pytest.raises(InvalidArgument):
        Decoder().decode(bytes.fromhex(block))


def test_little_cannot_mean_much() -> None:
    decoder = Decoder()
    decoder.decode(b"\x40\x01a\x7f\xa1\x1e" + b"b" * 4000)
    with pytest.raises(InvalidArgument, match="too long"):
        decoder.decode(b"\xbe" * (HEADERS_MAX // 4000 + 1))


def test_a_long_string_without_an_end_is_soon_refused() -> None:
    """It is as long as a block may be; to look for a code in all of it takes half a minute."""
    block = b"\x00\x01a\xff\xe1\xd3\x03" + b"\xff" * 60_000
    started = time.process_time()
    with pytest.raises(InvalidArgument, match="malformed string"):
        Decoder().decode(block)
    assert time.process_time() - started < 5


def test_a_long_string() -> None:
    block = b"\x00\x01a\xff\xd1\x0e" + b"\0" * 2000  # five bits for each character
    assert Decoder().decode(block) == (("a", "0" * 3200),)


@given(st.lists(st.tuples(st.text("abc-:", max_size=300), st.text("xyz %", max_size=300))))
def test_what_is_encoded_can_be_decoded(headers: list[tuple[str, str]]) -> None:
    assert Decoder().decode(encode(headers)) == tuple(headers)


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_garbage_is_an_error_or_headers(blocks: list[bytes]) -> None:
    decoder = Decoder()
    for block in blocks:
        try:
            decoder.decode(block)
        except InvalidArgument:
            return

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orlop.web.body import BadRequest, Body

CHUNKED = {"transfer-encoding": "chunked"}


def body(sent: bytes, headers: dict[str, str]) -> Body:
    return Body.of(io.BufferedReader(io.BytesIO(sent)), headers)


@given(st.lists(st.binary(min_size=1, max_size=300)), st.binary(max_size=20))
def test_chunks_are_put_together(chunks: list[bytes], after: bytes) -> None:
    sent = b"".join(b"%x;note=1\r\n%s\r\n" % (len(each), each) for each in chunks)
    stream = io.BufferedReader(io.BytesIO(sent + b"0\r\nTrailer: x\r\n\r\n" + after))
    made = Body.of(stream, CHUNKED)
    assert b"".join(made.pieces()) == b"".join(chunks)
    assert made.finished
    assert stream.read() == after


@given(st.binary(max_size=200))
def test_any_bytes_are_a_body_or_refused(sent: bytes) -> None:
    try:
        whole = b"".join(body(sent, CHUNKED).pieces())
    except BadRequest:
        return
    assert len(whole) < len(sent)


@given(st.binary(max_size=100), st.integers(0, 120))
def test_a_length_is_kept_to(sent: bytes, length: int) -> None:
    made = body(sent, {"content-length": str(length)})
    if length > len(sent):
        with pytest.raises(BadRequest):
            list(made.pieces())
        assert not made.finished
    else:
        assert b"".join(made.pieces()) == sent[:length]


def test_a_body_over_the_limit_is_not_read() -> None:
    assert body(b"12345", {"content-length": "5"}).read(4) is None
    assert body(b"5\r\n12345\r\n0\r\n\r\n", CHUNKED).read(4) is None
    assert body(b"12345", {"content-length": "5"}).read(5) == b"12345"

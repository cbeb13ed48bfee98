from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orlop.errors import InvalidArgument, NotFound, ResourceExhausted
from orlop.rpc.ttrpc import protocol
from orlop.rpc.ttrpc.protocol import Call, FrameReader, Message, Refusal, ServerProtocol


def _request(stream: int = 1, flags: int = 0) -> bytes:
    return protocol.encode_request(
        stream, "pkg.Service", "Do", b"payload", metadata={"Key": "v"}, timeout=2.5, flags=flags
    )


def test_a_call_in_any_pieces() -> None:
    data = _request()
    for cut in range(len(data)):
        server = ServerProtocol()
        events = server.feed(data[:cut]) + server.feed(data[cut:])
        assert events == [Call(1, "pkg.Service", "Do", b"payload", {"key": "v"}, 2.5, open=False)]


@pytest.mark.parametrize(
    ("asked", "taken"),
    [
        (str(protocol.PAYLOAD_MAX + 1), protocol.PAYLOAD_MAX + 1),
        (str(1 << 40), protocol.ABSURD),
        ("0", protocol.PAYLOAD_MAX),
        ("-1", protocol.PAYLOAD_MAX),
        ("\u00b2", protocol.PAYLOAD_MAX),
        ("9" * 5000, protocol.PAYLOAD_MAX),
    ],
)
def test_how_long_an_answer_may_be(asked: str, taken: int) -> None:
    data = protocol.encode_request(1, "S", "Do", b"", metadata={protocol.ANSWER_MAX: asked})
    (call,) = ServerProtocol().feed(data)
    assert isinstance(call, Call)
    assert call.answer_max == taken


def test_header_is_as_specified() -> None:
    frame = protocol.encode(5, protocol.DATA, 1, b"abc")
    assert frame == struct.pack(">IIBB", 3, 5, 3, 1) + b"abc"


def test_stream_ids_are_odd_and_grow() -> None:
    server = ServerProtocol()
    (even,) = server.feed(_request(2))
    assert isinstance(even, Refusal)
    assert isinstance(even.error, InvalidArgument)
    assert isinstance(server.feed(_request(3))[0], Call)
    (reused,) = server.feed(_request(3))
    assert isinstance(reused, Refusal)
    assert isinstance(server.feed(_request(5))[0], Call)


def test_a_frame_that_is_too_long_is_skipped() -> None:
    server = ServerProtocol()
    header = struct.pack(">IIBB", protocol.PAYLOAD_MAX + 1, 1, 1, 0)
    (refusal,) = server.feed(header)
    assert isinstance(refusal, Refusal)
    assert isinstance(refusal.error, ResourceExhausted)
    assert server.feed(b"x" * (protocol.PAYLOAD_MAX + 1)) == []
    assert isinstance(server.feed(_request(3))[0], Call)


def test_data_and_its_end() -> None:
    server = ServerProtocol()
    server.feed(_request(1, protocol.REMOTE_OPEN))
    assert server.feed(protocol.encode_data(1, b"m")) == [Message(1, b"m", last=False)]
    assert server.feed(protocol.encode_end_of_data(1)) == [Message(1, None, last=True)]


def test_responses() -> None:
    reader = FrameReader()
    (frame,) = reader.feed(protocol.encode_response(1, b"answer"))
    assert protocol.decode_response(frame.payload) == b"answer"
    (frame,) = reader.feed(protocol.encode_error(3, NotFound('task "x"')))
    with pytest.raises(NotFound, match='task "x": not found'):
        protocol.decode_response(frame.payload)


@given(st.lists(st.binary(max_size=64), max_size=20))
def test_garbage_never_crashes(pieces: list[bytes]) -> None:
    server = ServerProtocol()
    for piece in pieces:
        for event in server.feed(piece):
            assert isinstance(event, Call | Message | Refusal)

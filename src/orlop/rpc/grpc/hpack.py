"""Header compression of HTTP/2 (HPACK, RFC 7541): all of decoding, and as much of encoding as it
takes: what we send are few, short headers, written out in full.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from functools import cache, lru_cache

from orlop.errors import InvalidArgument

TABLE_SIZE = 4096
"""Bytes of headers that the peer may let us remember (SETTINGS_HEADER_TABLE_SIZE's default)."""
HEADERS_MAX = 64 << 10
"""Bytes of the headers of one call, as they are sent and as they are meant."""
_ENTRY_OVERHEAD = 32  # RFC 7541, 4.1
_INTEGER_MAX = 1 << 28
_KNOWN_MAX, _KNOWN_BYTES = 256, 1024
_CODE_MAX = 30
"""Bits of the longest code."""

Header = tuple[str, str]

# RFC 7541, appendix A, from 1.
_STATIC: tuple[Header, ...] = (
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    *((":status", code) for code in ("200", "204", "206", "304", "400", "404", "500")),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    *(
        (name, "")
        for name in (
            "accept-language",
            "accept-ranges",
            "accept",
            "access-control-allow-origin",
            "age",
            "allow",
            "authorization",
            "cache-control",
            "content-disposition",
            "content-encoding",
            "content-language",
            "content-length",
            "content-location",
            "content-range",
            "content-type",
            "cookie",
            "date",
            "etag",
            "expect",
            "expires",
            "from",
            "host",
            "if-match",
            "if-modified-since",
            "if-none-match",
            "if-range",
            "if-unmodified-since",
            "last-modified",
            "link",
            "location",
            "max-forwards",
            "proxy-authenticate",
            "proxy-authorization",
            "range",
            "referer",
            "refresh",
            "retry-after",
            "server",
            "set-cookie",
            "strict-transport-security",
            "transfer-encoding",
            "user-agent",
            "vary",
            "via",
            "www-authenticate",
        )
    ),
)

# How many bits each octet takes (RFC 7541, appendix B). The code is canonical: codes of one length
# follow each other in the order of their octets.
_LENGTHS = bytes((
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28,
    30, 28, 28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11,
    8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6,
    7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6,
    6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20,
    22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21,
    22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23,
    22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26,
    28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27,
    26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
))  # fmt: skip


class Decoder:
    """Decodes the header blocks of one direction of a connection, in their order."""

    def __init__(self) -> None:
        self._table: deque[Header] = deque()
        self._size = 0
        self._limit = TABLE_SIZE
        # Calls of one method have the same block, as long as the table does not change.
        self._known: dict[bytes, tuple[Header, ...]] = {}
        self._changes = 0

    def decode(self, block: bytes) -> tuple[Header, ...]:
        """The headers of a block; InvalidArgument when it is malformed, which ends a connection."""
        if (known := self._known.get(block)) is not None:
            return known
        before = self._changes
        headers = tuple(self._decode(block))
        if self._changes != before:
            self._known.clear()
        elif len(block) <= _KNOWN_BYTES and len(self._known) < _KNOWN_MAX:
            self._known[block] = headers
        return headers

    def _decode(self, block: bytes) -> list[Header]:
        headers: list[Header] = []
        position = size = 0
        try:
            while position < len(block):
                octet = block[position]
                if octet & 0x80:
                    index, position = _integer(block, position, 7)
                    headers.append(self._entry(index))
                elif octet & 0xE0 == 0x20:
                    limit, position = _integer(block, position, 5)
                    self._resize(limit, first=not headers)
                else:
                    keep = bool(octet & 0x40)
                    header, position = self._literal(block, position, 6 if keep else 4)
                    headers.append(header)
                    if keep:
                        self._add(header)
                if headers and (size := size + _size(headers[-1])) > HEADERS_MAX:
                    raise InvalidArgument("headers are too long")
        except IndexError:
            raise InvalidArgument("header block ends early") from None
        return headers

    def _literal(self, block: bytes, position: int, bits: int) -> tuple[Header, int]:
        index, position = _integer(block, position, bits)
        if index:
            name = self._entry(index)[0]
        else:
            name, position = _string(block, position)
        value, position = _string(block, position)
        return (name, value), position

    def _entry(self, index: int) -> Header:
        if 0 < index <= len(_STATIC):
            return _STATIC[index - 1]
        index -= len(_STATIC) + 1
        if 0 <= index < len(self._table):
            return self._table[index]
        raise InvalidArgument("header block refers to what is not there")

    def _add(self, header: Header) -> None:
        self._table.appendleft(header)
        self._size += _size(header)
        self._evict()
        self._changes += 1

    def _resize(self, size: int, *, first: bool) -> None:
        if size > TABLE_SIZE or not first:
            raise InvalidArgument("header block resizes the table against the rules")
        self._limit = size
        self._evict()
        self._changes += 1

    def _evict(self) -> None:
        while self._size > self._limit:
            self._size -= _size(self._table.pop())


def encode(headers: Iterable[Header]) -> bytes:
    """A header block that no table is needed for."""
    block = bytearray()
    for header in headers:
        block.append(0)
        for text in header:
            data = text.encode("latin-1")
            block += _encode_length(len(data)) + data
    return bytes(block)


def _encode_length(value: int) -> bytes:
    if value < 0x7F:
        return bytes((value,))
    value -= 0x7F
    octets = bytearray((0x7F,))
    while value >= 0x80:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    octets.append(value)
    return bytes(octets)


def _size(header: Header) -> int:
    return len(header[0]) + len(header[1]) + _ENTRY_OVERHEAD


def _integer(block: bytes, position: int, bits: int) -> tuple[int, int]:
    """An integer with a prefix of so many bits, and where it ends (RFC 7541, 5.1)."""
    mask = (1 << bits) - 1
    value = block[position] & mask
    position += 1
    if value < mask:
        return value, position
    shift = 0
    while True:
        octet = block[position]
        position += 1
        value += (octet & 0x7F) << shift
        shift += 7
        if value > _INTEGER_MAX or shift > 35:
            raise InvalidArgument("header block has an integer that is too large")
        if not octet & 0x80:
            return value, position


def _string(block: bytes, position: int) -> tuple[str, int]:
    """A string and where it ends (RFC 7541, 5.2)."""
    packed = block[position] & 0x80
    length, position = _integer(block, position, 7)
    end = position + length
    if end > len(block):
        raise InvalidArgument("header block ends early")
    data = block[position:end]
    if not packed:
        return data.decode("latin-1"), end
    return _known_string(data) if length <= _KNOWN_BYTES else _unpack(data), end


@lru_cache(maxsize=1024)
def _known_string(data: bytes) -> str:
    """`_unpack`: the few strings that there are come again and again."""
    return _unpack(data)


def _unpack(data: bytes) -> str:
    """A string of Huffman code."""
    codes, text, code, length = _codes(), [], 1, 0
    for octet in data:
        for shift in range(7, -1, -1):
            code = code << 1 | octet >> shift & 1
            length += 1
            if (symbol := codes.get(code)) is not None:
                text.append(symbol)
                code, length = 1, 0
        if length > _CODE_MAX:
            break  # nothing that follows would make a code of it
    # What is left over are the first bits of a code of ones (RFC 7541, 5.2).
    if length > 7 or code != (1 << length + 1) - 1:
        raise InvalidArgument("header block has a malformed string")
    return "".join(text)


@cache
def _codes() -> dict[int, str]:
    """From a code, with a one before its bits, to its character."""
    codes, code = {}, 0
    for length in range(min(_LENGTHS), max(_LENGTHS) + 1):
        for octet, bits in enumerate(_LENGTHS):
            if bits == length:
                codes[1 << length | code] = chr(octet)
                code += 1
        code <<= 1
    return codes

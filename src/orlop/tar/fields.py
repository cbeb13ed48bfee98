"""Numbers as the headers of archives have them."""

from __future__ import annotations


class Malformed(Exception):
    """What is wrong with an archive, to follow its name."""


def number(raw: bytes, what: str) -> int:
    """An octal number, or GNU's base 256 with the top bit set."""
    if raw[0] & 0x80:
        value = int.from_bytes(raw, "big", signed=False) & ((1 << (len(raw) * 8 - 1)) - 1)
        if raw[0] == 0xFF:
            value -= 1 << (len(raw) * 8 - 1)
        return value
    text = raw.strip(b" \0")
    try:
        return int(text, 8) if text else 0
    except ValueError:
        raise Malformed(f"has a header with a bad {what}: {raw!r}") from None


def decimal(value: bytes) -> int:
    try:
        return int(value)
    except ValueError:
        raise Malformed(f"has a bad number in a header: {value[:40]!r}") from None


def checked_size(value: int) -> int:
    if value < 0:
        raise Malformed(f"has an entry of size {value}")
    return value

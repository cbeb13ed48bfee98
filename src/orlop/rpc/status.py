"""The text of an error as it may go on the wire."""

from __future__ import annotations

from orlop.errors import OrlopError

# gRPC carries the text in a header block, each byte beyond ASCII as three, and peers refuse a block
# of more than about 8 KiB.
BYTES_MAX, BYTES_MAX_ASCII = 2048, 4096
_TAIL = 256


def wire_text(error: OrlopError) -> str:
    """The error's text as valid UTF-8, the middle left out when it is too long.

    The end stays, because clients test the phrase there. Names of files that are not UTF-8 reach an
    error as lone surrogates; they are written as escapes.
    """
    text = str(error)
    data = text.encode("utf-8", "backslashreplace")
    limit = BYTES_MAX_ASCII if text.isascii() else BYTES_MAX
    if len(data) > limit:
        data = data[: limit - _TAIL] + b" [...] " + data[-_TAIL:]
    return data.decode(errors="ignore")  # a character may have been cut

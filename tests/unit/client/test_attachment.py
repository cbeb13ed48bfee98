"""A client's part of shared streams."""

from __future__ import annotations

import socket
from contextlib import closing

from orlop.client.attach import Attachment


def test_all_is_heard_of_one_that_goes_with_input_unread() -> None:
    """The kernel tells of that first, and of what was sent before it afterwards."""
    shim, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with closing(Attachment(ours, takes_input=True)) as attachment, shim:
        attachment.send(b"for nobody")
        packets = [b"\1first", b"\2second", b"\1last"]
        for packet in packets:
            shim.send(packet)
        shim.close()
        heard = [attachment.receive(attachment.outputs[0]) for _ in (*packets, b"end")]
    assert heard == [(1, b"first"), (2, b"second"), (1, b"last"), (1, b"")]

"""Flows that the kernel tracks: each stays with whom its first packet was led to.

For TCP that is right. Who sends by UDP all the time would be heard by nobody, once the container
that it reached has gone, however the ports lead since then.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable

from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple, NFCTSocket

_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_FEW = 16  # ports that the kernel is asked of one by one, rather than of all flows
# There is nothing to forget where nothing is tracked; a flow may have ended by itself.
_NOTHING = (errno.ENOENT, errno.EPROTONOSUPPORT, errno.EOPNOTSUPP, errno.EINVAL)


def forget(ports: Iterable[int]) -> None:
    """Have the kernel lead the next UDP packets to ports of the host anew."""
    wanted = set(ports)
    for family in _FAMILIES:
        try:
            with NFCTSocket(nfgen_family=family) as tracked:
                for port in wanted if len(wanted) <= _FEW else (None,):
                    _forget(tracked, family, port, wanted)
        except NetlinkError as error:
            if error.code not in _NOTHING:
                raise OSError(error.code, str(error)) from error


def _forget(tracked: NFCTSocket, family: int, port: int | None, wanted: set[int]) -> None:
    chosen = NFCTAttrTuple(family=family, proto=socket.IPPROTO_UDP, dport=port)
    for entry in list(tracked.dump(tuple_orig=chosen)):  # older kernels tell of all
        flow = NFCTAttrTuple.from_netlink(family, entry.get_attr("CTA_TUPLE_ORIG"))
        if flow.proto == socket.IPPROTO_UDP and flow.dport in wanted:
            try:
                tracked.entry("del", tuple_orig=flow)
            except NetlinkError as error:
                if error.code not in _NOTHING:
                    raise

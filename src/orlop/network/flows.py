"""Flows that the kernel tracks: each stays with whom its first packet was led to.

For TCP that is right. Who sends by UDP all the time would be heard by nobody, once the container
that it reached has gone, however the ports lead since then.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Container, Iterable, Iterator

from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple, NFCTSocket

_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_LOOPBACK = "127."
_FEW = 16  # ports that the kernel is asked of one by one, rather than of all flows
# There is nothing to forget where nothing is tracked; a flow may have ended by itself.
_NOTHING = (errno.ENOENT, errno.EPROTONOSUPPORT, errno.EOPNOTSUPP, errno.EINVAL)


def forget(ports: Iterable[int], addresses: Container[str]) -> None:
    """Have the kernel lead the next UDP packets to ports at these addresses anew; OSError."""
    wanted = set(ports)
    for family in _FAMILIES:
        try:
            with NFCTSocket(nfgen_family=family) as tracked:
                for flow in list(_flows(tracked, family, wanted)):
                    own = flow.daddr in addresses or flow.daddr.startswith(_LOOPBACK)
                    if own and flow.dport in wanted:
                        _delete(tracked, flow)
        except NetlinkError as error:
            if error.code not in _NOTHING:
                raise OSError(error.code, str(error)) from error


def _flows(tracked: NFCTSocket, family: int, ports: set[int]) -> Iterator[NFCTAttrTuple]:
    """Flows of UDP to some ports, among others where the kernel does not choose (before 5.8)."""
    for port in ports if len(ports) <= _FEW else (None,):
        chosen = NFCTAttrTuple(family=family, proto=socket.IPPROTO_UDP, dport=port)
        all_told = False
        for entry in tracked.dump(tuple_orig=chosen):
            flow = NFCTAttrTuple.from_netlink(family, entry.get_attr("CTA_TUPLE_ORIG"))
            all_told = all_told or flow.proto != chosen.proto
            if flow.proto == chosen.proto:
                yield flow
        if all_told:
            return


def _delete(tracked: NFCTSocket, flow: NFCTAttrTuple) -> None:
    try:
        tracked.entry("del", tuple_orig=flow)
    except NetlinkError as error:
        if error.code not in _NOTHING:
            raise

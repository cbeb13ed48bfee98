"""What a spare shim does before it has orders: answer a call, so that the first one is quick.

A forked process owns a page of the memory that it shares only once it writes to it, and reading an
object writes to its count of references. Those copies are some 3 ms of a shim's first call, which
is the one that a user waits for. So a spare shim makes them ahead: everything that serves a call is
made once, called in vain, and thrown away.
"""

from __future__ import annotations

import os
import socket

from orlop.rpc.ttrpc import protocol
from orlop.shim.children import Children
from orlop.shim.events import Publisher
from orlop.shim.host import Host
from orlop.shim.log import Log
from orlop.shim.loop import Loop
from orlop.shim.server import Connection
from orlop.shim.service import TaskService
from orlop.sys import bare
from orlop.wire import task_v3_pb2 as task

_NOWHERE = "/nonexistent"
_NAME = "rehearsal"
_SERVICE = "containerd.task.v3.Task"
_ANSWER_MAX = 4096


def rehearse() -> bytes:
    """Refuse to create a container that has no bundle; the refusal, as it is sent."""
    loop = Loop(lambda _: None)
    ours, theirs = bare.seqpacket_pair()
    client, server = socket.socketpair()
    children = Children(loop, ours, lambda: None)
    log = Log(shim=_NAME, namespace=_NAME)
    publisher = Publisher(loop, "", _NAME, log)
    host = Host(loop, children, publisher, log, _NAME, os.getpid())
    service = TaskService(host, loop.stop)
    client.setblocking(False)
    server.setblocking(False)
    Connection(loop, server.detach(), service.find, lambda _: loop.stop())
    request = task.CreateTaskRequest(id=_NAME, bundle=_NOWHERE, stdout=_NOWHERE)
    client.sendall(
        protocol.encode_request(
            1, _SERVICE, "Create", request.SerializeToString(), metadata={}, timeout=None
        )
    )
    answer = loop.spawn(_answer(loop, client))
    loop.run()
    loop.close()
    ours.close()
    theirs.close()
    return answer.result()


async def _answer(loop: Loop, client: socket.socket) -> bytes:
    """Take the answer, and hang up."""
    answer = await loop.read(client.fileno(), _ANSWER_MAX)
    client.close()
    return answer

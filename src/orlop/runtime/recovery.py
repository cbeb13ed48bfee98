"""After a restart: take the tasks back whose shims live, and clear up after those that do not."""

from __future__ import annotations

import logging
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from orlop.errors import NotFound, OrlopError
from orlop.rpc.reactor import Reactor
from orlop.runtime.bundle import Bundle
from orlop.runtime.model import Exit, ProcessState
from orlop.runtime.shim import Shim
from orlop.runtime.shimlog import ShimLog
from orlop.runtime.task import Task
from orlop.runtime.tasks import TaskManager
from orlop.wire.task_types_pb2 import Status

_log = logging.getLogger(__name__)

_PARALLEL = 16
_GOODBYE = 1.0


def recover(tasks: TaskManager, reactor: Reactor) -> int:
    """Adopt every task of an earlier daemon; how many there are.

    Where a shim died meanwhile, its task is cleared up, and clients that subscribe soon are told
    that it has ended. Takes a few seconds at most, however many shims hang.
    """
    bundles, adopted = tasks.bundles.all(), 0
    if bundles:
        with ThreadPoolExecutor(_PARALLEL, thread_name_prefix="recovery") as pool:
            adopted = sum(pool.map(lambda bundle: _recover(tasks, reactor, bundle), bundles))
        _log.info("tasks=%d recovered, %d not", adopted, len(bundles) - adopted)
    tasks.shims.reap()
    return adopted


def _recover(tasks: TaskManager, reactor: Reactor, bundle: Bundle) -> bool:
    """Whether the bundle's task is there again.

    Only a shim that is certainly gone is cleared up after: where this daemon lacks descriptors or
    memory to find out, the container is left alone.
    """
    name = f"namespace={bundle.namespace} task={bundle.id}"
    try:
        return _adopt(tasks, reactor, bundle, name)
    except OSError as error:
        _log.error("%s is left alone, and not managed: %s", name, error)
        return False


def _adopt(tasks: TaskManager, reactor: Reactor, bundle: Bundle, name: str) -> bool:
    try:
        log = ShimLog(bundle.path / "log", reactor, bundle.id, bundle.namespace)
    except FileNotFoundError as error:
        _log.info("%s half a bundle: %s", name, error)
        _clear_up(tasks, bundle)
        return False
    try:
        task = Task(bundle, tasks.shims.connect(bundle), log)
    except OrlopError as error:
        _log.info("%s has no shim: %s", name, error)
        log.close()
        ended = _clear_up(tasks, bundle)
        ended = ended or Exit(255, time.time_ns())
        tasks.undertaker.publish_exit(bundle, ended, keep=True)
        tasks.undertaker.publish_delete(bundle, ended, keep=True)
        return False
    except OSError:
        log.close()
        raise
    try:
        state = _ask(task)
        if state.status == Status.CREATED and not state.pid:
            tasks.forget_network(task)
    except NotFound:
        _log.info("%s was never made", name)
        log.close()
        _end(tasks, task.shim, bundle)
        _clear_up(tasks, bundle)
        return False
    except OrlopError as error:
        _log.warning("%s does not answer: %s", name, error)
    task.recovered = True
    tasks.register(task)
    with suppress(OrlopError):
        _ask(task)  # once more, for good: while it is awake that costs nothing
    return True


def _ask(task: Task) -> ProcessState:
    state = task.state()
    task.exit = task.exit or state.exit
    return state


def _end(tasks: TaskManager, shim: Shim, bundle: Bundle) -> None:
    """End a shim whose task an earlier daemon did not live to see made."""
    try:
        tasks.shims.release(shim, bundle)
        if shim.own and not bundle.shares_shim() and not shim.closed.wait(_GOODBYE):
            os.kill(shim.pid(_GOODBYE), signal.SIGKILL)  # it is making the task still
            shim.closed.wait(_GOODBYE)
    except (OrlopError, OSError) as error:
        _log.warning("namespace=%s task=%s shim stays: %s", bundle.namespace, bundle.id, error)


def _clear_up(tasks: TaskManager, bundle: Bundle) -> Exit | None:
    """Remove what is left of a task; how it ended, if that can be told."""
    ended = None
    try:
        ended = tasks.shims.clean_up(bundle)
        bundle.delete()
        tasks.mounts.release(bundle.namespace, bundle.id)
    except (OrlopError, OSError) as error:
        _log.warning("namespace=%s task=%s bundle stays: %s", bundle.namespace, bundle.id, error)
    return ended

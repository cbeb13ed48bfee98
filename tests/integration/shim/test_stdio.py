"""Bytes in and out of containers: fifos, files, loggers and terminals."""

from __future__ import annotations

import os
import select
import stat
import subprocess
import termios
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from orlop import errors
from orlop.wire import task_v2_pb2 as task
from tests.integration.shim.harness import NAMESPACE, Shim, process_exists, wait_until
from tests.patience import patient

pytestmark = pytest.mark.root


def reading(path: str) -> Callable[[], bytes]:
    """Open a fifo as a client does and read to its end; call the result for all that came."""
    data: list[bytes] = []

    def read() -> None:
        with Path(path).open("rb") as fifo:
            data.append(fifo.read())

    thread = threading.Thread(target=read, daemon=True)
    thread.start()

    def result() -> bytes:
        thread.join(60)
        assert not thread.is_alive(), "no end of file"
        return data[0]

    return result


def read_some(fd: int, until: bytes, timeout: float = 10) -> bytes:
    """Read from a non-blocking descriptor until some bytes have come."""
    data, deadline = b"", time.monotonic() + timeout
    while until not in data:
        assert time.monotonic() < deadline, data
        if select.select([fd], [], [], 0.1)[0]:
            data += os.read(fd, 65536)
    return data


def has_lines(path: Path, count: int) -> bool:
    return path.read_text().count("\n") == count


def start(shim: Shim, name: str = "one") -> Callable[[], int]:
    """Start a container; call the result to wait for its exit status."""
    waiting = shim.client.begin("wait", id=name)
    shim.client.start(id=name)
    return lambda: task.WaitResponse.FromString(waiting.result(20)).exit_status


def test_stdout_and_stderr(shim: Shim) -> None:
    out, err = shim.fifo("out"), shim.fifo("err")
    got_out, got_err = reading(out), reading(err)
    shim.create("one", ["sh", "-c", "echo to out; echo to err >&2"], stdout=out, stderr=err)
    start(shim)()
    assert got_out() == b"to out\n"  # the end comes with the exit, before the delete
    assert got_err() == b"to err\n"
    shim.client.delete(id="one")


def test_the_process_cannot_read_its_output_back(shim: Shim) -> None:
    out = shim.fifo("out")
    got = reading(out)
    pid = shim.create("one", ["true"], stdout=out)
    flags = next(
        line.split()[1]
        for line in Path(f"/proc/{pid}/fdinfo/1").read_text().splitlines()
        if line.startswith("flags")
    )
    assert int(flags, 8) & os.O_ACCMODE == os.O_WRONLY
    assert not int(flags, 8) & os.O_NONBLOCK
    start(shim)()
    assert got() == b""
    shim.client.delete(id="one")


def test_only_the_three_descriptors(shim: Shim) -> None:
    out = shim.fifo("out")
    got = reading(out)
    shim.create("one", ["sh", "-c", "ls /proc/self/fd"], stdout=out, stdin=shim.fifo("in"))
    start(shim)()
    assert got().split() == [b"0", b"1", b"2", b"3"]  # 3 is the folder that ls reads
    shim.client.delete(id="one")


def test_output_before_and_after_a_reader(shim: Shim) -> None:
    """Written, and ended, before anybody has the fifo open; then the client comes."""
    out = shim.fifo("out")
    shim.create("one", ["echo", "early"], stdout=out)
    assert start(shim)() == 0
    time.sleep(0.2)
    assert reading(out)() == b"early\n"
    shim.client.delete(id="one")


def test_a_late_reader_of_nothing_gets_its_end(shim: Shim) -> None:
    out = shim.fifo("out")
    shim.create("one", ["true"], stdout=out)
    start(shim)()
    time.sleep(0.1)
    assert reading(out)() == b""
    shim.client.delete(id="one")


def test_many_that_nobody_reads_hold_one_inotify(shim: Shim) -> None:
    """Asleep as well as awake; and each client that comes gets what is its own, and its end."""
    fifos = {}
    for name in ("one", "two", "three"):
        fifos[name] = out, err = shim.fifo(f"{name}-out"), shim.fifo(f"{name}-err")
        script = f"echo {name}; echo {name}! >&2"
        shim.create(name, ["sh", "-c", script], stdout=out, stderr=err)
        start(shim, name)()
        shim.fall_asleep()

    def inotifies() -> int:
        count = 0
        with suppress(FileNotFoundError):  # the hand has just gone
            for path in Path(f"/proc/{shim.hand or shim.pid}/fd").iterdir():
                with suppress(FileNotFoundError):  # it was closed just now
                    count += "inotify" in str(path.readlink())
        return count

    for _ in range(2):
        shim.fall_asleep()
        wait_until(lambda: inotifies() == 1)
        shim.client.state(id="one")
        wait_until(lambda: inotifies() == 1)
    for name, (out, err) in fifos.items():
        assert reading(err)() == f"{name}!\n".encode()
        assert reading(out)() == f"{name}\n".encode()
        shim.client.delete(id=name)
    shim.fall_asleep()
    assert inotifies() == 0


def test_nobody_ever_reads(shim: Shim) -> None:
    """There is nobody to drain for, which takes two seconds where there is."""
    taken = []
    for number in range(3):
        out, err = shim.fifo(f"out{number}"), shim.fifo(f"err{number}")
        name = f"one{number}"
        shim.create(name, ["echo", "lost"], stdout=out, stderr=err)
        start(shim, name)()
        started = time.monotonic()
        shim.client.delete(id=name)
        taken.append(time.monotonic() - started)
    assert min(taken) < 1.5


def test_a_reader_comes_and_goes(shim: Shim) -> None:
    out = shim.fifo("out")
    script = (
        "echo line 1; echo line 2; while [ ! -e /dev/go ]; do sleep 0.05; done;"
        "for i in 3 4 5 6 7 8 9; do echo line $i; sleep 0.1; done"
    )
    first = os.open(out, os.O_RDONLY | os.O_NONBLOCK)
    pid = shim.create("one", ["sh", "-c", script], stdout=out)
    wait = start(shim)
    data = read_some(first, b"line 2\n")
    os.close(first)
    Path(f"/proc/{pid}/root/dev/go").touch()
    time.sleep(0.3)
    data += reading(out)()
    assert wait() == 0
    assert data == b"".join(b"line %d\n" % number for number in range(1, 10))
    shim.client.delete(id="one")


def test_much_output_arrives_whole(shim: Shim) -> None:
    out = shim.fifo("out")
    got = reading(out)
    shim.create("one", ["head", "-c", "20000000", "/dev/zero"], stdout=out)
    start(shim)()
    assert len(got()) == 20_000_000
    shim.client.delete(id="one")


def test_an_orphan_writes_on_after_its_exec(shim: Shim) -> None:
    shim.create("one", ["sleep", "1000"])
    start(shim)
    taken = []
    for turn in ("two", "three", "four"):  # on a busy machine it may be later than is waited for
        out = shim.fifo(turn)
        got = reading(out)
        shim.exec("one", turn, ["sh", "-c", "(sleep 0.5; echo late) & echo now"], stdout=out)
        shim.client.start(id="one", exec_id=turn)
        shim.client.wait(id="one", exec_id=turn)
        shim.client.delete(id="one", exec_id=turn)  # waits for the last writer
        taken.append(got())
    assert all(each.startswith(b"now\n") for each in taken)
    assert b"now\nlate\n" in taken
    shim.finish("one")


def test_stdin_until_close_io(shim: Shim) -> None:
    """CloseIO is end of file for the process although the client has the fifo open still."""
    out, path = shim.fifo("out"), shim.fifo("in")
    got = reading(out)
    shim.create("one", ["cat"], stdin=path, stdout=out)
    writer = os.open(path, os.O_WRONLY)
    wait = start(shim)
    os.write(writer, b"first\n")
    os.close(writer)  # a client that goes away is no end of file
    time.sleep(0.2)
    writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    os.write(writer, b"second\n" * 9000)
    shim.client.close_io(id="one", stdin=True)
    assert wait() == 0
    assert got() == b"first\n" + b"second\n" * 9000
    os.close(writer)
    shim.client.delete(id="one")


def test_stdin_of_a_process_that_does_not_read(shim: Shim) -> None:
    path = shim.fifo("in")
    shim.create("one", ["sleep", "1000"], stdin=path)
    start(shim)
    writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(writer, b"x" * 65536)
            time.sleep(0.02)
    assert shim.client.state(id="one").pid > 0
    shim.finish("one")
    os.close(writer)


def test_exec_with_stdin(shim: Shim) -> None:
    shim.create("one", ["sleep", "1000"])
    start(shim)
    out, path = shim.fifo("out"), shim.fifo("in")
    got = reading(out)
    shim.exec("one", "two", ["cat"], stdin=path, stdout=out)
    shim.client.start(id="one", exec_id="two")
    with Path(path).open("wb") as writer:
        writer.write(b"hello")
    shim.client.close_io(id="one", exec_id="two", stdin=True)
    assert shim.client.wait(id="one", exec_id="two").exit_status == 0
    assert got() == b"hello"
    shim.client.delete(id="one", exec_id="two")
    shim.finish("one")


def test_a_file(shim: Shim) -> None:
    path = shim.folder / "logs/of/one.log"
    for word in ("first", "second"):
        shim.create(word, ["sh", "-c", f"echo {word}; echo {word} >&2"], stdout=f"file://{path}")
        start(shim, word)()
        shim.client.delete(id=word)
    assert path.read_text() == "first\nsecond\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_file_is_not_in_the_hands_of_the_container(shim: Shim) -> None:
    """Its root cannot truncate it, nor make it a program that runs as root on the host."""
    path = shim.folder / "one.log"
    path.write_text("before\n")
    path.chmod(0o600)
    script = "busybox chmod 4755 /proc/self/fd/1; : > /proc/self/fd/1; echo out; echo err >&2"
    shim.create("one", ["sh", "-c", script], stdout=f"file://{path}", stderr=f"file://{path}")
    start(shim)()
    shim.client.delete(id="one")
    assert path.read_text() == "before\nout\nerr\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_gets_what_is_printed_while_the_shim_sleeps(shim: Shim) -> None:
    path, keys = shim.folder / "one.log", shim.fifo("in")
    uri = f"file://{path}"
    script = "echo one; read x; echo two; read x; echo three >&2"
    shim.create("one", ["sh", "-c", script], stdin=keys, stdout=uri, stderr=uri)
    wait = start(shim)
    writer = os.open(keys, os.O_WRONLY)
    for lines in (1, 2):
        wait_until(partial(has_lines, path, lines))
        shim.fall_asleep()
        os.write(writer, b"\n")
    assert wait() == 0
    wait_until(partial(has_lines, path, 3))
    assert path.read_text() == "one\ntwo\nthree\n"
    os.close(writer)
    shim.client.delete(id="one")


@pytest.mark.parametrize("terminal", [False, True])
def test_a_full_disk_does_not_hold_up_who_prints(shim: Shim, terminal: bool) -> None:
    script = "head -c 300000 /dev/zero; exit 5"
    shim.create("one", ["sh", "-c", script], terminal=terminal, stdout="file:///dev/full")
    assert start(shim)() == 5
    shim.client.delete(id="one")


@pytest.mark.parametrize("shared", ["", "attach+"])
def test_a_disk_that_has_room_again_gets_what_is_printed_then(shim: Shim, shared: str) -> None:
    disk, keys, news = shim.folder / "disk", shim.fifo("in"), shim.fifo("news")
    reader = os.open(news, os.O_RDONLY | os.O_NONBLOCK)
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "full", disk], check=True)
    try:
        log, filler = disk / "one.log", disk / "filler"
        log.touch()
        filler.write_bytes(bytes(1 << 20))
        script = "head -c 300000 /dev/zero; echo printed >&2; read x; echo again"
        out, err = f"{shared}file://{log}", f"{shared}fifo://{news}"
        shim.create("one", ["sh", "-c", script], stdin=keys, stdout=out, stderr=err)
        wait = start(shim)
        writer = os.open(keys, os.O_WRONLY)
        read_some(reader, b"printed")  # a pipe full of zeros may still be on its way
        filler.unlink()
        os.write(writer, b"\n")
        os.close(writer)
        wait()
        shim.client.delete(id="one")
        assert log.read_bytes().endswith(b"again\n")
    finally:
        subprocess.run(["umount", "-l", disk], check=True)
        os.close(reader)


def test_a_stopped_terminal_as_a_file_holds_up_nobody_else(shim: Shim) -> None:
    ours, terminal = os.openpty()
    path = os.ttyname(terminal)
    termios.tcflow(terminal, termios.TCOOFF)
    try:
        shim.create("one", ["sh", "-c", "echo out; exit 5"], stdout=f"file://{path}")
        wait = start(shim)
        time.sleep(0.3)  # enough for the shim to have come to the output
        state = shim.client.begin("state", id="one").result(patient(10))
        assert task.StateResponse.FromString(state).id == "one"
    finally:
        termios.tcflow(terminal, termios.TCOON)
    assert read_some(ours, b"out") == b"out\r\n"
    assert wait() == 5
    shim.client.delete(id="one")
    os.close(ours)
    os.close(terminal)


def test_a_fifo_as_a_file_is_not_copied(shim: Shim) -> None:
    path = shim.fifo("out")
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    pid = shim.create("one", ["echo", "out"], stdout=f"file://{path}", stderr=f"file://{path}")
    for fd in (1, 2):
        assert str(Path(f"/proc/{pid}/fd/{fd}").readlink()) == path
        flags = Path(f"/proc/{pid}/fdinfo/{fd}").read_text().partition("flags:")[2].split()[0]
        assert not int(flags, 8) & os.O_NONBLOCK
    start(shim)()
    assert os.read(reader, 100) == b"out\n"
    assert os.read(reader, 100) == b""  # nobody else has it open
    os.close(reader)
    shim.client.delete(id="one")


def test_a_fifo_as_a_file_that_nobody_reads(shim: Shim) -> None:
    """To wait for its reader would hold up all that the shim does."""
    path = shim.fifo("out")
    with pytest.raises(errors.Unknown, match="out"):
        shim.create("one", ["true"], stdout=f"file://{path}")


LOGGER = """#!/bin/sh
{ env | grep CONTAINER; echo "args $*"; } > LOG
exec 5>&-
cat <&3 >> LOG; cat <&4 >> LOG
sleep 0.3
echo done >> LOG
"""


@pytest.mark.parametrize("terminal", [False, True])
def test_a_logger(shim: Shim, terminal: bool) -> None:
    log, program = shim.folder / "log.txt", shim.folder / "logger"
    program.write_text(LOGGER.replace("LOG", str(log)))
    program.chmod(0o755)
    uri = f"binary://{program}?key=a%20value"
    args = ["sh", "-c", "echo out; echo err >&2"]
    shim.create("one", args, terminal=terminal, stdout=uri, stderr="" if terminal else uri)
    start(shim)()
    shim.client.delete(id="one")  # waits for the logger
    lines = log.read_text().split("\n")
    assert {"CONTAINER_ID=one", f"CONTAINER_NAMESPACE={NAMESPACE}"} <= set(lines)
    assert "args key a value" in lines
    assert [line.strip() for line in lines[-4:]] == ["out", "err", "done", ""]


def test_a_logger_that_does_not_exist(shim: Shim) -> None:
    with pytest.raises(errors.Unknown, match="/nowhere/logger"):
        shim.create("one", ["true"], stdout="binary:///nowhere/logger")


def test_terminal(shim: Shim) -> None:
    out, path = shim.fifo("out"), shim.fifo("in")
    reader = os.open(out, os.O_RDONLY | os.O_NONBLOCK)
    shim.create("one", ["sh"], terminal=True, stdin=path, stdout=out)
    shim.client.resize_pty(id="one", width=100, height=30)
    wait = start(shim)
    writer = os.open(path, os.O_WRONLY)
    os.write(writer, b"stty size\n")
    assert b"30 100" in read_some(reader, b"30 100\r\n")
    shim.client.resize_pty(id="one", width=81, height=25)
    os.write(writer, b"stty size; test -t 0 && test -t 2 && echo all-t''ty\n")
    assert b"all-tty\r\n" in read_some(reader, b"all-tty\r\n")
    os.write(writer, b"\x03\nexit 4\n")
    assert wait() == 4
    os.close(writer)
    os.set_blocking(reader, True)
    while os.read(reader, 65536):
        pass  # to the end, which comes without a delete
    os.close(reader)
    shim.client.delete(id="one")


def test_a_size_that_no_terminal_has(shim: Shim) -> None:
    """Containerd's shim takes 16 bits of it."""
    shim.create("one", ["sleep", "1000"], terminal=True, stdout=shim.fifo("out"))
    start(shim)
    shim.client.resize_pty(id="one", width=65536 + 97, height=65536 + 31)
    pid = shim.client.state(id="one").pid
    with Path(f"/proc/{pid}/root/dev/pts/0").open("rb") as terminal:
        assert os.get_terminal_size(terminal.fileno()) == (97, 31)
    shim.finish("one")


def test_terminal_of_an_exec_resized_before_its_start(shim: Shim) -> None:
    shim.create("one", ["sleep", "1000"])
    start(shim)
    out = shim.fifo("out")
    got = reading(out)
    shim.exec("one", "two", ["sh", "-c", "sleep 0.3; stty size"], terminal=True, stdout=out)
    shim.client.resize_pty(id="one", exec_id="two", width=97, height=31)
    shim.client.start(id="one", exec_id="two")
    assert shim.client.wait(id="one", exec_id="two").exit_status == 0
    assert got() == b"31 97\r\n"
    shim.client.delete(id="one", exec_id="two")
    shim.finish("one")


def test_the_last_bytes_of_a_terminal(shim: Shim) -> None:
    out = shim.fifo("out")
    got = reading(out)
    script = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done"
    shim.create("one", ["sh", "-c", script], terminal=True, stdout=out)
    start(shim)()
    lines = got().split(b"\r\n")
    assert lines == [b"line %d" % number for number in range(20000)] + [b""]
    shim.client.delete(id="one")


def test_terminal_without_a_reader_does_not_hold_up_the_exit(shim: Shim) -> None:
    script = "head -c 30000 /dev/zero; exit 5"
    shim.create("one", ["sh", "-c", script], terminal=True, stdout=shim.fifo("out"))
    assert start(shim)() == 5
    started = time.monotonic()
    shim.client.delete(id="one")
    assert time.monotonic() - started < patient(15)


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("shared", ["", "attach:"])
def test_an_exec_that_nobody_deletes_holds_nothing(shim: Shim, terminal: bool, shared: str) -> None:
    """Not its terminal, nor its pipes; how it ended is told all the same."""
    shim.create("one", ["sleep", "1000"])
    start(shim)

    def held() -> set[str]:
        found = set()
        for pid in filter(None, (shim.pid, shim.hand)):
            with suppress(FileNotFoundError):  # the hand has just gone
                for path in Path(f"/proc/{pid}/fd").iterdir():
                    with suppress(FileNotFoundError):  # it was closed just now
                        found.add(str(path.readlink()))
        return {each for each in found if "ptmx" in each or "pipe:" in each}

    shim.fall_asleep()
    before = held()
    for number in range(3):
        out = shared or shim.fifo(f"out{number}")
        got = reading(out) if not shared else bytes
        shim.exec("one", f"e{number}", ["echo", "hi"], terminal=terminal, stdout=out)
        shim.client.start(id="one", exec_id=f"e{number}")
        assert shim.client.wait(id="one", exec_id=f"e{number}").exit_status == 0
        assert got().strip() == (b"" if shared else b"hi")
    wait_until(lambda: len(held()) <= len(before))
    for number in range(3):
        assert shim.client.delete(id="one", exec_id=f"e{number}").exit_status == 0
    shim.finish("one")


def test_no_descriptor_stays(shim: Shim) -> None:
    def descriptors() -> list[str]:
        """Those of the sleeping keeper, once it has put away what it had for its hand."""
        found = look()
        while (again := look()) != found:
            found = again
        return found

    def look() -> list[str]:
        shim.fall_asleep()
        time.sleep(0.05)
        found = []
        for fd in Path(f"/proc/{shim.pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # it was closed just now
                found.append(str(fd.readlink()))
        return sorted(found)

    before: list[str] = []
    for number in range(3):
        name = f"run-{number}"
        out, path = shim.fifo(f"out-{number}"), shim.fifo(f"in-{number}")
        shim.create(name, ["true"], terminal=number == 1, stdin=path, stdout=out)
        start(shim, name)()
        shim.client.delete(id=name)
        shim.daemon.wait_for(4 * (number + 1))
        # inotify is let go of a while after the delete.
        wait_until(lambda: not any("inotify" in each for each in descriptors()))
        before = before or descriptors()
    wait_until(lambda: descriptors() == before)
    assert process_exists(shim.pid)

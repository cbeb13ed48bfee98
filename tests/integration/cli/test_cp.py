"""`orlop cp`: docker cp's rules, running and stopped containers, and hostile ones."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from glob import glob
from pathlib import Path

import pytest

from orlop.sys.process import is_alive, mark
from tests import nasty_tree
from tests.daemon_fixture import Orlopd
from tests.patience import patient
from tests.tree import describe

pytestmark = pytest.mark.root


@pytest.fixture(params=["running", "stopped"])
def box(
    orlopd: Orlopd, busybox: str, request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[str]:
    """A container with a volume."""
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume/note").write_text("in the volume")
    options = ("-v", f"{tmp_path}/volume:/data/volume", "--tmpfs", "/scratch")
    script = "mkdir -p /d/e; echo f > /d/e/f; ln -s /d /link; ln -s f /d/e/l; echo up; sleep 1000"
    orlopd.orlop("run", "-d", "--name", "box", *options, busybox, "sh", "-c", script)
    orlopd.wait_for(lambda: orlopd.orlop("logs", "box").stdout == "up\n")
    if request.param == "stopped":
        orlopd.orlop("stop", "-t", "0.1", "box")
    yield "box"
    orlopd.orlop("rm", "-f", "box", check=False)
    # Path.glob() minds what goes meanwhile.
    assert not glob("/tmp/orlop-copy-*/*")  # noqa: PTH207


def _text(orlopd: Orlopd, path: str, tmp_path: Path) -> str:
    orlopd.orlop("cp", f"box:{path}", str(tmp_path / "read"))
    text = (tmp_path / "read").read_text()
    (tmp_path / "read").unlink()
    return text


def _refused(orlopd: Orlopd, *arguments: str) -> str:
    done = orlopd.orlop("cp", *arguments, check=False)
    assert done.returncode == 1
    return done.stderr


def test_files_by_dockers_rules(orlopd: Orlopd, box: str, tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    orlopd.orlop("cp", f"{box}:/d/e/f", str(here))
    orlopd.orlop("cp", f"{box}:d/e/f", str(here / "renamed"))
    assert (here / "f").read_text() == (here / "renamed").read_text() == "f\n"
    (here / "new").write_text("new")
    orlopd.orlop("cp", str(here / "new"), f"{box}:/d/e/f")
    assert _text(orlopd, "/d/e/f", tmp_path) == "new"
    orlopd.orlop("cp", str(here / "new"), f"{box}:/link/e")
    assert _text(orlopd, "/d/e/new", tmp_path) == "new"
    orlopd.orlop("cp", str(here / "f"), f"{box}:/d/e/l")  # through the link
    assert _text(orlopd, "/d/e/f", tmp_path) == "f\n"
    assert 'folder "/no"' in _refused(orlopd, str(here / "f"), f"{box}:/no/file")
    assert 'folder "/no/"' in _refused(orlopd, str(here / "f"), f"{box}:/no/")
    assert f'"/no" in container "{box}": not found' in _refused(orlopd, f"{box}:/no", str(here))
    assert '"/d/e/f/" is not a folder' in _refused(orlopd, f"{box}:/d/e/f/", str(here))
    (here / "e").write_text("a file, not the folder e")
    assert "cannot take the place of" in _refused(orlopd, str(here / "e"), f"{box}:/d")
    assert "cannot take the place of" in _refused(orlopd, f"{box}:/d/e", str(here / "e"))
    assert "cannot take the place of" in _refused(orlopd, f"{box}:/d/e", str(here))
    assert (here / "e").read_text() == "a file, not the folder e"


def test_folders_by_dockers_rules(orlopd: Orlopd, box: str, tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    orlopd.orlop("cp", f"{box}:/d", str(here))
    orlopd.orlop("cp", f"{box}:/d", str(here / "renamed"))
    orlopd.orlop("cp", f"{box}:/d/.", str(here / "fresh"))
    (here / "there").mkdir()
    orlopd.orlop("cp", f"{box}:/d/.", str(here / "there"))
    for name in ("d", "renamed", "fresh", "there"):
        assert (here / name / "e/f").read_text() == "f\n", name
        assert (here / name / "e/l").readlink() == Path("f")
    orlopd.orlop("cp", str(here / "d"), f"{box}:/link")
    assert _text(orlopd, "/d/d/e/f", tmp_path) == "f\n"
    orlopd.orlop("cp", f"{here}/d/.", f"{box}:/made")
    assert _text(orlopd, "/made/e/f", tmp_path) == "f\n"
    orlopd.orlop("cp", f"{here}/d/.", f"{box}:/")
    assert _text(orlopd, "/e/f", tmp_path) == "f\n"


def test_links(orlopd: Orlopd, box: str, tmp_path: Path) -> None:
    orlopd.orlop("cp", f"{box}:/link", str(tmp_path / "link"))
    assert (tmp_path / "link").readlink() == Path("/d")
    orlopd.orlop("cp", "-L", f"{box}:/link", str(tmp_path / "followed"))
    assert (tmp_path / "followed/e/f").read_text() == "f\n"
    orlopd.orlop("cp", f"{box}:/link/", str(tmp_path / "inside"))
    assert (tmp_path / "inside/e/f").read_text() == "f\n"
    (tmp_path / "local").symlink_to("followed/e/f")
    orlopd.orlop("cp", "-L", str(tmp_path / "local"), f"{box}:/d")
    assert _text(orlopd, "/d/local", tmp_path) == "f\n"


def test_volumes(orlopd: Orlopd, box: str, tmp_path: Path) -> None:
    assert _text(orlopd, "/data/volume/note", tmp_path) == "in the volume"
    (tmp_path / "new").write_text("for the volume")
    orlopd.orlop("cp", str(tmp_path / "new"), f"{box}:/data/volume/new")
    assert (tmp_path / "volume/new").read_text() == "for the volume"
    orlopd.orlop("cp", f"{box}:/data", str(tmp_path / "data"))
    assert (tmp_path / "data/volume/note").read_text() == "in the volume"


def test_everything_a_tree_can_hold(orlopd: Orlopd, box: str, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    nasty_tree.build(tree)
    nasty_tree.change(tree)
    orlopd.orlop("cp", "-a", str(tree), f"{box}:/copied")
    orlopd.orlop("cp", "-a", f"{box}:/copied", str(tmp_path / "back"))
    assert describe(tmp_path / "back") == describe(tree)
    assert nasty_tree.times(tmp_path / "back") == nasty_tree.times(tree)


def test_owners(orlopd: Orlopd, box: str, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("x")
    os.chown(mine, 1000, 1001)
    for options, owner in (((), (0, 0)), (("-a",), (1000, 1001))):
        orlopd.orlop("cp", *options, str(mine), f"{box}:/owned")
        orlopd.orlop("cp", "-a", f"{box}:/owned", str(tmp_path / "back"))
        found = (tmp_path / "back").stat()
        assert (found.st_uid, found.st_gid) == owner
    orlopd.orlop("cp", f"{box}:/owned", str(tmp_path / "back"))
    assert (tmp_path / "back").stat().st_uid == os.geteuid()


def test_tars(orlopd: Orlopd, box: str, tmp_path: Path) -> None:
    out = subprocess.run(orlopd.orlop_command("cp", f"{box}:/d", "-"), capture_output=True,
        check=True, timeout=60).stdout  # fmt: skip
    with tarfile.open(fileobj=io.BytesIO(out)) as archive:
        assert archive.getnames() == ["d", "d/e", "d/e/f", "d/e/l"]
    subprocess.run(orlopd.orlop_command("cp", "-", f"{box}:/link/e"), input=out, check=True,
        timeout=60)  # fmt: skip
    assert _text(orlopd, "/d/e/d/e/f", tmp_path) == "f\n"
    for target, data, text in (
        ("/none", out, 'folder "/none", for an archive'),
        ("/d/e/f", out, 'folder "/d/e/f", for an archive'),
        ("/d", b"no tar" * 1000, "archive has a header with a bad"),
        ("/d", out[:700], "archive breaks off"),
    ):
        refused = subprocess.run(orlopd.orlop_command("cp", "-", f"{box}:{target}"), input=data,
            capture_output=True, check=False, timeout=60)  # fmt: skip
        assert refused.returncode == 1
        assert text in refused.stderr.decode()


def test_hostile_archives(orlopd: Orlopd, box: str, tmp_path: Path) -> None:
    """What a tar says stays in the folder it is unpacked in."""
    secret = tmp_path / "secret"
    secret.mkdir()
    for link, member in (
        (str(secret), "out/file"),
        ("../" * 30 + str(secret), "out/file"),
        (str(secret / "file"), "out"),
    ):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            info = tarfile.TarInfo("out")
            info.type, info.linkname = tarfile.SYMTYPE, link
            archive.addfile(info)
            info = tarfile.TarInfo(member)
            info.size = 1
            archive.addfile(info, io.BytesIO(b"x"))
        command = orlopd.orlop_command("cp", "-", f"{box}:/d/e")
        subprocess.run(command, input=buffer.getvalue(), capture_output=True, check=False)
        assert list(secret.iterdir()) == []
    assert _copied_in(orlopd, f"{box}:/d", "/absolute") == ""
    assert _text(orlopd, "/d/absolute", tmp_path) == "x"
    assert "archive entry" in _copied_in(orlopd, f"{box}:/d", "../up")


def _copied_in(orlopd: Orlopd, target: str, name: str) -> str:
    """What `orlop cp` says of an archive that has a file of this name."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = 1
        archive.addfile(info, io.BytesIO(b"x"))
    command = orlopd.orlop_command("cp", "-", target)
    done = subprocess.run(command, input=buffer.getvalue(), capture_output=True, check=False)
    return done.stderr.decode()


def test_hostile_links(orlopd: Orlopd, busybox: str, tmp_path: Path) -> None:
    """A container's links mean the container's files, whoever follows them."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("of the host")
    script = f"""
    ln -s {secret} /abs; ln -s ../../../../../..{secret} /rel; ln -s {secret}/key /key
    ln -s /proc/self/root{secret} /magic; ln -s /proc/1/root/etc/passwd /one; ln -s loop /loop
    echo up; sleep 1000
    """
    orlopd.orlop("run", "-d", "--name", "box", busybox, "sh", "-c", script)
    orlopd.wait_for(lambda: orlopd.orlop("logs", "box").stdout == "up\n")
    (tmp_path / "mine").write_text("mine")
    for _ in range(2):
        for path in ("/abs/", "/rel/", "/magic/", "/abs/key", "/rel/key", "/magic/key"):
            _refused(orlopd, f"box:{path}", str(tmp_path / "stolen"))
            _refused(orlopd, str(tmp_path / "mine"), f"box:{path}")
        _refused(orlopd, "-L", "box:/key", str(tmp_path / "stolen"))
        assert "too many levels" in _refused(orlopd, "-L", "box:/loop", str(tmp_path / "stolen"))
        _refused(orlopd, str(tmp_path / "mine"), "box:/key")
        assert not (tmp_path / "stolen").exists()
        assert [path.name for path in secret.iterdir()] == ["key"]
        assert (secret / "key").read_text() == "of the host"
        orlopd.orlop("stop", "-t", "0.1", "box")
    orlopd.orlop("rm", "box")


def test_links_that_change_meanwhile(orlopd: Orlopd, busybox: str, tmp_path: Path) -> None:
    """A folder that is a link to elsewhere every other moment never leads to the host's files."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "file").write_text("of the host")
    script = f"""
    mkdir /real; echo of the box > /real/file; mkdir /a; echo of the box > /a/file
    ln -s {secret} /b; echo up
    while true; do mv -T /a /c; mv -T /b /a; mv -T /a /b; mv -T /c /a; done
    """
    orlopd.orlop("run", "-d", "--name", "box", busybox, "sh", "-c", script)
    orlopd.wait_for(lambda: orlopd.orlop("logs", "box").stdout == "up\n")
    (tmp_path / "mine").write_text("mine")
    for _ in range(4):
        orlopd.orlop("cp", "box:/a/file", str(tmp_path / "got"), check=False)
        orlopd.orlop("cp", str(tmp_path / "mine"), "box:/a/file2", check=False)
        orlopd.orlop("cp", "-L", "box:/a/.", str(tmp_path / "all"), check=False)
    assert [path.name for path in secret.iterdir()] == ["file"]
    for path in tmp_path.glob("got"), (tmp_path / "all").glob("file"):
        assert all(each.read_text() == "of the box\n" for each in path)
    orlopd.orlop("rm", "-f", "box")


def test_a_running_container_in_particular(orlopd: Orlopd, busybox: str, tmp_path: Path) -> None:
    """Its tmpfs is seen, its proc and sys are not walked, and it sees at once what comes."""
    orlopd.orlop("run", "-d", "--name", "box", "--tmpfs", "/scratch", busybox, "sleep", "1000")
    (tmp_path / "mine").write_text("mine")
    orlopd.orlop("cp", str(tmp_path / "mine"), "box:/scratch/mine")
    assert orlopd.orlop("exec", "box", "cat", "/scratch/mine").stdout == "mine"
    orlopd.orlop("pause", "box")
    orlopd.orlop("cp", str(tmp_path / "mine"), "box:/etc/mine")
    orlopd.orlop("unpause", "box")
    assert orlopd.orlop("exec", "box", "cat", "/etc/mine").stdout == "mine"
    orlopd.orlop("cp", "box:/", str(tmp_path / "all"))
    assert list((tmp_path / "all/proc").iterdir()) == []
    assert list((tmp_path / "all/sys").iterdir()) == []
    assert (tmp_path / "all/scratch/mine").read_text() == "mine"
    orlopd.orlop("cp", "box:/proc/1/comm", str(tmp_path / "comm"), check=False)
    orlopd.orlop("rm", "-f", "box")


def test_read_only_containers(orlopd: Orlopd, busybox: str, tmp_path: Path) -> None:
    orlopd.orlop("run", "-d", "--name", "box", "--read-only", busybox, "sleep", "1000")
    (tmp_path / "mine").write_text("mine")
    assert "Read-only file system" in _refused(orlopd, str(tmp_path / "mine"), "box:/mine")
    orlopd.orlop("stop", "-t", "0.1", "box")
    told = _refused(orlopd, str(tmp_path / "mine"), "box:/mine")
    assert 'root filesystem of container "box" is read-only' in told
    orlopd.orlop("rm", "box")


def test_between_containers(orlopd: Orlopd, busybox: str, tmp_path: Path) -> None:
    for name in ("one", "two"):
        orlopd.orlop("run", "-d", "--name", name, busybox, "sh", "-c", "echo x > /x; sleep 1000")
    orlopd.wait_for(lambda: "/x" in orlopd.orlop("diff", "one").stdout)
    orlopd.orlop("cp", "one:/x", "two:/y")
    assert orlopd.orlop("exec", "two", "cat", "/y").stdout == "x\n"
    told = _refused(orlopd, str(tmp_path), "/elsewhere")
    assert "one of source and target must be CONTAINER:PATH" in told
    assert 'container "nobody"' in _refused(orlopd, "nobody:/x", str(tmp_path))
    for name in ("one", "two"):
        orlopd.orlop("rm", "-f", name)


def test_a_reader_that_goes_away(orlopd: Orlopd, busybox: str) -> None:
    orlopd.orlop("run", "-d", "--name", "box", busybox, "sleep", "1000")
    process = subprocess.Popen(
        orlopd.orlop_command("cp", "box:/bin", "-"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.read(10)
    process.stdout.close()
    watchdog = threading.Timer(60, process.kill)
    watchdog.start()
    assert process.wait() in (0, 1)
    watchdog.cancel()
    assert process.stderr is not None
    assert b"Traceback" not in process.stderr.read()
    orlopd.orlop("rm", "-f", "box")


_IN, _OUT = ("-", "box:/tmp"), ("box:/bin", "-")


def test_a_copy_ends_with_its_command(orlopd: Orlopd, busybox: str) -> None:
    orlopd.orlop("run", "-d", "--name", "box", busybox, "sleep", "1000")
    _interrupted(orlopd, _IN, signal.SIGINT)
    _interrupted(orlopd, _IN, signal.SIGKILL)
    _interrupted(orlopd, _OUT, signal.SIGTERM)
    _interrupted(orlopd, _OUT, signal.SIGHUP)
    orlopd.orlop("rm", "-f", "box")


def _interrupted(orlopd: Orlopd, places: tuple[str, str], number: signal.Signals) -> None:
    command = orlopd.orlop_command("cp", *places)
    # Nobody serves its streams.
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
        orlopd.wait_for(lambda: len(_copiers(client.pid)) == 1)
        copiers = _copiers(client.pid)
        client.send_signal(number)
        client.wait(patient(20))
        orlopd.wait_for(lambda: not any(map(is_alive, copiers)))
    assert client.returncode == (130 if number == signal.SIGINT else -number)


def test_a_copy_ends_at_both_ends(orlopd: Orlopd, box: str, tmp_path: Path) -> None:
    (tmp_path / "much").write_bytes(os.urandom(1 << 20) * 64)
    (tmp_path / "tmp").mkdir()
    command = orlopd.orlop_command("cp", str(tmp_path / "much"), f"{box}:/d")
    copiers: list[str] = []

    def held() -> bool:
        copiers[:] = _copiers(client.pid)
        for each in copiers[:1]:
            os.kill(int(each.partition("-")[0]), signal.SIGSTOP)  # so that the other one waits
        return len(copiers) == 2

    with subprocess.Popen(command, env={**os.environ, "TMPDIR": f"{tmp_path}/tmp"}) as client:
        orlopd.wait_for(held)
        client.send_signal(signal.SIGINT)
        assert client.wait(patient(20)) == 130
        assert not is_alive(copiers[0])
        orlopd.wait_for(lambda: not any(map(is_alive, copiers)))
    assert list((tmp_path / "tmp").iterdir()) == []


def _copiers(parent: int) -> list[str]:
    """The marks of a command's copiers."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [mark(int(each)) for each in children if b"orlop.client.copier" in _command(each)]


def _command(pid: str) -> bytes:
    with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""

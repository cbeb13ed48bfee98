"""CNI by plugins that are small shell scripts: what they are told, and when they misbehave."""

from __future__ import annotations

import base64
import json
import logging
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from orlop.errors import (
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    OrlopError,
    Unavailable,
    Unknown,
)
from orlop.network.cni import (
    Attachment,
    Cni,
    Configurations,
    NetworkConfig,
    Plugins,
    Results,
    converting,
    parsing,
)
from orlop.network.cni_records import capabilities
from orlop.network.model import Rates, Wish
from orlop.sys.process import mark
from tests.patience import patient

ALL = ("0.3.1", "0.4.0", "1.0.0", "1.1.0")
RESULT = {"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.5/24", "gateway": "10.1.0.1"}]}
BOX = Attachment(container_id="box", ifname="eth0", netns="/run/netns/box")


class Shop:
    """A folder of plugins that note what they are told, in the order of their calls."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.plugins = Plugins([folder / "none", self.bin], timeout=patient(10))
        self.results = Results(folder / "cache")
        self.cni = Cni(self.plugins, self.results)

    def plugin(
        self,
        name: str,
        script: str = "",
        result: Any = RESULT,
        versions: tuple[str, ...] = ALL,
    ) -> None:
        """One that does as it should, but for what `script` does first."""
        answer = json.dumps({"cniVersion": "1.1.0", "supportedVersions": versions})
        path = self.bin / name
        path.write_text(
            "#!/bin/sh\n"
            f"[ $CNI_COMMAND = VERSION ] && {{ echo '{answer}'; exit 0; }}\n"
            f"{{ printf '%s\\t{name}\\t' $CNI_COMMAND; env | grep -v ^PWD | sort | tr '\\n' ' ';"
            f" printf '\\t'; cat; echo; }} >>{self.log}\n"
            f"{script}\n"
            f"[ $CNI_COMMAND = ADD ] && echo '{json.dumps(result)}'\n"
            "exit 0\n"
        )
        path.chmod(0o755)

    def told(self) -> list[tuple[str, str, dict[str, Any]]]:
        """Command, plugin and configuration of each call so far."""
        found = []
        for line in self.log.read_text().splitlines():
            command, name, _, text = line.split("\t")
            found.append((command, name, json.loads(text)))
        return found

    def calls(self) -> list[str]:
        return [f"{command} {name}" for command, name, _ in self.told()]


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    made = Shop(tmp_path)
    yield made
    made.plugins.close()


def chain(*plugins: Any, **fields: Any) -> NetworkConfig:
    whole = {"cniVersion": "1.0.0", "name": "lab", **fields}
    whole["plugins"] = [each if isinstance(each, dict) else {"type": each} for each in plugins]
    return parsing.network(whole)


def test_a_chain_is_added_checked_and_deleted(shop: Shop) -> None:
    other = {"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.6/24"}]}
    shop.plugin("one")
    shop.plugin("two", result=other)
    network = chain({"type": "one", "x": [1]}, {"type": "two", "capabilities": {"mac": True}})
    box = Attachment(
        container_id="box", ifname="eth0", netns="/run/netns/box", args=(("A", "b"), ("C", "")),
        capabilities={"mac": "02:00:00:00:00:01", "ips": ["10.1.0.5"]},
    )  # fmt: skip
    assert shop.cni.add(network, box) == other
    base = {"cniVersion": "1.0.0", "name": "lab"}
    first = {"type": "one", "x": [1], **base}
    second = {
        "type": "two", "capabilities": {"mac": True}, **base,
        "runtimeConfig": {"mac": "02:00:00:00:00:01"},
    }  # fmt: skip
    assert shop.told() == [("ADD", "one", first), ("ADD", "two", {**second, "prevResult": RESULT})]
    env = shop.log.read_text().splitlines()[0].split("\t")[2].split()
    assert env == [
        "CNI_ARGS=A=b;C=", "CNI_COMMAND=ADD", "CNI_CONTAINERID=box", "CNI_IFNAME=eth0",
        "CNI_NETNS=/run/netns/box", f"CNI_PATH={shop.folder}/none:{shop.bin}",
        f"PATH={os.environ['PATH']}",
    ]  # fmt: skip

    path = shop.folder / "cache" / "results" / "lab-box-eth0"
    kept = json.loads(path.read_text())
    assert path.stat().st_mode & 0o777 == 0o600
    assert json.loads(base64.b64decode(kept.pop("config"))) == json.loads(network.text)
    assert kept == {
        "kind": "cniCacheV1", "containerId": "box", "ifName": "eth0", "networkName": "lab",
        "netns": "/run/netns/box", "cniArgs": [["A", "b"], ["C", ""]], "result": other,
        "capabilityArgs": {"mac": "02:00:00:00:00:01", "ips": ["10.1.0.5"]},
    }  # fmt: skip

    with pytest.raises(AlreadyExists, match='"box" to CNI network "lab" by "eth0"'):
        shop.cni.add(network, box)

    shop.log.unlink()
    shop.cni.check(network, box)
    shop.cni.delete(network, box)
    assert shop.told() == [
        ("CHECK", "one", {**first, "prevResult": other}),
        ("CHECK", "two", {**second, "prevResult": other}),
        ("DEL", "two", {**second, "prevResult": other}),
        ("DEL", "one", {**first, "prevResult": other}),
    ]
    assert not path.exists()
    with pytest.raises(FailedPrecondition, match='"box" is not attached to CNI network "lab"'):
        shop.cni.check(network, box)
    shop.log.unlink()
    shop.cni.delete(network, box)  # it is done, and can be done again
    assert shop.told() == [("DEL", "two", second), ("DEL", "one", first)]


def test_an_add_that_fails_half_way_is_undone(shop: Shop) -> None:
    shop.plugin("one")
    failure = json.dumps({"cniVersion": "1.0.0", "code": 7, "msg": "no", "details": "not ever"})
    shop.plugin("two", f"[ $CNI_COMMAND = ADD ] && {{ echo '{failure}'; exit 1; }}")
    shop.plugin("three")
    with pytest.raises(InvalidArgument) as caught:
        shop.cni.add(chain("one", "two", "three"), BOX)
    assert caught.value.message == 'CNI plugin "two" (ADD): no: not ever (code 7)'
    assert shop.calls() == ["ADD one", "ADD two", "DEL two", "DEL one"]
    assert not shop.results.all()


@pytest.mark.parametrize("last", ["one", "two"])
def test_an_add_that_cannot_be_remembered_half_way_is_undone(shop: Shop, last: str) -> None:
    for name in ("one", "two"):
        in_the_way = f"[ $CNI_COMMAND = ADD ] && mkdir {shop.folder}/cache/results/.lab-box-eth0"
        shop.plugin(name, in_the_way if name == last else "")
    with pytest.raises(FailedPrecondition, match="cannot be remembered"):
        shop.cni.add(chain("one", "two"), BOX)
    run = ["one", "two"] if last == "two" else ["one"]
    assert shop.calls() == [f"ADD {each}" for each in run] + [f"DEL {each}" for each in run[::-1]]
    assert not shop.results.all()


def test_the_first_add_of_a_plugin_goes_alone(shop: Shop) -> None:
    """Some make what all share, as Debian's firewall its chains, and cannot do that at once."""
    made = shop.folder / "made"
    shop.plugin(
        "one",
        f"[ $CNI_COMMAND != ADD ] || [ -e {made} ] ||"
        f" {{ mkdir {made}-half && sleep 0.3 && mv {made}-half {made}; }} || exit 1",
    )
    network = chain("one")
    made.with_name("made-half").mkdir()
    with pytest.raises(OrlopError):
        shop.cni.add(network, BOX)  # which is none
    made.with_name("made-half").rmdir()
    boxes = [msgspec.structs.replace(BOX, container_id=f"box{number}") for number in range(4)]
    with ThreadPoolExecutor(len(boxes)) as pool:
        assert [*pool.map(partial(shop.cni.add, network), boxes)] == [RESULT] * len(boxes)


def test_a_first_add_that_hangs_holds_others_up_for_a_while_only(shop: Shop) -> None:
    goes_on = shop.folder / "on"
    shop.plugin("one", f"[ $CNI_CONTAINERID = slow ] && until [ -e {goes_on} ]; do sleep 0.1; done")
    network, slow = chain("one"), msgspec.structs.replace(BOX, container_id="slow")
    cni = Cni(shop.plugins, shop.results, patience=0.2)
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(cni.add, network, slow)
        try:
            while not shop.log.exists():
                time.sleep(0.01)
            assert cni.add(network, BOX) == RESULT
            assert not hanging.done()
        finally:
            goes_on.touch()
        assert hanging.result() == RESULT


def test_a_del_that_fails_is_told_to_all_and_can_be_tried_again(shop: Shop) -> None:
    shop.plugin("one")
    shop.plugin("two", f"[ $CNI_COMMAND$(ls {shop.folder}/broken) = DEL{shop.folder}/broken ] &&"
                       " { echo went wrong >&2; exit 3; }")  # fmt: skip
    network = chain("one", "two")
    shop.cni.add(network, BOX)
    (shop.folder / "broken").touch()
    with pytest.raises(Unknown, match=r'"two" \(DEL\): exit code 3: went wrong: unknown'):
        shop.cni.delete(network, BOX)
    assert shop.calls()[2:] == ["DEL two", "DEL one"]
    (known,) = shop.results.all()
    assert (known.network, known.attachment, known.result) == ("lab", BOX, RESULT)
    (shop.folder / "broken").unlink()
    shop.cni.delete(network, BOX)
    assert not shop.results.all()


@pytest.mark.parametrize(
    ("script", "kind", "text"),
    [
        ("echo nonsense; exit 0", Unknown, "it prints what is no JSON: nonsense"),
        ("echo []; exit 0", FailedPrecondition, "its result is no JSON object"),
        ("exit 0", FailedPrecondition, "its result is no JSON object"),
        ('echo \'{"cniVersion": "9.0.0"}\'; exit 0', FailedPrecondition, 'of version "9.0.0"'),
        ('echo \'{"ips": [{"address": "10"}]}\'; exit 0', FailedPrecondition, "an address"),
        ("echo '{\"ips\": 7}'; exit 0", FailedPrecondition, "are no list"),
        ("exec head -c 3000000 /dev/zero", Unknown, "prints more than 1 MiB"),
        ("head -c 200000 /dev/zero | tr '\\0' '['; exit 0", Unknown, "what is no JSON"),
        ("exit 5", Unknown, "exit code 5: it says nothing"),
        ("kill -9 $$", Unknown, "signal 9: it says nothing"),
        ('echo \'{"code": 11, "msg": "later"}\'; exit 1', Unavailable, r"later \(code 11\)"),
        ('echo \'{"code": "x", "msg": ""}\'; exit 1', Unknown, r"no reason given \(code x\)"),
    ],
)
def test_misbehaviour_is_told(shop: Shop, script: str, kind: type[OrlopError], text: str) -> None:
    shop.plugin("one", f"[ $CNI_COMMAND = ADD ] && {{ {script}; }}")
    with pytest.raises(kind, match=rf'CNI plugin "one" \(ADD\): .*{text}'):
        shop.cni.add(chain("one"), BOX)
    assert shop.calls() == ["ADD one", "DEL one"]


def test_what_it_tells_at_length_is_cut(shop: Shop) -> None:
    long = json.dumps({"code": 7, "msg": "m" * 9000, "details": "d" * 9000})
    shop.plugin("one", f"[ $CNI_COMMAND = ADD ] && {{ echo '{long}'; exit 1; }}")
    with pytest.raises(InvalidArgument, match=r"m{500}…: d{500}… ") as caught:
        shop.cni.add(chain("one"), BOX)
    assert len(caught.value.message) < 1100


def test_one_that_hangs_is_killed_with_its_children(shop: Shop) -> None:
    pids = shop.folder / "pids"
    shop.plugin("one", f"[ $CNI_COMMAND = ADD ] && {{ sleep 1000 & echo $! $$ >{pids}; wait; }}")
    hasty = Cni(Plugins([shop.bin], timeout=patient(15)), shop.results)
    with pytest.raises(DeadlineExceeded, match=r"\(ADD\): .*has not ended within "):
        hasty.add(chain("one"), BOX)
    for pid in pids.read_text().split():
        end = time.monotonic() + patient(10)
        while mark(int(pid)):
            assert time.monotonic() < end, f"{pid} lives on"
            time.sleep(0.01)
    assert shop.calls() == ["ADD one", "DEL one"]


def test_who_is_left_behind_holds_nobody_up(shop: Shop) -> None:
    pid = shop.folder / "pid"
    shop.plugin("one", f"[ $CNI_COMMAND = ADD ] && {{ sleep 1000 & echo $! >{pid}; }}")
    try:
        assert shop.cni.add(chain("one"), BOX) == RESULT
    finally:
        os.kill(int(pid.read_text()), 9)


def test_missing_plugins_are_named(shop: Shop) -> None:
    shop.plugin("one")
    (shop.bin / "two").write_text("")  # not executable
    with pytest.raises(NotFound, match=f'CNI plugin "two" in "{shop.folder}/none", "{shop.bin}"'):
        shop.cni.add(chain("one", "two"), BOX)
    assert not shop.log.exists()
    (shop.bin / "two").chmod(0o755)
    (shop.bin / "two").write_text("#!/no/such/shell\n")
    with pytest.raises(OrlopError, match='CNI plugin "two"'):
        shop.cni.add(chain("two"), BOX)


def test_the_newest_version_that_all_speak_is_taken(shop: Shop) -> None:
    shop.plugin("old", versions=("0.3.1", "0.4.0"))
    shop.plugin("new")
    both = chain("new", "old", cniVersion="0.3.1", cniVersions=["0.4.0", "1.1.0", "7.0.0"])
    result = shop.cni.add(both, BOX)
    assert result == {
        "cniVersion": "0.4.0",
        "ips": [{"version": "4", "address": "10.1.0.5/24", "gateway": "10.1.0.1"}],
    }
    assert [config["cniVersion"] for *_, config in shop.told()] == ["0.4.0", "0.4.0"]
    assert shop.told()[1][2]["prevResult"] == result
    shop.cni.delete(both, BOX)
    with pytest.raises(FailedPrecondition, match=r'of version 1.1.0: "old" speaks 0.3.1, 0.4.0'):
        shop.cni.add(chain("old", cniVersion="1.1.0"), BOX)
    shop.plugin("old")  # a new one in its place is asked again
    os.utime(shop.bin / "old", (1, 1))
    shop.cni.add(chain("old", cniVersion="1.1.0"), BOX)


def test_del_reaches_those_that_are_left_of_a_chain(shop: Shop) -> None:
    shop.plugin("one")
    shop.plugin("two")
    network = chain("one", "two")
    shop.cni.add(network, BOX)
    (shop.bin / "two").unlink()
    shop.plugin("one", versions=("1.1.0",))
    with pytest.raises(NotFound, match='CNI plugin "two"'):
        shop.cni.delete(network, BOX)
    assert shop.calls()[2:] == ["DEL one"]
    assert shop.told()[-1][2]["cniVersion"] == "1.0.0"
    assert [each.attachment for each in shop.results.all()] == [BOX]


def test_what_cannot_be_read_is_told_and_half_files_go(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    shop.plugin("one")
    shop.cni.add(chain("one"), BOX)
    shop.cni.add(chain("one", name="other"), BOX)
    path = shop.results.path("lab", BOX)
    path.write_bytes(path.read_bytes()[:-20])
    path.with_name(f".{path.name}").touch()
    assert [each.network for each in shop.results.all()] == ["other"]
    assert f'"{path}", which tells of an attachment, cannot be read' in caplog.text
    assert shop.results.doubtful("lab") == [path.name]
    assert shop.results.doubtful("other") == []
    shop.results.drop_halves()
    assert sorted(each.name for each in path.parent.iterdir()) == [path.name, "other-box-eth0"]


def test_before_0_4_there_is_no_check_and_del_hears_no_result(shop: Shop) -> None:
    shop.plugin("one")
    network = chain("one", cniVersion="0.3.1")
    shop.cni.add(network, BOX)
    with pytest.raises(FailedPrecondition, match=r"version 0.3.1, which has no CHECK"):
        shop.cni.check(network, BOX)
    shop.cni.delete(network, BOX)
    assert "prevResult" not in shop.told()[-1][2]


def test_gc_status_and_what_switches_them_off(shop: Shop) -> None:
    shop.plugin("one", '[ $CNI_COMMAND = STATUS ] && { echo \'{"code":50,"msg":"no"}\'; exit 1; }')
    old, new = chain("one"), chain("one", cniVersion="1.1.0", disableCheck="true")
    shop.cni.status(old)
    shop.cni.collect(old, [("box", "eth0")])
    shop.cni.collect(chain("one", cniVersion="1.1.0", disableGC=True), [])
    assert not shop.log.exists()
    with pytest.raises(Unavailable, match=r'"one" \(STATUS\): no \(code 50\)'):
        shop.cni.status(new)
    shop.cni.collect(new, [("box", "eth1"), ("box", "eth0")])
    command, _, config = shop.told()[-1]
    assert command == "GC"
    assert config["cni.dev/valid-attachments"] == [
        {"containerID": "box", "ifname": "eth0"},
        {"containerID": "box", "ifname": "eth1"},
    ]
    shop.cni.add(new, BOX)
    shop.cni.check(new, BOX)
    assert shop.calls()[-1] == "ADD one"


@pytest.mark.parametrize(
    "bad",
    [
        {"container_id": "../x", "ifname": "eth0"},
        {"container_id": "x", "ifname": "a/b"},
        {"container_id": "x", "ifname": "a" * 16},
        {"container_id": "x", "ifname": "eth0", "args": (("a", "b;c"),)},
    ],
)
def test_names_that_could_be_paths_are_refused(shop: Shop, bad: dict[str, Any]) -> None:
    shop.plugin("one")
    for action in (shop.cni.add, shop.cni.delete):
        with pytest.raises(InvalidArgument):
            action(chain("one"), Attachment(**bad))


def test_what_cannot_be_remembered_is_not_begun(shop: Shop) -> None:
    shop.plugin("one")
    with pytest.raises(FailedPrecondition, match=r"cannot be remembered in .*: file name too long"):
        shop.cni.add(chain("one", name="x" * 250), BOX)
    assert not shop.log.exists()


def test_closing_ends_what_runs(shop: Shop) -> None:
    """The next daemon undoes it: the attachment is remembered."""
    import threading

    shop.plugin("one", "[ $CNI_COMMAND = ADD ] && sleep 1000")
    found: list[BaseException] = []

    def add() -> None:
        try:
            shop.cni.add(chain("one"), BOX)
        except OrlopError as error:
            found.append(error)

    thread = threading.Thread(target=add)
    thread.start()
    end = time.monotonic() + patient(10)
    while not shop.log.exists() and time.monotonic() < end:
        time.sleep(0.01)
    shop.plugins.close()
    thread.join()
    assert isinstance(found[0], Unavailable)
    assert [each.attachment for each in shop.results.all()] == [BOX]


def test_who_comes_next_waits_for_what_still_runs(shop: Shop) -> None:
    """As after a kill -9, here of a process that does nothing else."""
    lock, pid = shop.folder / "lock", shop.folder / "pid"
    shop.plugin("one", f"[ $CNI_COMMAND = ADD ] && {{ echo $$ >{pid}; exec sleep 1000; }}")
    owner = os.fork()
    if owner == 0:
        Plugins([shop.bin], lock=lock).call("ADD", "one", {}, BOX)
        os._exit(0)
    end = time.monotonic() + patient(10)
    while not (pid.exists() and pid.read_text()) and time.monotonic() < end:
        time.sleep(0.01)
    os.kill(owner, 9)
    os.waitpid(owner, 0)
    later = Plugins([shop.bin], lock=lock, timeout=0.3)
    assert not later.await_orphans()
    os.kill(int(pid.read_text()), 9)
    later.close()
    last = Plugins([shop.bin], lock=lock, timeout=patient(10))
    assert last.await_orphans()
    last.close()


# Configurations


def test_files_are_read_again_and_broken_ones_hide_no_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    folder = Configurations(tmp_path / "net.d")
    assert folder.all() == []
    folder.folder.mkdir()

    def write(name: str, content: Any) -> None:
        text = content if isinstance(content, str) else json.dumps(content)
        (folder.folder / name).write_text(text)

    plugins = [{"type": "bridge"}]
    write("20-b.conflist", {"cniVersion": "1.0.0", "name": "b", "plugins": plugins})
    write("10-a.conf", {"cniVersion": "0.4.0", "name": "a", "type": "bridge", "mtu": 9})
    write("05-bad.conflist", "{")
    write("07-deep.conf", "[" * 200_000)
    write("30-b.json", {"cniVersion": "1.0.0", "name": "b", "type": "other"})
    write("readme.txt", "no configuration")
    assert [each.name for each in folder.all()] == ["a", "b"]
    assert folder.get("a").plugins[0].config["mtu"] == 9
    assert folder.get("b").plugins[0].type == "bridge"
    folder.all()
    said = [each.getMessage() for each in caplog.records]
    assert len(said) == 3
    assert '05-bad.conflist" is left out: it is not JSON' in said[0]
    assert '07-deep.conf" is left out: it is not JSON' in said[1]
    assert '30-b.json" is left out: another file has network "b" already' in said[2]
    write("05-bad.conflist", {"cniVersion": "1.0.0", "name": "z", "plugins": plugins})
    (folder.folder / "20-b.conflist").unlink()
    assert [each.name for each in folder.all()] == ["z", "a", "b"]
    assert folder.get("b").plugins[0].type == "other"
    with pytest.raises(NotFound, match='CNI network "none" in'):
        folder.get("none")
    assert len(caplog.records) == 3


def test_plugins_of_a_folder_join_the_list(tmp_path: Path) -> None:
    folder = Configurations(tmp_path)
    more = tmp_path / "lab" / "10-more.conf"
    more.parent.mkdir()
    more.write_text('{"type": "tuning"}')
    whole: dict[str, Any] = {"cniVersion": "1.1.0", "name": "lab", "plugins": [{"type": "bridge"}]}
    (tmp_path / "lab.conflist").write_text(json.dumps(whole))
    assert [each.type for each in folder.get("lab").plugins] == ["bridge", "tuning"]
    again = parsing.network(parsing.load(folder.get("lab").text))
    assert [each.type for each in again.plugins] == ["bridge", "tuning"]
    more.write_text('{"type": "portmap"}')
    os.utime(more, (1, 1))
    assert [each.type for each in folder.get("lab").plugins] == ["bridge", "portmap"]
    whole["loadOnlyInlinedPlugins"] = True
    (tmp_path / "lab.conflist").write_text(json.dumps(whole))
    assert [each.type for each in folder.get("lab").plugins] == ["bridge"]
    del whole["plugins"], whole["loadOnlyInlinedPlugins"]
    (tmp_path / "lab.conflist").write_text(json.dumps(whole))
    assert [each.type for each in folder.get("lab").plugins] == ["portmap"]


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({}, "no name"),
        ({"name": "../x", "cniVersion": "1.0.0", "plugins": [{"type": "a"}]}, 'its name "../x"'),
        ({"name": "x", "cniVersion": "1.0.0"}, "no plugins"),
        ({"name": "x", "cniVersion": "1.0.0", "plugins": []}, "no plugins"),
        ({"name": "x", "cniVersion": "1.0.0", "plugins": 7}, "no list"),
        ({"name": "x", "cniVersion": "1.0.0", "plugins": [{}]}, "no name of a program"),
        ({"name": "x", "cniVersion": "1.0.0", "plugins": [{"type": "../a"}]}, "no name of a"),
        ({"name": "x", "cniVersion": "0.2.0", "type": "a"}, r"\(0.2.0\) is none of 0.3.0"),
        ({"name": "x", "type": "a"}, r"\(none\) is none of"),
        ({"name": "x", "cniVersion": "one", "type": "a"}, '"one" is no version'),
        ({"name": "x", "cniVersion": 1, "type": "a"}, "no text"),
        ({"name": "x", "cniVersion": "1.0.0", "plugins": [{"type": "a"}], "disableGC": 1}, "GC"),
    ],
)
def test_bad_configurations_say_why(config: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        parsing.network(config)


def test_results_are_told_in_the_words_of_other_versions() -> None:
    new = converting.check(
        {
            "cniVersion": "1.1.0",
            "interfaces": [
                {"name": "br0", "mac": "02:00:00:00:00:01", "mtu": 1500},
                {"name": "eth0", "sandbox": "/n", "pciID": "x"},
            ],
            "ips": [
                {"address": "10.0.0.2/24", "interface": 1},
                {"address": "fd00::2/64", "interface": 1},
                {"address": "10.0.0.1/24", "interface": 0},
            ],
            "routes": [{"dst": "0.0.0.0/0", "gw": "10.0.0.1", "mtu": 1400}],
            "dns": {"nameservers": ["10.0.0.1"]},
        },
        "1.1.0",
    )
    old = converting.convert(new, "0.4.0")
    assert old == {
        "cniVersion": "0.4.0",
        "interfaces": [
            {"name": "br0", "mac": "02:00:00:00:00:01"},
            {"name": "eth0", "sandbox": "/n"},
        ],
        "ips": [
            {"version": "4", "address": "10.0.0.2/24", "interface": 1},
            {"version": "6", "address": "fd00::2/64", "interface": 1},
            {"version": "4", "address": "10.0.0.1/24", "interface": 0},
        ],
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.0.0.1"}],
        "dns": {"nameservers": ["10.0.0.1"]},
    }
    assert converting.convert(old, "1.0.0")["ips"] == new["ips"]
    inside = [each["address"] for each in converting.inside(new)]
    assert inside == ["10.0.0.2/24", "fd00::2/64"]


def test_limits_to_rates_go_as_bandwidth() -> None:
    text: dict[str, Any] = {"cniVersion": "1.0.0", "name": "lab"}
    text["plugins"] = [{"type": "bandwidth"}]
    deaf = parsing.network(text)
    text["plugins"] = [{"type": "bandwidth", "capabilities": {"bandwidth": True}}]
    wish = Wish(network="cni:lab", rates=Rates(rate_in=1_000_000, rate_out=2000, burst=64))
    assert capabilities(parsing.network(text), wish) == {
        "bandwidth": {"ingressRate": 1_000_000, "ingressBurst": 512,
                      "egressRate": 2000, "egressBurst": 512}
    }  # fmt: skip
    with pytest.raises(InvalidArgument, match='no plugin with the capability "bandwidth"'):
        capabilities(deaf, wish)

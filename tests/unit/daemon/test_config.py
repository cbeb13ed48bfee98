from __future__ import annotations

import os
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from orlop.daemon.config import Config, ConfigError
from orlop.daemon.config_file import dump, load
from orlop.daemon.main import default_text


def _load(tmp_path: Path, text: str, **overrides: str) -> Config:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return load(path, overrides)


def test_the_printed_default_is_the_default(tmp_path: Path) -> None:
    assert _load(tmp_path, default_text()) == Config()
    assert _load(tmp_path, "") == Config()


def test_a_dump_reads_back(tmp_path: Path) -> None:
    text = 'root = "/r"\n[log]\nlevel = "debug"\n[runtimes]\n"io.x.y.v1" = "/usr/bin/shim"\n'
    config = _load(tmp_path, text)
    assert config.log.level == "debug"
    assert tomllib.loads(dump(config))["runtimes"] == {"io.x.y.v1": "/usr/bin/shim"}
    assert _load(tmp_path, dump(config)).root == "/r"


def test_proxy_plugins(tmp_path: Path) -> None:
    text = (
        '[snapshots]\ndefault = "far.away"\n'
        '[proxy_plugins."far.away"]\ntype = "snapshot"\naddress = "/run/far.sock"\n'
        'capabilities = ["remap-ids"]\n[proxy_plugins."far.away".exports]\nroot = "/far"\n'
    )
    config = _load(tmp_path, text)
    plugin = config.proxy_plugins["far.away"]
    assert (plugin.address, plugin.exports) == ("/run/far.sock", {"root": "/far"})
    assert _load(tmp_path, dump(config)).proxy_plugins == config.proxy_plugins
    with pytest.raises(ConfigError, match=r'one of "overlayfs", .*"native", not "far"'):
        _load(tmp_path, '[snapshots]\ndefault = "far"\n')


def test_flags_win(tmp_path: Path) -> None:
    assert _load(tmp_path, 'root = "/r"', root="/flag").root == "/flag"
    assert _load(tmp_path, 'state = "/s"').address == "/s/orlop.sock"


def test_folders_are_named_without_links() -> None:
    with TemporaryDirectory(prefix="o-") as folder:  # the paths of sockets must be short
        here = Path(os.path.realpath(folder))
        (here / "link").symlink_to(here / "real")
        config = _load(here, f'root = "{here}/link/root"\nstate = "{here}/link/../state"\n')
        assert (config.root, config.state) == (f"{here}/real/root", f"{here}/state")
        assert _load(here, "", state=f"{here}/link/s").state == f"{here}/real/s"
        with pytest.raises(ConfigError, match="must be different folders"):
            _load(here, f'root = "{here}/link"\nstate = "{here}/real/state"')


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("root = 5", "root must be"),
        ('root = "relative"', "root"),
        ('[log]\nlevel = "loud"', "log.level"),
        ('[log]\nlevl = "info"', 'did you mean "log.level"'),
        ("nonsense = 1", 'unknown key "nonsense"'),
        ("[grpc]\nuid = 4294967295", "grpc.uid must be a whole number from -1 to 4294967294"),
        ("[grpc]\ngid = 4294967296", "grpc.gid must be"),
        ("[diff]\nmax_size = 0", "diff.max_size"),
        ("[diff]\nmax_size = true", "diff.max_size"),
        ('[runtimes]\n"a.b" = "shim"', 'runtimes."a.b"'),
        ('[proxy_plugins.a]\ntype = "content"\naddress = "/a"', 'proxy_plugins."a".type'),
        ('[proxy_plugins.a]\ntype = "snapshot"\naddress = "a"', 'proxy_plugins."a".address'),
        ('[proxy_plugins.a]\ntype = "snapshot"\nadress = "/a"', 'did you mean "proxy_plugins."a"'),
        ('[proxy_plugins.native]\ntype = "snapshot"\naddress = "/a"', "built in"),
        ('[proxy_plugins.a]\ntype = "snapshot"\naddress = "/a"\nexports = {b = 1}', "exports.b"),
        ("log = 3", "log must be a table"),
        (
            '[stream_processors.a]\npath = "x"',
            'stream_processors."a".path must be an absolute path',
        ),
        ('[stream_processors.a]\npath = "/x"', 'stream_processors."a".accepts must be'),
        ('[stream_processors.a]\npth = "/x"', 'did you mean "stream_processors."a".path"?'),
        ("[stream_processors]\na = 3", 'stream_processors."a" must be a table'),
        ("this is not TOML", "config.toml"),
    ],
)
def test_bad_values_name_file_and_key(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, text)
    assert complaint in str(caught.value)
    assert "config.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml"):
        load(tmp_path / "none.toml", {})


def test_a_state_folder_too_long_for_sockets(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="72 bytes"):
        _load(tmp_path, f'state = "/{"s" * 90}"')

"""CNI in the test's network namespace: configurations, Debian's plugins, small ones of shell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.integration.network.lab import run, snapshot
from tests.integration.network.networked import Networked

DEBIAN = Path("/usr/lib/cni")
BRIDGE = "cnitest0"


class WithCni(Networked):
    """Its configurations and results are its own, and what Debian's plugins keep."""

    def __init__(self) -> None:
        super().__init__()
        self.net_d = self.folder / "net.d"
        self.bin = self.folder / "bin"
        self.data = self.folder / "host-local"
        for each in (self.net_d, self.bin, self.data):
            each.mkdir()
        config = self.folder / "config.toml"
        config.write_text(
            f'[network]\ncni_config = "{self.net_d}"\n'
            f'cni_plugins = "{self.bin}:{DEBIAN}"\ncni_timeout = 100\n'
        )
        self.options = ["--config", str(config)]

    def configure(self, name: str, *plugins: dict[str, Any], version: str = "1.0.0") -> None:
        """Write a list of plugins."""
        whole = {"cniVersion": version, "name": name, "plugins": plugins}
        (self.net_d / f"{name}.conflist").write_text(json.dumps(whole))

    def bridge(self, subnet: str = "10.77.0.0/24", **fields: Any) -> dict[str, Any]:
        """The usual one, with addresses of host-local."""
        ipam = {
            "type": "host-local", "dataDir": str(self.data), "ranges": [[{"subnet": subnet}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        }  # fmt: skip
        return {
            "type": "bridge", "bridge": BRIDGE, "isGateway": True, "ipMasq": True,
            "hairpinMode": True, "capabilities": {"ips": True, "mac": True},
            **fields, "ipam": {**ipam, **fields.get("ipam", {})},
        }  # fmt: skip

    def plugin(self, name: str, script: str) -> Path:
        """One of shell, which notes its calls in the file that it returns."""
        log = self.folder / f"{name}.log"
        path = self.bin / name
        path.write_text(
            "#!/bin/sh\n"
            "[ $CNI_COMMAND = VERSION ] && { echo"
            ' \'{"cniVersion":"1.1.0","supportedVersions":["1.0.0","1.1.0"]}\'; exit 0; }\n'
            f"read -r input\nprintf '%s %s\\n' $CNI_COMMAND \"$input\" >>{log}\n{script}\n"
            '[ $CNI_COMMAND = ADD ] && echo \'{"cniVersion":"1.0.0"}\'\nexit 0\n'
        )
        path.chmod(0o755)
        return log

    def results(self) -> list[str]:
        folder = self.root / "cni" / "results"
        return sorted(each.name for each in folder.iterdir()) if folder.is_dir() else []

    def addresses(self, network: str = "lab") -> list[str]:
        """Those that host-local has given away."""
        folder = self.data / network
        return sorted(each.name for each in folder.glob("*.*.*.*")) if folder.is_dir() else []

    def assert_clean(self, before: dict[str, list[str]]) -> None:
        """All is gone but for what Debian's plugins never remove: a bridge, their empty chains."""
        self.prune()
        assert not self.results() and not self.addresses()
        assert not list((self.state / "cni").glob("*"))
        for table in ("nat", "filter"):
            rules = run("iptables", "-t", table, "-S").stdout.splitlines()
            assert not [each for each in rules if '"lab"' in each or "10.77." in each], rules
            run("iptables", "-t", table, "-F")
            run("iptables", "-t", table, "-X")
        run("ip", "link", "del", BRIDGE, check=False)
        run("nft", "flush", "ruleset")
        after, before = dict(snapshot()), dict(before)
        after.pop("filter"), before.pop("filter")
        assert after == before

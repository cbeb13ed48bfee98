"""The OCI hook that nerdctl is: `nerdctl internal oci-hook EVENT`, with the state on stdin.

It connects the container to its network by CNI's plugins, and disconnects it at its end.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

PLUGINS = "/usr/lib/cni"


def main() -> None:
    event = sys.argv[1]
    state = json.load(sys.stdin)
    notes = state["annotations"]
    folder = Path(notes["nerdctl/state-dir"])
    (folder / f"oci-hook.{event}.json").write_text(json.dumps(state))
    assert json.loads((Path(state["bundle"]) / "config.json").read_text())["root"]["path"]
    if notes["nerdctl/hostname"] == "broken":
        sys.exit("no such network: broken")
    plugins = json.loads((folder / "network.json").read_text())
    if event == "createRuntime":
        _run("DEL", state, plugins[::-1], "")
        result: Any = None
        for plugin in plugins:
            result = _call("ADD", state, {**plugin, "prevResult": result} if result else plugin,
                           f"/proc/{state['pid']}/ns/net")  # fmt: skip
        (folder / "result.json").write_text(json.dumps(result))
    else:
        _run("DEL", state, plugins[::-1], "")


def _run(command: str, state: dict[str, Any], plugins: list[dict[str, Any]], netns: str) -> None:
    for plugin in plugins:
        _call(command, state, plugin, netns)


def _call(command: str, state: dict[str, Any], plugin: dict[str, Any], netns: str) -> Any:
    name = f"{state['annotations']['nerdctl/namespace']}-{state['id']}"
    done = subprocess.run(
        [f"{PLUGINS}/{plugin['type']}"],
        input=json.dumps(plugin), capture_output=True, text=True, check=False,
        env={**os.environ, "CNI_COMMAND": command, "CNI_CONTAINERID": name, "CNI_NETNS": netns,
             "CNI_IFNAME": "eth0", "CNI_PATH": PLUGINS, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )  # fmt: skip
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return json.loads(done.stdout) if done.stdout else None


if __name__ == "__main__":
    main()

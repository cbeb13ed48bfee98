"""Entry of `orlop-cni`: what a runtime asks by environment and standard input, asked of orlopd.

A runtime waits for it whenever a container starts or ends, so it loads little, and that late.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from orlop.cni import answers
from orlop.cni.answers import VERSIONS, Problem
from orlop.descriptors import open_standard

_NEEDED = {
    "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME"),
    "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "GC": (),
    "STATUS": (),
}


def main() -> int:
    open_standard()
    version = VERSIONS[-1]
    try:
        text = sys.stdin.buffer.read() if os.environ.get("CNI_COMMAND") else b""
        config = _config(text)
        version = config.get("cniVersion") or version
        answer = _answer(os.environ, config)
    except Problem as problem:
        sys.stdout.write(json.dumps({"cniVersion": version, **problem.answer}) + "\n")
        return 1
    if answer is not None:
        sys.stdout.write(json.dumps(answer) + "\n")
    return 0


def _config(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text or b"{}")
    except (ValueError, RecursionError) as error:
        raise Problem(answers.CANNOT_DECODE, "the configuration is not JSON", str(error)) from None
    if not isinstance(found, dict):
        raise Problem(answers.CANNOT_DECODE, "the configuration is no JSON object")
    return found


def _answer(env: Mapping[str, str], config: dict[str, Any]) -> dict[str, Any] | None:
    command = env.get("CNI_COMMAND", "")
    if command == "VERSION":
        version = config.get("cniVersion") or VERSIONS[-1]
        return {"cniVersion": version, "supportedVersions": list(VERSIONS)}
    if command not in _NEEDED:
        raise Problem(
            answers.BAD_ENVIRONMENT,
            f'CNI_COMMAND "{command}" is none of VERSION, {", ".join(_NEEDED)}',
            "orlop-cni is a CNI plugin, which container runtimes call: see docs/networking.md",
        )
    if missing := [each for each in _NEEDED[command] if not env.get(each)]:
        raise Problem(answers.BAD_ENVIRONMENT, f"{', '.join(missing)} must be set")
    if config.get("cniVersion") not in VERSIONS:
        told = config.get("cniVersion", "")
        text = f'version "{told}" is none of {", ".join(VERSIONS)}'
        raise Problem(answers.BAD_VERSION, "incompatible CNI version", text)

    from orlop.cni.asking import ask

    return ask(command, env, config)


if __name__ == "__main__":
    sys.exit(main())

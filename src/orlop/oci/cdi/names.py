"""Names of CDI devices: `vendor.com/class=device`."""

from __future__ import annotations

import re
from collections.abc import Mapping

from orlop.errors import InvalidArgument

DEFAULT_FOLDERS = ("/etc/cdi", "/var/run/cdi")
"""Where descriptions are; what a later folder says of a device counts."""
ANNOTATION_PREFIX = "cdi.k8s.io/"
GPU = "nvidia.com/gpu"

_VENDOR = r"[A-Za-z](?:[\w.-]*[A-Za-z0-9])?"
_KIND = re.compile(rf"{_VENDOR}/{_VENDOR}", re.ASCII)
_DEVICE = re.compile(r"[A-Za-z0-9](?:[\w.:-]*[A-Za-z0-9])?", re.ASCII)


def is_device(text: str) -> bool:
    """Whether this is meant as the name of a CDI device, well-formed or not."""
    return not text.startswith("/") and "=" in text


def is_kind(text: str) -> bool:
    return _KIND.fullmatch(text) is not None


def is_name(text: str) -> bool:
    """Whether a device may be called so within its kind."""
    return _DEVICE.fullmatch(text) is not None


def split(text: str) -> tuple[str, str]:
    """Kind and device; InvalidArgument for what is no name."""
    kind, equals, device = text.partition("=")
    if not equals or not is_kind(kind) or not is_name(device):
        raise InvalidArgument(f'device "{text}" is not VENDOR.COM/CLASS=NAME')
    return kind, device


def of_annotations(annotations: Mapping[str, str]) -> list[str]:
    """The devices that `cdi.k8s.io/…` annotations ask for; InvalidArgument names a bad one."""
    found: list[str] = []
    for key, value in annotations.items():
        if key.startswith(ANNOTATION_PREFIX):
            for name in value.split(","):
                try:
                    split(name)
                except InvalidArgument as error:
                    raise InvalidArgument(f'annotation "{key}": {error.message}') from None
                found.append(name)
    return found


def gpus(text: str) -> list[str]:
    """The devices that `--gpus` means: all, a count, or `device=0,1`, quoted or not.

    `driver=nvidia` and `capabilities=…` may stand beside, as for Docker: what a GPU comes with is
    its description's matter.
    """
    wanted: list[str] = []
    for field in _fields(text):
        key, _, value = field.partition("=")
        if field == "all" or (key, value) == ("count", "all"):
            wanted.append("all")
        elif key == "device":
            wanted += value.split(",")
        elif (count := value if key == "count" else field).isdecimal() and int(count) < 1000:
            wanted += map(str, range(int(count)))
        elif key != "capabilities" and (key, value) != ("driver", "nvidia"):
            raise InvalidArgument(f'gpus "{text}" is not all, a number or device=ID,…')
    names = [f"{GPU}={each}" for each in wanted]
    for name in names:
        split(name)
    return names


def _fields(text: str) -> list[str]:
    """Fields between commas; one in quotes, or all after `device=` or `capabilities=`, is whole."""
    found: list[str] = []
    for field in re.findall(r'"[^"]*"|[^,]+', text):
        plain = field.strip('"')
        listed = found and found[-1].startswith(("device=", "capabilities="))
        if listed and "=" not in plain and not field.startswith('"'):
            found[-1] += f",{plain}"
        else:
            found.append(plain)
    return found

"""The labels of a container's samples."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from orlop.errors import InvalidArgument
from orlop.metrics.family import pairs

FIXED = ("container_id", "namespace", "runtime")
VALUE_MAX = 256
"""Characters of a label's value; what is longer is cut."""

_NAME = "orlop/name"
_GROUPS = {
    "name": {"name": _NAME},
    "pod": {
        "pod": "io.kubernetes.pod.name",
        "pod_namespace": "io.kubernetes.pod.namespace",
        "container": "io.kubernetes.container.name",
    },
}
_NO_NAME = re.compile(r"[^A-Za-z0-9_]")
_CHOSEN_MAX = 16


class Labels:
    """`chosen` are "image", "name", "pod", and labels of containers that become `label_KEY`.

    Every container has all of them, be it empty. Raises InvalidArgument for too many, and for two
    that have the same name.
    """

    def __init__(self, chosen: Iterable[str] = ()) -> None:
        self._image = False
        self._sources: dict[str, str] = {}
        for each in chosen:
            if each == "image":
                self._image = True
                continue
            found = _GROUPS.get(each) or {f"label_{_NO_NAME.sub('_', each)}": each}
            for name, key in found.items():
                if self._sources.setdefault(name, key) != key:
                    raise InvalidArgument(f'"{self._sources[name]}" and "{key}" are both "{name}"')
        if len(self._sources) > _CHOSEN_MAX:
            raise InvalidArgument(f"more than {_CHOSEN_MAX} labels would be too many series")

    @property
    def keys(self) -> Sequence[str]:
        """The labels of containers that are needed."""
        return list(dict.fromkeys(self._sources.values()))

    def of(
        self, id: str, namespace: str, runtime: str, image: str, labels: Mapping[str, str]
    ) -> str:
        """As they are written between braces."""
        found = list(zip(FIXED, (id, namespace, runtime), strict=True))
        if self._image:
            found.append(("image", image[:VALUE_MAX]))
        for name, key in self._sources.items():
            value = labels.get(key, id if key == _NAME else "")
            found.append((name, value[:VALUE_MAX]))
        return pairs(found)

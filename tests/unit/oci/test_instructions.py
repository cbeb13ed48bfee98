"""Instructions of a Dockerfile on a config."""

from __future__ import annotations

from typing import Any

import pytest

from orlop.errors import InvalidArgument
from orlop.oci.instructions import change


def changed(*lines: str, **config: Any) -> dict[str, Any]:
    change(config, lines)
    return config


def test_commands() -> None:
    assert changed('CMD ["a", "b"]') == {"Cmd": ["a", "b"]}
    assert changed("cmd a b") == {"Cmd": ["/bin/sh", "-c", "a b"]}
    assert changed("CMD [a, b]") == {"Cmd": ["/bin/sh", "-c", "[a, b]"]}
    assert changed("ENTRYPOINT a", Cmd=["old"]) == {"Entrypoint": ["/bin/sh", "-c", "a"]}
    both = changed('CMD ["new"]', 'ENTRYPOINT ["a"]', Cmd=["old"])
    assert both == {"Cmd": ["new"], "Entrypoint": ["a"]}


def test_maps_and_lists() -> None:
    assert changed("ENV A=1 B='x y'", Env=["A=0", "C=3"]) == {"Env": ["A=1", "C=3", "B=x y"]}
    assert changed("ENV A some text") == {"Env": ["A=some text"]}
    assert changed('LABEL a="b c" d=e', Labels={"a": "x"}) == {"Labels": {"a": "b c", "d": "e"}}
    assert changed("EXPOSE 80 53/UDP") == {"ExposedPorts": {"80/tcp": {}, "53/udp": {}}}
    assert changed('VOLUME ["/a", "/b c"]') == {"Volumes": {"/a": {}, "/b c": {}}}
    assert changed("VOLUME /a /b") == {"Volumes": {"/a": {}, "/b": {}}}
    assert changed("ONBUILD RUN x", OnBuild=["a"]) == {"OnBuild": ["a", "RUN x"]}


def test_places_and_people() -> None:
    assert changed("WORKDIR /a", "WORKDIR b/../c") == {"WorkingDir": "/a/c"}
    assert changed("USER me:us", "STOPSIGNAL SIGINT") == {"User": "me:us", "StopSignal": "SIGINT"}


def test_health_checks() -> None:
    assert changed("HEALTHCHECK NONE") == {"Healthcheck": {"Test": ["NONE"]}}
    found = changed("HEALTHCHECK --interval=1m --timeout=500ms --retries=3 CMD curl -f x")
    assert found["Healthcheck"] == {
        "Test": ["CMD-SHELL", "curl -f x"],
        "Interval": 60 * 10**9,
        "Timeout": 5 * 10**8,
        "Retries": 3,
    }
    assert changed('HEALTHCHECK CMD ["a"]')["Healthcheck"] == {"Test": ["CMD", "a"]}


@pytest.mark.parametrize(
    "line",
    [
        "",
        "CMD",
        "RUN make",
        "ENV A",
        "LABEL =b",
        "EXPOSE 70000",
        "ENV 'A=1",
        "VOLUME [",
        "HEALTHCHECK curl",
        "HEALTHCHECK --interval=1 CMD x",
        "HEALTHCHECK --retries=x CMD x",
    ],
)
def test_what_is_refused(line: str) -> None:
    with pytest.raises(InvalidArgument, match="change "):
        changed(line)

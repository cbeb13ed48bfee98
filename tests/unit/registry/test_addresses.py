"""Which addresses may see the same secrets."""

from __future__ import annotations

import pytest

from orlop.registry.addresses import same_origin


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://Registry.example/v2/", "https://registry.example:443/token", True),
        ("http://registry.example:80/v2/", "http://registry.example/v2/", True),
        ("https://registry.example:5000/", "https://registry.example:5000/x", True),
        ("http://registry.example/", "http://registry.example:443/", False),
        ("https://registry.example/", "https://registry.example:80/", False),
        ("http://registry.example/", "https://registry.example/", False),
        ("https://registry.example/", "https://www.registry.example/", False),
        ("https://registry.example:99999/", "https://registry.example:99999/", False),
    ],
)
def test_origins(one: str, other: str, same: bool) -> None:
    assert same_origin(one, other) == same_origin(other, one) == same

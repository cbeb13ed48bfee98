from __future__ import annotations

from pathlib import Path

import pytest

from orlop.errors import InvalidArgument
from orlop.trust.policy import ACCEPT, REJECT, REQUIRE, Policy, find, load

GOOD = """
default = "reject"
[[policy]]
repository = "a.example/team/*"
action = "require"
keys = ["team.pub", "/etc/other.pub"]
match_repository = true
[[policy]]
repository = "a.example/*"
action = "accept"
"""


def test_the_first_that_matches_counts(tmp_path: Path) -> None:
    file = tmp_path / "trust.toml"
    file.write_text(GOOD)
    policies = load(file)
    keys = (tmp_path / "team.pub", Path("/etc/other.pub"))
    assert find(policies, "a.example/team/x/y") == Policy("a.example/team/*", REQUIRE, keys, True)
    assert find(policies, "a.example/other").action == ACCEPT
    assert find(policies, "b.example/team/x").action == REJECT


def test_without_a_file_all_is_accepted(tmp_path: Path) -> None:
    assert find(load(tmp_path / "none.toml"), "anything").action == ACCEPT


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("policy = ", "is not TOML"),
        ("policies = []", "policies is not known"),
        ("policy = 5", "must be written"),
        ('default = "require"', "default must be accept or reject"),
        ('[[policy]]\nrepository = "a"', r"policy\[0\]\.action must be one of"),
        ('[[policy]]\naction = "accept"', r"policy\[0\]\.repository is missing"),
        ('[[policy]]\nrepository = "a"\naction = "require"', "keys belongs to"),
        ('[[policy]]\nrepository = "a"\naction = "accept"\nkeys = ["k"]', "keys belongs to"),
        ('[[policy]]\nrepository = 5\naction = "accept"', "must be a str"),
        ('[[policy]]\nrepo = "a"', "repo is not known"),
    ],
)
def test_a_file_that_makes_no_sense(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "trust.toml"
    file.write_text(text)
    with pytest.raises(InvalidArgument, match=words) as caught:
        load(file)
    assert str(file) in str(caught.value)

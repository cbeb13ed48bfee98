from __future__ import annotations

from pathlib import Path

import pytest

from orlop.errors import InvalidArgument
from orlop.trust.policy import ACCEPT, REJECT, REQUIRE, Policy, find, load
from orlop.trust.signers import Identity, Signers

REQUIRED = '[[policy]]\nrepository = "a"\naction = "require"\n'
GOOD = """
default = "reject"
[[policy]]
repository = "a.example/team/*"
action = "require"
keys = ["team.pub", "/etc/other.pub"]
identities = [{ identity = "me@example.org", issuer = "https://login.example" }]
trusted_root = "root.json"
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
    identities = (Identity("me@example.org", "https://login.example"),)
    signers = Signers(keys, identities, tmp_path / "root.json")
    assert find(policies, "a.example/team/x/y") == Policy(
        "a.example/team/*", REQUIRE, signers, True
    )
    assert find(policies, "a.example/other").action == ACCEPT
    assert find(policies, "b.example/team/x").action == REJECT


@pytest.mark.parametrize(
    ("repository", "pattern", "matches"),
    [
        ("Registry.Example/team/app", "registry.example/team/*", True),
        ("registry.example:443/team/app", "registry.example/team/*", True),
        ("registry.example:0443/team/app", "registry.example/team/*", True),
        ("registry.example/team/app", "REGISTRY.example:443/team/*", True),
        ("registry.example:05000/team/app", "registry.example:5000/*", True),
        ("registry.example:5000/team/app", "registry.example/team/*", False),
        ("index.docker.io/library/busybox", "docker.io/library/*", True),
        ("registry-1.docker.io:443/library/busybox", "docker.io/library/*", True),
        ("Registry.Hub.Docker.com/library/busybox", "docker.io/*", True),
        ("docker.io/library/busybox", "index.docker.io/library/busybox", True),
        ("docker.io/busybox", "docker.io/library/*", True),
        ("index.docker.io/team/app", "*.docker.io/*", True),
        ("registry.example:443/team/app", "registry.example:*/team/app", True),
        ("[::1]:443/team/app", "[[]::1]/team/app", True),
        ("internal-a.example/x", "internal-*:443/*", True),
        ("Internal-a.example:0443/x", "internal-*:443/*", True),
        ("internal-evil.example:8080/x", "internal-*:443/*", False),
        ("[::1]:8080/x", "*:443/*", False),
        ("registry.example/x", "[A-Z]egistry.example/*", False),
        ("docker.io.evil.example/library/busybox", "docker.io/*", False),
        ("evil.example/docker.io/app", "docker.io/*", False),
    ],
)
def test_spellings_of_a_host(repository: str, pattern: str, matches: bool) -> None:
    policies = [Policy(pattern, REJECT), Policy("*", ACCEPT)]
    assert find(policies, repository).action == (REJECT if matches else ACCEPT)


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
        ('[[policy]]\nrepository = "a"\naction = "require"', "keys or identities belong to"),
        (
            '[[policy]]\nrepository = "a"\naction = "accept"\nkeys = ["k"]',
            "keys or identities belong to",
        ),
        ('[[policy]]\nrepository = 5\naction = "accept"', "must be a str"),
        (f"{REQUIRED}identities = [5]", r"identities\[0\] must be \{ identity"),
        (f'{REQUIRED}identities = [{{ identity = "a" }}]', r"identities\[0\] must be"),
        (f'{REQUIRED}identities = [{{ identity = "a", issuer = "" }}]', "issuer must be a text"),
        (f'{REQUIRED}identities = [{{ identity = "a", issuer = "b" }}]', "need each other"),
        (f'{REQUIRED}keys = ["k"]\ntrusted_root = "r"', "need each other"),
        ('[[policy]]\nrepo = "a"', "repo is not known"),
    ],
)
def test_a_file_that_makes_no_sense(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "trust.toml"
    file.write_text(text)
    with pytest.raises(InvalidArgument, match=words) as caught:
        load(file)
    assert str(file) in str(caught.value)

import pytest

from orlop.errors import InvalidArgument, NotFound
from orlop.oci.users import User, resolve

PASSWD = """root:x:0:0:root:/root:/bin/sh
sailor:x:1000:1001::/home/sailor:/bin/sh
broken line
nohome:x:5:6::
"""
GROUP = """root:x:0:
deck:x:50:cook,sailor
hold:x:51:sailor
crew:x:1001:
"""


@pytest.mark.parametrize(
    ("wanted", "user"),
    [
        ("", User(0, 0, (), "/root")),
        ("0", User(0, 0, (), "/root")),
        ("sailor", User(1000, 1001, (50, 51), "/home/sailor")),
        ("1000", User(1000, 1001, (50, 51), "/home/sailor")),
        ("sailor:deck", User(1000, 50, (), "/home/sailor")),
        ("sailor:7", User(1000, 7, (), "/home/sailor")),
        ("4242", User(4242, 0, (), "/")),
        ("4242:crew", User(4242, 1001, (), "/")),
        ("nohome", User(5, 6, (), "/")),
    ],
)
def test_resolution(wanted: str, user: User) -> None:
    assert resolve(wanted, PASSWD, GROUP) == user


def test_an_image_without_files_has_root_and_numbers() -> None:
    assert resolve("", "", "") == User(0, 0, (), "/")
    assert resolve("12:34", "", "") == User(12, 34, (), "/")


@pytest.mark.parametrize("wanted", ["nobody", "sailor:nogroup", "-1", "1e3"])
def test_unknown_names(wanted: str) -> None:
    with pytest.raises(NotFound, match=r"/etc/(passwd|group)"):
        resolve(wanted, PASSWD, GROUP)


def test_a_number_out_of_range() -> None:
    with pytest.raises(InvalidArgument):
        resolve("4294967295", PASSWD, GROUP)

"""What the command advises about a registry's refusal."""

from __future__ import annotations

import pytest

from orlop.cli.transfers import advising
from orlop.errors import NotFound, OrlopError, PermissionDenied, Unauthenticated

NAME = "registry.example/app:1"
LOGIN = "orlop login registry.example"


@pytest.mark.parametrize(
    "error",
    [
        Unauthenticated("who are you"),
        PermissionDenied('registry "registry.example" answers GET x with status 403'),
        NotFound("UNAUTHORIZED: no such repository for you"),
    ],
)
def test_a_login_where_the_registry_refuses(error: OrlopError) -> None:
    with pytest.raises(type(error), match=LOGIN), advising(NAME):
        raise error


@pytest.mark.parametrize(
    "error", [PermissionDenied('rejected by the policy for "*"'), NotFound("no such tag")]
)
def test_none_where_it_would_not_help(error: OrlopError) -> None:
    with pytest.raises(type(error)) as caught, advising(NAME):
        raise error
    assert caught.value is error

"""Regular expressions of RE2's flavour, as list filters use them."""

from __future__ import annotations

import re
from collections.abc import Callable


def search(pattern: str) -> Callable[[str], bool]:
    """A test whether `pattern` is found anywhere in a text; raises ValueError for a bad pattern."""
    try:
        compiled = re.compile(pattern, re.ASCII)
    except re.error as error:
        raise ValueError(str(error)) from error
    return lambda text: compiled.search(text) is not None

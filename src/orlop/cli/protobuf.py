"""Protobuf without the half of it that a command never uses."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import LazyLoader, find_spec, module_from_spec

_PACKAGE = "google.protobuf.internal"
_NAME = "python_message"


def defer_pure_python() -> None:
    """Load protobuf's implementation in pure Python only if somebody asks for it.

    Its generated modules import it, with text format, pickle and more, beside the one in C that
    does the work; that is a tenth of the time of a short command.
    """
    name = f"{_PACKAGE}.{_NAME}"
    package = import_module(_PACKAGE)
    spec = find_spec(name)
    if name in sys.modules or spec is None or spec.loader is None:
        return
    spec.loader = loader = LazyLoader(spec.loader)
    module = sys.modules[name] = module_from_spec(spec)
    loader.exec_module(module)
    # Found here, it is not looked at by who imports it, which would load it.
    setattr(package, _NAME, module)

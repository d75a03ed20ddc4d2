"""Imports an example, whose name is not one of a module, with those that it imports."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from tests.documentation import ROOT

__all__ = ["imported_example"]

EXAMPLES = ROOT / "examples"


@contextmanager
def imported_example(file: str) -> Iterator[ModuleType]:
    """Import ``examples/<file>``; those that it imports are in `sys.modules`."""
    sys.path.insert(0, str(EXAMPLES))
    try:
        spec = importlib.util.spec_from_file_location(file.removesuffix(".py"), EXAMPLES / file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(EXAMPLES))

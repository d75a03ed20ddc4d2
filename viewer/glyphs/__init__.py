"""The Bokeh extension: models in ``models.py``, their drawing hand-written in ``dist``."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING

MODULE = "revacnn_glyphs"
SCRIPT = Path(__file__).parent / "dist" / f"{MODULE}.js"

if TYPE_CHECKING:
    from .models import Command, FlowPaths, JitterScatter, PageLink
else:
    if MODULE not in sys.modules:
        _spec = spec_from_file_location(MODULE, Path(__file__).with_name("models.py"))
        _module = sys.modules[MODULE] = module_from_spec(_spec)
        _spec.loader.exec_module(_module)
    _models = sys.modules[MODULE]
    Command, FlowPaths, JitterScatter = _models.Command, _models.FlowPaths, _models.JitterScatter
    PageLink = _models.PageLink

__all__ = ["MODULE", "SCRIPT", "Command", "FlowPaths", "JitterScatter", "PageLink"]

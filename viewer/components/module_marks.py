"""The marks of the modules between the layers of the network view."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from revacnn_lightning.protocol.inspections import FilterlessModule

from ..layout.marks import ModuleMark, place_module_marks
from ..rendering.frame_codec import PagePartContent
from ..rendering.module_names import short_type
from ..rendering.palette import Palette
from ..tab.shown_input import shows_module_marks
from ..tab.tab_state import TabState
from .network import NetworkView

__all__ = ["ModuleMarks"]


class ModuleMarks:
    """Marks where an input passes pooling, normalization and other modules between the layers."""

    def __init__(self, tab: TabState, network: NetworkView) -> None:
        self.tab = tab
        self._network = network
        self.root = self.source = PagePartContent("marks")
        self._shown: tuple[Any, ...] = ()

    def restyle(self, palette: Palette) -> None:
        """Do nothing: the page draws in its own colors."""

    def update(self) -> bool:
        """Show the marks of another structure or layout."""
        passes, is_shown = self.tab.follower.image_passes, shows_module_marks(self.tab)
        key = (self._network.input_output, id(passes.modules), is_shown)
        if key == self._shown:
            return False
        self._shown = key
        self.root.data = {
            "shown": is_shown,
            "available": bool(passes.modules),
            "rows": self._rows(passes.modules) if is_shown else [],
        }
        return True

    def _rows(self, modules: Sequence[FilterlessModule]) -> list[dict[str, Any]]:
        structure, layout, input_output = (
            self.tab.structure,
            self._network.layout,
            self._network.input_output,
        )
        if structure is None or layout is None or input_output is None:
            return []
        return [
            _row(mark, modules)
            for mark in place_module_marks(structure, layout, input_output, modules)
        ]


def _row(mark: ModuleMark, modules: Sequence[FilterlessModule]) -> dict[str, Any]:
    some = [modules[i] for i in mark.modules]
    label = short_type(some[0].module_type) if len(some) == 1 else f"{len(some)} modules"
    return {
        "x": mark.x,
        "top": mark.top,
        "bottom": mark.bottom,
        "label": label if mark.has_label else "",
        "modules": [
            {
                "name": module.name,
                "type": module.module_type,
                "before": _size(module.input_shape),
                "after": _size(module.output_shape),
            }
            for module in some
        ],
    }


def _size(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape)) or "1"

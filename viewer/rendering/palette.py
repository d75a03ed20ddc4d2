"""The colours of both themes. The page's style sheet holds the same ones as CSS variables."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from bokeh.themes import Theme

__all__ = ["DARK", "FONT", "LIGHT", "PALETTES", "Palette", "make_theme"]

FONT = "Inter, 'Segoe UI', system-ui, Roboto, 'Helvetica Neue', sans-serif"


@dataclass(frozen=True)
class Palette:
    """Forward is blue, backward is orange, everywhere."""

    name: str
    card: str
    grid: str
    line: str
    text: str
    title: str
    muted: str
    blue: str
    orange: str
    green: str
    red: str
    selected: str
    ramp: tuple[str, ...]  # of the gradient, weak to strong
    layers: tuple[str, ...]  # of curves, first layer to last
    tides: tuple[str, ...]  # the same in the colour of activations


DARK = Palette(
    name="dark",
    card="#111823",
    grid="#1c2838",
    line="#223045",
    text="#e7eef8",
    title="#c7d3e3",
    muted="#8b9bb2",
    blue="#5cb8ff",
    orange="#ffb347",
    green="#34d399",
    red="#f43f5e",
    selected="#ffffff",
    ramp=("#3e4e6a", "#6e5f6e", "#d6782c", "#fbb040", "#fff0cd"),
    layers=("#ffe3b0", "#ffc46b", "#f59a3a", "#d06f33", "#9a5a4e"),
    tides=("#d5ecff", "#93cfff", "#5cb8ff", "#3b8fd6", "#33689f"),
)
LIGHT = Palette(
    name="light",
    card="#ffffff",
    grid="#e9edf3",
    line="#dfe5ee",
    text="#1b2636",
    title="#1b2636",
    muted="#5d6b80",
    blue="#1f6fb8",
    orange="#c85a0a",
    green="#0f8a5f",
    red="#c81e43",
    selected="#0f172a",
    ramp=("#b0bcce", "#c4a082", "#de7826", "#c8500a", "#781e00"),
    layers=("#f0a030", "#dd7f1f", "#b85a10", "#8c3d0c", "#5c260a"),
    tides=("#7db8ec", "#4a97dc", "#1f6fb8", "#17558f", "#0f3b66"),
)
PALETTES = {palette.name: palette for palette in (DARK, LIGHT)}

_DARK_YAML = Path(__file__).parents[1] / "theme.yaml"


def make_theme(palette: Palette) -> Theme:
    """Bokeh's theme in these colours: ``theme.yaml``, which is written in the dark ones."""
    text = _DARK_YAML.read_text(encoding="utf-8")
    for name in ("card", "grid", "title", "muted"):
        text = text.replace(getattr(DARK, name), getattr(palette, name))
    content: dict[str, Any] = yaml.safe_load(text)
    return Theme(json=content)

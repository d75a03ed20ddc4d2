"""The colors of both themes, and of the states of nodes: defined here, and nowhere else.

The page gets them as CSS variables (`css_variables`) and as JSON (see `viewer/tab/page_assets.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml
from bokeh.themes import Theme

__all__ = ["DARK", "FONT", "LIGHT", "PALETTES", "Palette", "css_variables", "make_theme"]

FONT = "Inter, 'Segoe UI', system-ui, Roboto, 'Helvetica Neue', sans-serif"


@dataclass(frozen=True)
class Palette:
    """Forward is blue, backward is orange, everywhere."""

    name: str
    page: str
    card: str
    raised: str  # buttons and inputs
    pressed: str
    grid: str
    line: str
    text: str
    title: str
    muted: str
    blue: str
    orange: str
    green: str
    red: str
    stage: str  # ground of a stage of the network
    shadow: str
    dead: str  # outline of a dead filter
    frozen: str
    selected: str
    selected_path: str
    hover: str
    gradient_ramp: tuple[str, ...]  # of the gradient, weak to strong
    paths: tuple[tuple[int, int, int], ...]  # of the activation, weak to strong: HSL
    gradient_curves: tuple[str, ...]  # of backward statistics, first layer to last
    activation_curves: tuple[str, ...]  # of forward statistics, first layer to last


DARK = Palette(
    name="dark",
    page="#0b0f16",
    card="#111823",
    raised="#182233",
    pressed="#25344b",
    grid="#1c2838",
    line="#223045",
    text="#e7eef8",
    title="#c7d3e3",
    muted="#8b9bb2",
    blue="#5cb8ff",
    orange="#ffb347",
    green="#34d399",
    red="#f43f5e",
    stage="rgb(92 184 255 / 3.5%)",
    shadow="0 10px 34px rgb(0 0 0 / 45%)",
    dead="#4b5a73",
    frozen="#7dd3fc",
    selected="#ffffff",
    selected_path="#e0f2fe",
    hover="rgb(255 255 255 / 55%)",
    gradient_ramp=("#3e4e6a", "#6e5f6e", "#d6782c", "#fbb040", "#fff0cd"),
    paths=((214, 60, 50), (202, 95, 70)),
    gradient_curves=("#ffe3b0", "#ffc46b", "#f59a3a", "#d06f33", "#9a5a4e"),
    activation_curves=("#d5ecff", "#93cfff", "#5cb8ff", "#3b8fd6", "#33689f"),
)
LIGHT = Palette(
    name="light",
    page="#f3f5f9",
    card="#ffffff",
    raised="#f5f7fb",
    pressed="#dfe8f5",
    grid="#e9edf3",
    line="#dfe5ee",
    text="#1b2636",
    title="#1b2636",
    muted="#5d6b80",
    blue="#1f6fb8",
    orange="#bd5308",
    green="#0f8a5f",
    red="#c81e43",
    stage="rgb(31 111 184 / 5%)",
    shadow="0 10px 30px rgb(27 38 54 / 16%)",
    dead="#aab4c4",
    frozen="#0284c7",
    selected="#0f172a",
    selected_path="#0c4a6e",
    hover="rgb(15 23 42 / 50%)",
    gradient_ramp=("#b0bcce", "#c4a082", "#de7826", "#c8500a", "#781e00"),
    paths=((212, 50, 60), (204, 80, 34)),
    gradient_curves=("#f0a030", "#dd7f1f", "#b85a10", "#8c3d0c", "#5c260a"),
    activation_curves=("#7db8ec", "#4a97dc", "#1f6fb8", "#17558f", "#0f3b66"),
)
PALETTES = {palette.name: palette for palette in (DARK, LIGHT)}


def css_variables() -> str:
    """Return a style sheet with a variable for each single color.

    ``--gradient-ramp`` is a CSS gradient of the colors of gradients.
    """
    return "\n".join(
        f':root[data-theme="{palette.name}"] {{ {" ".join(_declarations(palette))} }}'
        for palette in PALETTES.values()
    )


def _declarations(palette: Palette) -> Iterator[str]:
    for field in fields(palette):
        value = getattr(palette, field.name)
        if isinstance(value, str) and field.name != "name":
            yield f"--{field.name.replace('_', '-')}: {value};"
    yield f"--gradient-ramp: linear-gradient(90deg, {', '.join(palette.gradient_ramp)});"


_DARK_YAML = Path(__file__).parents[1] / "theme.yaml"


def make_theme(palette: Palette) -> Theme:
    """Return Bokeh's theme: ``theme.yaml``, with the dark palette's colors replaced."""
    text = _DARK_YAML.read_text(encoding="utf-8")
    for name in ("card", "grid", "title", "muted"):
        text = text.replace(getattr(DARK, name), getattr(palette, name))
    content: dict[str, Any] = yaml.safe_load(text)
    return Theme(json=content)

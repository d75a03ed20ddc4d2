"""What the template writes into the page, and that none of it is written down a second time."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from viewer.layout import NodeState
from viewer.rendering.palette import DARK, LIGHT, Palette, css_variables
from viewer.tab.page_assets import STATIC, STYLE_SHEETS, page_config, page_template_variables

SCRIPTS = sorted(STATIC.rglob("*.js"))


def colors(palette: Palette) -> dict[str, str]:
    found = {field.name: getattr(palette, field.name) for field in fields(palette)}
    return {name: value for name, value in found.items() if isinstance(value, str)}


def test_the_page_gets_the_palettes_and_the_numbers_of_states() -> None:
    config = page_config()
    assert config["node_states"] == {state.name.lower(): state.value for state in NodeState}
    assert config["palettes"]["dark"]["red"] == DARK.red
    assert json.loads(page_template_variables()["config"]) == json.loads(json.dumps(config))


def test_every_color_is_a_css_variable_of_its_theme() -> None:
    dark, light = css_variables().splitlines()
    for line, palette in ((dark, DARK), (light, LIGHT)):
        assert line.startswith(f':root[data-theme="{palette.name}"]')
        for name, color in colors(palette).items():
            if name != "name":
                assert f"--{name.replace('_', '-')}: {color};" in line


@pytest.mark.parametrize("path", [*SCRIPTS, *STYLE_SHEETS], ids=lambda path: path.name)
def test_no_color_of_the_palettes_is_written_in_script_or_style(path: Path) -> None:
    text = path.read_text(encoding="utf-8").lower()
    written = set(re.findall(r"#[0-9a-f]{6}\b", text))
    palettes = {c for palette in (DARK, LIGHT) for c in colors(palette).values()}
    palettes |= {*DARK.gradient_ramp, *LIGHT.gradient_ramp}
    assert not written & (palettes - {"#ffffff"})


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_the_script_has_no_numbers_of_states(path: Path) -> None:
    names = "|".join(state.name.lower() for state in NodeState if state is not NodeState.STAGED)
    assert not re.search(rf"\b({names}): *\d", path.read_text(encoding="utf-8"))


def test_the_modules_of_workers_have_a_version_that_changes_with_any_of_them() -> None:
    modules = json.loads(page_template_variables()["modules"])
    assert {"network/node_worker.js", "shared/drawing_loop.js"} <= set(modules["files"])
    assert "main.js" not in modules["files"]  # in the page itself
    assert re.fullmatch(r"[0-9a-f]{16}", modules["version"])


def test_the_viewer_imports_neither_torch_nor_lightning() -> None:
    code = (
        "import sys, viewer.tab.page, viewer.runs.app_state\n"
        "loaded = {name.split('.')[0] for name in sys.modules}\n"
        "assert not loaded & {'torch', 'lightning', 'pytorch_lightning', 'sklearn'}, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=240)

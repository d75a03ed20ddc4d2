"""The Bokeh extension: found, served, and the same on both sides."""

from __future__ import annotations

import re
import subprocess
import sys

import bokeh.models
import pytest
from bokeh.core.has_props import HasProps
from bokeh.embed import bundle

from tests.viewer.processes import ROOT
from viewer import glyphs

MODELS = [glyphs.JitterScatter, glyphs.FlowPaths, glyphs.PageLink]


@pytest.mark.parametrize("model", MODELS)
def test_models_are_named_after_the_extension(model: type[HasProps]) -> None:
    assert model.__qualified_model__ == f"{glyphs.MODULE}.{model.__name__}"
    script = glyphs.SCRIPT.read_text()
    declared = r'static __module__ = "revacnn_glyphs"\s+static __name__ = "' + model.__name__ + '"'
    assert re.search(declared, script)


def test_bokeh_finds_the_script() -> None:
    from bokeh.resources import Resources

    found = bundle._bundle_extensions({glyphs.PageLink()}, Resources(mode="server"))
    assert [one.artifact_path for one in found] == [glyphs.SCRIPT]


def test_both_sides_declare_the_same_properties() -> None:
    script = glyphs.SCRIPT.read_text()
    body = script.split('static __name__ = "PageLink"')[1].split("initialize()")[0]
    declared = set(re.findall(r"(\w+): \[\w+,", body))
    own = set(glyphs.PageLink.properties()) - set(bokeh.models.Model.properties())
    assert declared == own


def test_a_second_copy_of_the_folder_shares_the_models(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """One server may hold the app twice: as a clone's folder and as an installed one."""
    code = (
        "import sys, shutil, warnings; warnings.simplefilter('error')\n"
        "import viewer.glyphs as a\n"
        f"shutil.copytree(list(a.__path__)[0], {str(tmp_path / 'other')!r})\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "import other as b\n"
        "assert a.PageLink is b.PageLink"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_states_are_the_same_on_both_sides() -> None:
    from viewer.layout import NodeState

    script = (ROOT / "viewer" / "static" / "2_nodes.js").read_text(encoding="utf-8")
    (line,) = re.findall(r"const STATE = \{(.*)\}", script)
    there = {name: int(value) for name, value in re.findall(r"(\w+): (\d)", line)}
    words = {NodeState.NEW: "fresh"}
    assert there == {words.get(state, state.name.lower()): state.value for state in NodeState}


def test_the_viewer_imports_neither_torch_nor_lightning() -> None:
    code = (
        "import sys, viewer.tab.page, viewer.runs.app_state\n"
        "loaded = {name.split('.')[0] for name in sys.modules}\n"
        "assert not loaded & {'torch', 'lightning', 'pytorch_lightning', 'sklearn'}, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

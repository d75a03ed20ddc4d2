from __future__ import annotations

from pathlib import Path

import pytest
from bokeh.resources import INLINE, Resources

from viewer.rendering.bokeh_scripts import UNUSED_COMPONENTS, needed_bokeh_scripts
from viewer.tab.page_assets import STATIC

MAX_BYTES = 2 * 2**20  # of script that a new visitor loads, as it is sent: minified, not compressed


@pytest.mark.parametrize(
    "resources",
    [
        Resources(mode="server", root_url="/behind/a/proxy/"),
        Resources(mode="server-dev"),
        Resources(mode="cdn"),
    ],
)
def test_components_without_a_use_are_not_loaded(resources: Resources) -> None:
    """MathJax, tables, WebGL and widgets were two thirds of the page's script."""
    scripts = resources.render_js()
    assert all(f"/{name}" in scripts for name in UNUSED_COMPONENTS)
    needed = needed_bokeh_scripts(scripts)
    assert not any(name in needed for name in UNUSED_COMPONENTS)
    assert needed.count("<script") == needed.count("</script>") >= 1
    assert "bokeh.js" in needed or "bokeh.min.js" in needed or "bokeh-3" in needed


def test_scripts_within_the_page_stay_as_they_are() -> None:
    scripts = INLINE.render_js()
    assert needed_bokeh_scripts(scripts) == scripts


def test_a_new_visitor_loads_two_megabytes_of_script_at_most() -> None:
    bokeh = Resources(mode="absolute")
    needed = [Path(path) for path in bokeh.js_files]
    needed = [path for path in needed if not path.name.startswith(UNUSED_COMPONENTS)]
    own = list(STATIC.rglob("*.js"))
    assert [path.name for path in needed] == ["bokeh.min.js"]
    assert sum(path.stat().st_size for path in (*needed, *own)) <= MAX_BYTES

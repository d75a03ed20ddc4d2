"""The scripts of BokehJS that the page loads."""

from __future__ import annotations

import re

__all__ = ["UNUSED_COMPONENTS", "needed_bokeh_scripts"]

# The page has no widget, table, WebGL plot or TeX label. Bokeh's server lists all components,
# because it cannot know which ones an app needs: two thirds of the script would never run.
UNUSED_COMPONENTS = ("bokeh-gl", "bokeh-widgets", "bokeh-tables", "bokeh-mathjax")

_SCRIPT = re.compile(
    rf"<script\b[^>]*\bsrc=\"[^\"]*/(?:{'|'.join(UNUSED_COMPONENTS)})(?:-[\w.]+)?(?:\.min)?\.js"
    r"[^>]*></script>\s*"
)


def needed_bokeh_scripts(scripts: str) -> str:
    """Return Bokeh's script elements (its template variable ``bokeh_js``) that the page needs.

    Scripts that are written into the page (``BOKEH_RESOURCES=inline``) stay as they are.
    """
    return _SCRIPT.sub("", scripts)

"""What the template writes into the page: its style, and what its script has to know beforehand."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from enum import IntEnum
from functools import lru_cache
from pathlib import Path
from typing import Any

from revacnn_lightning.diagnostics.dead_filters import DEAD_BATCHES
from revacnn_lightning.diagnostics.degenerate import ComparisonExclusion
from revacnn_lightning.page_server.security_headers import NONCE, add_nonce_to_scripts

from ..layout import NodeState
from ..rendering.bokeh_scripts import needed_bokeh_scripts
from ..rendering.palette import PALETTES, css_variables
from ..rendering.script_bundle import bundle_modules, modules_in_import_order

__all__ = ["STATIC", "STYLE_SHEETS", "page_config", "page_template_variables"]

STATIC = Path(__file__).parents[1] / "static"
CHART_FUNCTIONS = STATIC / "charts" / "chart_functions.js"
# That of the whole page comes first: those of its parts may override it.
STYLE_SHEETS = sorted(STATIC.glob("*.css"), key=lambda path: (path.stem != "page", path.stem))


def page_config() -> dict[str, Any]:
    """Return what ``static/shared/page_config.js`` reads: colors, and the numbers of states."""
    return {
        "palettes": {name: asdict(palette) for name, palette in PALETTES.items()},
        "node_states": _numbers(NodeState),
        "degenerate_kinds": _numbers(ComparisonExclusion),
        "dead_batches": DEAD_BATCHES,
    }


def _numbers(kind: type[IntEnum]) -> dict[str, int]:
    return {member.name.lower(): member.value for member in kind}


@lru_cache(maxsize=1)
def page_template_variables() -> dict[str, Any]:
    """Return the variables of ``viewer/templates/index.html``.

    Style and script are written into the page, so that it is never seen without, and needs no
    further requests. The modules of the workers are files that the browser may keep: ``modules``
    lists them with the version of them all, at whose change the page has the browser fetch all of
    them again. No old module meets a new one.
    """
    workers = [path.relative_to(STATIC).as_posix() for path in STATIC.rglob("*_worker.js")]
    names = modules_in_import_order(STATIC, *sorted(workers))
    version = hashlib.sha256(b"".join((STATIC / name).read_bytes() for name in names)).hexdigest()
    return {
        "palette_css": css_variables(),
        "style": "\n".join(path.read_text(encoding="utf-8") for path in STYLE_SHEETS),
        "chart_functions": CHART_FUNCTIONS.read_text(encoding="utf-8"),
        "needed_scripts": needed_bokeh_scripts,
        "nonce": NONCE,
        "add_nonce_to_scripts": add_nonce_to_scripts,
        "config": _script_json(page_config()),
        "modules": _script_json({"version": version[:16], "files": names}),
        "script": bundle_modules(STATIC, "main.js"),
    }


def _script_json(value: Any) -> str:
    """Return JSON that can stand in a script element."""
    return json.dumps(value).replace("<", "\\u003c")

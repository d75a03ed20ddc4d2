"""The page's style sheets hide nothing by where it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from viewer.rendering.palette import css_variables

TEMPLATES = Path(__file__).parents[2] / "viewer" / "templates"
STYLES = sorted((Path(__file__).parents[2] / "viewer" / "static").rglob("*.css"))
RULE = re.compile(r"([^{}]+)\{([^{}]*)\}")  # within @media, too
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
HIDES = re.compile(r"(display:\s*none|visibility:\s*hidden)\s*(;|$)")
STRUCTURE = re.compile(r":(nth|first|last|only|has|not|root)\b|[>+~]")
# Before there is a run, everything but the header is hidden. Where room is short, so are the second
# lines of headers: their elements have one such line each.
ALLOWED = {
    '#app[data-run="none"] > :is(main, aside, footer)',
    '#app[data-run="unknown"] > :is(main, aside, footer)',
    '.column[data-lane="true"][data-density="normal"] > span',
    '.column.block-header[data-density="crowded"] > span',
    "#network:has(#cheapest:not([hidden])) #hints",
    "#network:has(#of-class:not([hidden])) #hints",
}


def hiding_selectors(style: str) -> list[str]:
    """Return the selectors of all rules that hide elements."""
    found = []
    for selectors, body in RULE.findall(COMMENT.sub("", style)):
        if HIDES.search(body.strip()):
            found += re.split(r",(?![^(]*\))", " ".join(selectors.split()))
    return [selector.strip() for selector in found]


def test_rules_that_hide_are_found() -> None:
    style = "@media (max-width: 9px) { .a > b, .c:is(.d, .e) { display: none } } .f { color: red }"
    assert hiding_selectors(style) == [".a > b", ".c:is(.d, .e)"]
    assert hiding_selectors(".g { visibility: hidden; } /* .h { display: none } */") == [".g"]


@pytest.mark.parametrize("path", STYLES, ids=lambda path: path.name)
def test_the_first_two_figures_of_the_header_were_hidden_by_their_place(path: Path) -> None:
    """Whatever came first was hidden, and a rule that shows it again depends on specificity."""
    found = hiding_selectors(path.read_text(encoding="utf-8"))
    structural = {selector for selector in found if STRUCTURE.search(selector)}
    assert structural <= ALLOWED


def test_a_color_that_is_nowhere_defined_was_used() -> None:
    """The browser ignores such a declaration without a message."""
    files = [*STYLES, *STYLES[0].parent.rglob("*.js"), *TEMPLATES.rglob("*.html")]
    text = css_variables() + "".join(path.read_text(encoding="utf-8") for path in files)
    defined = set(re.findall(r"(--[\w-]+)(?=\"?[:,] )", text))
    used = set(re.findall(r"var\((--[\w-]+)\)", text))  # without a fallback
    assert used
    assert used - defined == set()

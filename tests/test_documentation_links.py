"""Links of documents that are not built lead somewhere, and their other code is what it seems.

``mkdocs build --strict`` checks the links of ``docs``, `tests.test_documentation_code` runs Python.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from markdown.extensions.toc import slugify

from revacnn_lightning import cli
from revacnn_lightning.protocol.edit_requests import RemoveFilters
from revacnn_lightning.protocol.messages import Request
from tests.documentation import DOCUMENTS, ROOT, blocks_of, shell_lines
from tests.test_documentation import name

NOT_BUILT = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / ".github").rglob("*.md")),
]
LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|srcset|href)=\"([^\"]+)\"")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
FENCE = re.compile(r"^ *```([a-z]*).*?^ *```$", re.MULTILINE | re.DOTALL)


def anchors(document: Path) -> set[str]:
    """Return the anchors of the headings of a document."""
    text = FENCE.sub("", document.read_text(encoding="utf-8"))
    return {slugify(heading.replace("`", ""), "-") for heading in HEADING.findall(text)}


def broken_links(document: Path) -> list[str]:
    """Return the links of a document to files and headings that do not exist."""
    broken = []
    for link in map("".join, LINK.findall(FENCE.sub("", document.read_text(encoding="utf-8")))):
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        is_missing = not target.exists() or (anchor and anchor not in anchors(target))
        if "://" not in link and is_missing:
            broken.append(link)
    return broken


@pytest.mark.parametrize("document", NOT_BUILT, ids=name)
def test_links_lead_to_files_and_headings(document: Path):
    assert broken_links(document) == []


def test_a_broken_link_is_found(tmp_path: Path):
    (tmp_path / "other.md").write_text("# A heading\n```\n# no heading\n```\n")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](other.md#a-heading) [b](gone.md) [c](other.md#no-heading) [d](https://example.com/gone)\n"
    )
    assert broken_links(page) == ["gone.md", "other.md#no-heading"]


def test_every_kind_of_code_is_checked():
    """Python by its own tests, the one script with its worked example, all else here."""
    kinds = {one: set(FENCE.findall(one.read_text(encoding="utf-8"))) for one in DOCUMENTS}
    assert set().union(*kinds.values()) == {"python", "bash", "json", "js", ""}
    assert [name(one) for one in kinds if "js" in kinds[one]] == ["CONTRIBUTING.md"]
    assert [name(one) for one in kinds if "" in kinds[one]] == ["docs/architecture.md"]


def test_the_modules_of_the_architecture_exist():
    [tree] = blocks_of(ROOT / "docs" / "architecture.md", "")
    packages = (ROOT / "revacnn_lightning", ROOT / "viewer")
    known = {path.name for package in packages for path in package.rglob("*.py")}
    assert set(re.findall(r"\b\w+\.py\b", tree)) <= known


def is_file(words: list[str]) -> bool:
    return bool(words) and (ROOT / words[0]).is_file()


def is_of_node(words: list[str]) -> bool:
    """Whether a script is that of a package which ``npm ci`` installs, or the tests of the page."""
    packages = json.loads((ROOT / "package.json").read_text())["devDependencies"]
    folders = Path(words[0]).parts
    is_installed = folders[0] == "node_modules" and folders[1] in packages
    return is_installed or (words[0] == "--test" and bool(list(ROOT.glob(words[1]))))


def parses(words: list[str]) -> bool:
    """Whether the command after the arguments of another program parses, if there is one."""
    if "revacnn" in words:
        cli._parser().parse_args(words[words.index("revacnn") + 1 :])
    return True


def has_known_extras(words: list[str]) -> bool:
    table = (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]")[2]
    known = set(re.findall(r"^(\w+) = \[", table.partition("\n[")[0], re.MULTILINE))
    extras = [extra for word in words for extra in re.findall(r"\[([\w,]+)\]", word)]
    return words[0] == "install" and {e for extra in extras for e in extra.split(",")} <= known


CHECKS: dict[str, Callable[[list[str]], bool]] = {
    "revacnn": lambda words: True,  # in tests.test_documentation, as ``make`` and ``python -m``
    "make": lambda words: True,
    "python": lambda words: words[0] == "-m" or is_file(words),
    "pip": has_known_extras,
    "node": is_of_node,
    "source": lambda words: words == [".venv/bin/activate"],
    "docker": parses,
    "ssh": parses,
}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_commands_are_those_of_known_programs(document: Path):
    for line in shell_lines(document):
        program, *words = shlex.split(line)
        assert program in CHECKS, line
        assert CHECKS[program](words), line


def test_the_request_of_the_protocol_page_is_one():
    [text] = blocks_of(ROOT / "docs" / "protocol.md", "json")
    request = msgspec.json.decode(text, type=Request)
    assert request.dry_run is True
    assert request.body == RemoveFilters("features.conv2", [3, 7])


def test_the_configuration_of_an_agent_starts_a_command():
    [text] = blocks_of(ROOT / "docs" / "python.md", "json")
    [server] = json.loads(text)["mcpServers"].values()
    assert server["command"] == "revacnn"
    assert cli._parser().parse_args(server["args"]).operator is True

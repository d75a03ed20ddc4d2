"""The documentation is true: its files exist, its commands parse, and its code runs."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
from pathlib import Path

import pytest

import revacnn_lightning
from revacnn_lightning import cli
from revacnn_lightning.telemetry.statistics import STATISTICS
from tests.documentation import DOCUMENTS, ROOT, python_blocks, shell_commands

# Documents may omit the top-level package of a path.
FOLDERS = ("", "docs", "revacnn_lightning", "viewer")
PATHS = re.compile(r"(?:`|\]\()([\w./-]+(?:\.(?:py|md|html|json|toml|png|webp|yml)|/))[`)#]")


def mentioned_paths(text: str) -> set[str]:
    """Return the paths in backticks that contain a slash, and the targets of links."""
    return {path for path in PATHS.findall(text) if "/" in path}


def name(document: Path) -> str:
    return document.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_mentioned_files_exist(document: Path):
    folders = [document.parent, *(ROOT / folder for folder in FOLDERS)]
    missing = {
        path
        for path in mentioned_paths(document.read_text(encoding="utf-8"))
        if not any((folder / path).exists() for folder in folders)
    }
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_commands_of_this_package_parse(document: Path):
    for command in shell_commands(document, "revacnn"):
        try:
            cli._parser().parse_args(shlex.split(command)[1:])
        except SystemExit:
            pytest.fail(f"{name(document)}: {command}")


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_targets_of_make_and_modules_exist(document: Path):
    makefile = (ROOT / "Makefile").read_text()
    targets = {
        word
        for command in shell_commands(document, "make")
        for word in shlex.split(command)[1:]
        if re.fullmatch(r"[a-z-]+", word)
    }
    assert targets <= set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    for command in shell_commands(document, "python -m"):
        assert importlib.util.find_spec(shlex.split(command)[2]), command


def test_the_api_page_has_all_public_names():
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    names = re.findall(r"^::: revacnn_lightning\.(\w+)$", page, re.MULTILINE)
    assert sorted(names) == sorted(revacnn_lightning.__all__)


def test_the_page_of_the_command_has_all_commands_options_and_variables():
    page = (ROOT / "docs" / "command.md").read_text(encoding="utf-8")
    [commands] = [one for one in cli._parser()._actions if isinstance(one.choices, dict)]
    shown = "".join(parser.format_help() for parser in commands.choices.values())
    assert {name for name in commands.choices if f"`revacnn {name}" not in page} == set()
    assert {name for name in re.findall(r"--[a-z][a-z-]+", shown) if name not in page} == set()
    sources = [*(ROOT / "revacnn_lightning").rglob("*.py"), *(ROOT / "viewer").rglob("*.py")]
    code = "".join(source.read_text(encoding="utf-8") for source in sources)
    variables = set(re.findall(r"REVACNN_[A-Z_]+", code))
    assert {name for name in variables if f"`{name}`" not in page} == set()


def test_how_it_works_has_all_statistics():
    page = (ROOT / "docs" / "how_it_works.md").read_text(encoding="utf-8")
    assert {name for name in STATISTICS if f'`"{name}"`' not in page} == set()


@pytest.mark.parametrize("script", ["zoo_table", "comparison_table"])
def test_tables_are_those_of_the_stored_results(script: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    tables = importlib.import_module(script)
    page = tables.PAGE.read_text(encoding="utf-8")
    render = importlib.import_module("generated_blocks").render
    assert render(page, tables.blocks()) == page, f"run python docs/{script}.py"
    assert all(f"<!-- generated: {name} -->" in page for name in tables.blocks())


def test_few_blocks_of_code_are_not_run():
    blocks = [block for document in DOCUMENTS for block in python_blocks(document)]
    assert len([block for block in blocks if block.excerpt]) <= len(blocks) / 4

"""A release is one version and one date, wherever they are written."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
FILES = ("revacnn_lightning/__init__.py", "CITATION.cff", "CHANGELOG.md")


@pytest.fixture(scope="module")
def release() -> ModuleType:
    """The script that checks a release."""
    spec = importlib.util.spec_from_file_location("release", ROOT / ".ci" / "release.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder with the files that a release changes, of a version without further entries."""
    for file in FILES:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / file)
    (tmp_path / FILES[0]).write_text('__version__ = "7.8.9"\n')
    (tmp_path / "CITATION.cff").write_text('version: 7.8.9\ndate-released: "2030-01-02"\n')
    (tmp_path / "CHANGELOG.md").write_text(
        "# Changelog\n\n## [Unreleased]\n\n## [7.8.9] - 2030-01-02\n\n### Added\n\n- A.\n\n"
        "## [7.8.8] - 2029-01-02\n\n- B.\n"
    )
    return tmp_path


def test_this_checkout_is_consistent(release: ModuleType):
    assert release.find_problems(ROOT) == []


def test_a_consistent_release_has_its_notes(release: ModuleType, copy: Path):
    assert release.find_problems(copy, "v7.8.9") == []
    newest = release.sections((copy / "CHANGELOG.md").read_text())[1]
    assert newest.notes == "### Added\n\n- A."


@pytest.mark.parametrize(
    ("file", "before", "after", "problem"),
    [
        ("CITATION.cff", "7.8.9", "7.8.8", "CITATION.cff has the version '7.8.8', not '7.8.9'"),
        ("CITATION.cff", "01-02", "01-03", "CITATION.cff has the date"),
        ("CHANGELOG.md", "## [7.8.9]", "## [7.9.0]", "CHANGELOG.md has the version '7.9.0'"),
        ("CHANGELOG.md", "[Unreleased]\n", "[Unreleased]\n\n- C.\n", "under [Unreleased]"),
        ("CHANGELOG.md", "## [Unreleased]\n\n", "", "is not [Unreleased]"),
        (FILES[0], "7.8.9", "7.8.10", "the tag is 'v7.8.9', not 'v7.8.10'"),
    ],
)
def test_what_does_not_agree_is_named(
    release: ModuleType, copy: Path, file: str, before: str, after: str, problem: str
):
    text = (copy / file).read_text()
    assert before in text
    (copy / file).write_text(text.replace(before, after, 1))
    assert any(problem in one for one in release.find_problems(copy, "v7.8.9"))

"""The wheel is complete and needs no other files; the source distribution can be tested."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def build(kind: str, folder: Path) -> None:
    """Build a package. Environments that uv makes have no pip, so that hatchling is called."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", kind]
    subprocess.run([*command, "--directory", str(folder)], cwd=ROOT, check=True, timeout=240)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from this checkout."""
    target = tmp_path_factory.mktemp("wheel")
    build("wheel", target)
    [wheel] = target.glob("*.whl")
    return wheel


def test_wheel_contains_all_files_of_package_and_viewer(wheel: Path):
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, target in (
        ("revacnn_lightning", "revacnn_lightning"),
        ("viewer", "revacnn_lightning/_viewer"),
    ):
        for file in (ROOT / folder).rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                assert f"{target}/{file.relative_to(ROOT / folder).as_posix()}" in names


def test_wheel_installs_one_package_and_one_command(wheel: Path):
    archive = zipfile.ZipFile(wheel)
    top_level = {name.split("/")[0] for name in archive.namelist()}
    assert {n for n in top_level if not n.endswith(".dist-info")} == {"revacnn_lightning"}
    [entry_points] = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
    assert "revacnn = revacnn_lightning.cli:main" in archive.read(entry_points).decode()


def test_installed_package_uses_its_own_viewer(wheel: Path, tmp_path: Path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = "from revacnn_lightning.cli import viewer_dir; print(viewer_dir())"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == str(tmp_path / "revacnn_lightning" / "_viewer")


def test_source_distribution_contains_all_files_in_git(tmp_path: Path):
    """Tests read files outside the packages, such as the Makefile and the documentation."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    build("sdist", tmp_path)
    [archive] = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as files:
        names = {name.partition("/")[2] for name in files.getnames()}
    assert {file for file in listed.stdout.split("\0") if (ROOT / file).is_file()} <= names

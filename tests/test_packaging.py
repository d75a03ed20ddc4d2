"""The wheel holds everything that is needed, including the viewer."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", str(target), str(ROOT)], check=True, timeout=240)
    [built] = target.glob("*.whl")
    return built


def test_the_wheel_holds_all_files_of_the_package_and_the_viewer(wheel: Path):
    inside = set(zipfile.ZipFile(wheel).namelist())
    for folder, place in (("revacnn_lightning", ""), ("viewer", "revacnn_lightning/_viewer")):
        for file in (ROOT / folder).rglob("*"):
            relative = file.relative_to(ROOT if not place else ROOT / folder).as_posix()
            if file.is_file() and "__pycache__" not in relative:
                assert f"{place}/{relative}".lstrip("/") in inside


def test_the_wheel_installs_one_package_and_one_command(wheel: Path):
    archive = zipfile.ZipFile(wheel)
    tops = {name.split("/")[0] for name in archive.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"revacnn_lightning"}
    [entry_points] = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
    assert "revacnn = revacnn_lightning.cli:main" in archive.read(entry_points).decode()


def test_the_viewer_runs_from_the_wheel_alone(wheel: Path, tmp_path: Path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = "from revacnn_lightning.cli import viewer_dir; print(viewer_dir())"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == str(tmp_path / "revacnn_lightning" / "_viewer")

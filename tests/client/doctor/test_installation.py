"""What is installed."""

from __future__ import annotations

import importlib.util
from importlib import metadata
from pathlib import Path

import pytest

from revacnn_lightning.client.doctor import installation
from revacnn_lightning.client.doctor.finding import Finding
from revacnn_lightning.client.doctor.installation import check_installation
from revacnn_lightning.errors import RevacnnError


def check() -> dict[str, Finding]:
    return {finding.check: finding for finding in check_installation(lambda: Path("viewer"))}


def test_this_environment_is_fine():
    found = check()
    assert [one for one in found.values() if one.status == "problem"] == []
    for name in ("Python", "ReVACNN", "encryption", "pyzmq", "bokeh", "tornado", "viewer"):
        assert found[name].status == "ok", name
    has_torch = importlib.util.find_spec("torch") is not None
    assert found["torch" if has_torch else "[train]"].status == ("ok" if has_torch else "note")


def test_a_missing_extra_is_a_note_with_the_command(monkeypatch: pytest.MonkeyPatch):
    installed = installation._version
    monkeypatch.setattr(installation, "_version", lambda n: "" if n == "torch" else installed(n))
    finding = check()["[train]"]
    assert finding.status == "note"
    assert finding.advice == "for training: pip install 'revacnn-lightning[train]'"


def test_an_old_package_is_a_problem(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        metadata, "requires", lambda _: ["numpy>=1.24", 'bokeh>=99.1; extra == "v"']
    )
    found = check()
    assert found["bokeh"].status == "problem"
    assert "older than 99.1" in found["bokeh"].text
    assert found["numpy"].status == "ok"


def test_missing_encryption_is_a_problem(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(installation, "has_encryption", lambda: False)
    assert check()["encryption"].status == "problem"


def test_a_missing_viewer_is_a_problem():
    def find() -> Path:
        raise RevacnnError("the viewer is missing")

    found = {finding.check: finding for finding in check_installation(find)}
    assert found["viewer"].status == "problem"


@pytest.mark.parametrize(
    ("extra", "package"),
    [("inspect", "captum"), ("record", "mcap"), ("mcp", "mcp"), ("tls", "cryptography")],
)
def test_a_missing_package_of_a_feature_is_noted(
    extra: str, package: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(installation, "_version", lambda name: "" if name == package else "999")
    found = {finding.check: finding for finding in check_installation(lambda: Path("viewer"))}
    note = found[f"[{extra}]"]
    assert note.status == "note"
    assert f"pip install 'revacnn-lightning[{extra}]'" in note.advice

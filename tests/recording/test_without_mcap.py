"""Everything that needs the package mcap says so where it is not installed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from revacnn_lightning import MissingPackageError, ReVACNN
from revacnn_lightning.cli import main
from revacnn_lightning.protocol.messages import Refused, Request
from revacnn_lightning.protocol.requests import StartRecording
from revacnn_lightning.recording.run_recordings import RecordingSettings, RunRecordings
from tests.recording.messages import run_messages, write
from tests.runtime.test_request_handler import HandlerWithRun
from viewer.runs.recordings import Recordings

INSTALL = "recordings need the package mcap: pip install 'revacnn-lightning[record]'"


@pytest.fixture
def recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recording that was made where mcap is installed; here, it is not."""
    path = write(tmp_path / "run.mcap", run_messages(2))
    for module in [name for name in sys.modules if name.split(".")[0] == "mcap"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "mcap", None)
    return path


@pytest.mark.usefixtures("recording")
@pytest.mark.parametrize(
    "create", [lambda: ReVACNN(record="run.mcap"), lambda: ReVACNN(keep_batches=200)]
)
def test_the_callback_says_it_before_the_training(create: Callable[[], ReVACNN]):
    with pytest.raises(MissingPackageError) as raised:
        create()
    assert str(raised.value) == INSTALL


@pytest.mark.usefixtures("recording")
def test_the_button_of_the_page_says_where_to_install_it(tmp_path: Path):
    handler = HandlerWithRun()
    settings = RecordingSettings(tmp_path / "recordings")
    handler.handler._recordings = RunRecordings(settings, {"run": "run-1"}, list)
    reply = handler.handler.handle(Request("r", StartRecording()), handler.batch)
    handler.run.recorder.detach()
    assert isinstance(reply, Refused)
    assert reply.reason == f"{INSTALL} in the environment of the training"
    assert not (tmp_path / "recordings").exists()


@pytest.mark.parametrize("command", [["view", "--replay"], ["export", "--csv", "tables"]])
def test_commands_say_it(
    recording: Path, command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main([*command, str(recording)]) == 1
    assert capsys.readouterr().err == f"revacnn: {INSTALL}\n"
    assert not (tmp_path / "tables").exists()


def test_the_page_of_a_server_says_it(recording: Path):
    assert Recordings([recording]).problem == INSTALL

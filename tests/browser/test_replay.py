"""The page of a recording: like that of a run, without its controls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from revacnn_lightning.protocol.alerts import Alert
from revacnn_lightning.protocol.messages import Message, Status
from tests.browser.test_page import ready
from tests.recording.messages import packed, write
from tests.viewer.fake_training import FakeTraining
from tests.viewer.processes import server

pytestmark = pytest.mark.browser

SECOND = 1_000_000_000


def record(path: Path) -> Path:
    """Record a run of 300 batches that has ended, with an alert."""
    training = FakeTraining("digits")
    messages: list[Message] = [training.structure()]
    for _ in range(300):
        messages.append(training.snapshot())
        training.step += 1
    alert = Alert("nonfinite_loss", 299, "The loss is nan at batch 299.", "", 1000.0)
    messages.append(Status(training.run, "finished", 300, 0, 1000.0, alerts=[alert]))
    return write(path, [packed(one, i * SECOND) for i, one in enumerate(messages)])


def test_a_recording_is_shown_with_its_slider_and_without_controls(
    tmp_path: Path, open_page: Any
) -> None:
    path = record(tmp_path / "run.mcap")
    with server(tmp_path / "runtime", arguments=["--replay", str(path)]) as address:
        page = ready(open_page(address))
        expect(page.locator("#run-state")).to_have_text("recording run.mcap")
        expect(page.locator("#ended .what")).to_contain_text("Nothing here can be edited")
        expect(page.locator("#controls")).to_be_hidden()
        page.wait_for_function("revacnn.parts.timeline.recorded > 200")
        page.locator("#time").fill("10")
        expect(page.locator("#moment")).to_contain_text("of 299")
        alert = page.locator("#alert")
        expect(alert.locator(".what")).to_have_text("The loss is nan at batch 299.")
        alert.get_by_role("button", name="Dismiss the alert").click()
        expect(alert).to_be_hidden()

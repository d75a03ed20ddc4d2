from __future__ import annotations

import time

import torch

from revacnn_lightning.telemetry.recording.timing import TIMED_EVERY, Stopwatch


def test_parts_of_a_batch_add_up():
    stopwatch = Stopwatch()
    for _ in range(2):
        stopwatch.begin(torch.device("cpu"))
        begin = stopwatch.now()
        for _ in range(2):
            part = stopwatch.now()
            time.sleep(0.01)
            stopwatch.add("part", part)
        stopwatch.add("all", begin)
        stopwatch.end()
    batches = stopwatch.read()
    assert len(batches) == 2
    for batch in batches:
        assert 0.02 <= batch["part"] <= batch["all"]
    assert stopwatch.read() == []


class Event:
    """Of a device that is three batches behind."""

    happened = False

    def __init__(self, when: float) -> None:
        self.when = when

    def query(self) -> bool:
        return Event.happened

    def elapsed_time(self, other: Event) -> float:
        return other.when - self.when


def test_events_are_read_when_they_have_happened(monkeypatch):
    stopwatch = Stopwatch()
    moments = iter(range(0, 1000, 10))  # milliseconds
    stopwatch.begin(torch.device("cuda"))
    monkeypatch.setattr(stopwatch, "now", lambda: Event(next(moments)))
    begin = stopwatch.now()
    stopwatch.add("part", begin)
    stopwatch.end()
    assert stopwatch.read() == []
    Event.happened = True
    assert stopwatch.read() == [{"part": 0.01}]


def test_on_a_device_only_some_batches_are_timed(monkeypatch):
    stopwatch = Stopwatch()
    monkeypatch.setattr(torch.cuda, "Event", lambda **_: events.append(Recorded()) or events[-1])
    events: list[Recorded] = []
    for _ in range(2 * TIMED_EVERY):
        stopwatch.begin(torch.device("cuda"))
        stopwatch.add("part", stopwatch.now())
        stopwatch.end()
    assert len(events) == 4
    assert len(stopwatch.read()) == 2


class Recorded(Event):
    """Made by the stopwatch itself; has happened."""

    def __init__(self) -> None:
        super().__init__(0.0)

    def record(self) -> None:
        """Nothing to wait for."""

    def query(self) -> bool:
        return True

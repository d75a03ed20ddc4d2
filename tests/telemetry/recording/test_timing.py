from __future__ import annotations

import time

import torch

from revacnn_lightning.telemetry.recording.timing import TIMING_INTERVAL, Stopwatch


def test_times_of_a_part_add_up():
    stopwatch = Stopwatch()
    for _ in range(2):
        stopwatch.begin_batch(torch.device("cpu"))
        start = stopwatch.now()
        for _ in range(2):
            part = stopwatch.now()
            time.sleep(0.01)
            stopwatch.add("part", part)
        stopwatch.add("all", start)
        stopwatch.end_batch()
    batches = stopwatch.pop_timings()
    assert len(batches) == 2
    for batch in batches:
        assert 0.02 <= batch["part"] <= batch["all"]
    assert stopwatch.pop_timings() == []


class Event:
    """A CUDA event that completes when `is_complete` is set."""

    is_complete = False

    def __init__(self, time: float) -> None:
        self.time = time

    def query(self) -> bool:
        return Event.is_complete

    def elapsed_time(self, other: Event) -> float:
        return other.time - self.time


def test_events_are_read_when_they_have_happened(monkeypatch):
    stopwatch = Stopwatch()
    times = iter(range(0, 1000, 10))  # milliseconds
    stopwatch.begin_batch(torch.device("cuda"))
    monkeypatch.setattr(stopwatch, "now", lambda: Event(next(times)))
    start = stopwatch.now()
    stopwatch.add("part", start)
    stopwatch.end_batch()
    assert stopwatch.pop_timings() == []
    Event.is_complete = True
    assert stopwatch.pop_timings() == [{"part": 0.01}]


def test_only_some_batches_are_timed_on_a_gpu(monkeypatch):
    stopwatch = Stopwatch()
    monkeypatch.setattr(
        torch.cuda, "Event", lambda **_: events.append(CompletedEvent()) or events[-1]
    )
    events: list[CompletedEvent] = []
    for _ in range(2 * TIMING_INTERVAL):
        stopwatch.begin_batch(torch.device("cuda"))
        stopwatch.add("part", stopwatch.now())
        stopwatch.end_batch()
    assert len(events) == 4
    assert len(stopwatch.pop_timings()) == 2


class CompletedEvent(Event):
    """An event that the stopwatch creates; it is complete."""

    def __init__(self) -> None:
        super().__init__(0.0)

    def record(self) -> None:
        """Complete immediately."""

    def query(self) -> bool:
        return True

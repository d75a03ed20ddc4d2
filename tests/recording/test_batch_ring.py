"""The last batches in memory."""

from __future__ import annotations

from revacnn_lightning.recording.batch_ring import BatchRing
from tests.recording.messages import packed, run_messages, snapshot, status, structure


def test_the_last_batches_are_kept_and_the_network_that_they_belong_to():
    ring = BatchRing(3)
    for message in run_messages(10):
        ring.add(message)
    states = [packed(structure()), packed(status())]
    assert ring.messages() == states + run_messages(10)[-3:]
    assert ring.n_batches == 3
    edited = packed(structure(1, (3, 3)), 10**10)
    ring.add(edited)
    for step in range(10, 12):
        ring.add(packed(snapshot(step, version=1, filters=6), step * 10**9))
    assert [one.topic for one in ring.messages()] == [
        "structure", "status", "snapshot", "structure", "snapshot", "snapshot",
    ]  # fmt: skip
    for step in range(12, 14):
        ring.add(packed(snapshot(step, version=1, filters=6)))
    assert ring.messages()[0] == edited


def test_the_memory_is_bounded_by_dropping_batches():
    one = len(packed(snapshot(0)).data)
    ring = BatchRing(1000, max_bytes=10 * one)
    for message in run_messages(100):
        ring.add(message)
    assert 8 <= ring.n_batches <= 10

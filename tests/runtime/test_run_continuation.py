"""Later runs continue earlier ones of the same module, or those of checkpoints."""

from __future__ import annotations

from torch import nn

from revacnn_lightning.runtime.run_continuation import RESUMED, RunContinuation


def edits_of(continuation: RunContinuation) -> list[str]:
    assert continuation.history is not None
    return [edit.title for edit in continuation.history.to_message().edits]


def test_the_next_run_of_a_module_continues_the_one_before():
    module, continuation = nn.Linear(2, 2), RunContinuation(keep_history=True)
    first, history = continuation.begin(module)
    continuation.step = 7
    second, continued = continuation.begin(module)
    assert (second.id, second.first_step) == (first.id, 7)
    assert continued is history


def test_a_run_of_another_module_continues_nothing():
    modules = nn.Linear(2, 2), nn.Linear(2, 2)
    continuation = RunContinuation(keep_history=True)
    first, history = continuation.begin(modules[0])
    second, other = continuation.begin(modules[1])
    assert second.id != first.id
    assert other is not history


def test_a_resumed_run_continues_that_of_the_checkpoint_and_says_so():
    saved, continuation = RunContinuation(keep_history=True), RunContinuation(keep_history=True)
    first, _ = saved.begin(nn.Linear(2, 2))
    continuation.load(saved.state(), 7)
    module = nn.Linear(2, 2)
    second, _ = continuation.begin(module)
    assert (second.id, second.first_step) == (first.id, 7)
    assert edits_of(continuation) == [RESUMED]
    continuation.begin(module)
    assert edits_of(continuation) == [RESUMED]  # once


def test_without_a_history_the_lineage_is_continued_all_the_same():
    saved, continuation = RunContinuation(keep_history=False), RunContinuation(keep_history=False)
    first, history = saved.begin(nn.Linear(2, 2))
    continuation.load(saved.state(), 7)
    assert history is None
    assert continuation.begin(nn.Linear(2, 2))[0].id == first.id

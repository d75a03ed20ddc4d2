"""The images that inspected filters respond to most, within their share of the time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from revacnn_lightning.protocol.inspections import FilterInspection
from revacnn_lightning.protocol.requests import InspectFilter
from revacnn_lightning.runtime.preferred_images import TOTAL_STEPS
from tests.runtime.test_filter_inspection import InspectedRun, Net


def train_until(run: InspectedRun, steps: int, request: InspectFilter) -> FilterInspection:
    """Train batches of half a second until the image has had so many steps."""
    for _ in range(2000):
        run.advance(0.5)
        run.collector.select(request)
        for sent in run.train_batch():
            if sent.preferred is not None and sent.preferred.steps >= steps:
                return sent
    raise AssertionError("no image")


def test_an_image_sharpens_while_the_filter_is_inspected() -> None:
    run = InspectedRun()
    run.train_batch()
    first = train_until(run, 1, InspectFilter("3", 1, ascent=1)).preferred
    last = train_until(run, TOTAL_STEPS, InspectFilter("3", 1, ascent=1)).preferred
    assert first is not None
    assert last is not None
    assert last.response > first.response
    assert last.pixels.shape == (3, 5, 5)
    assert last.total_steps == TOTAL_STEPS


def test_a_larger_number_starts_the_search_again_and_other_clients_do_not_end_it() -> None:
    run = InspectedRun()
    run.train_batch()
    train_until(run, 20, InspectFilter("0", 1, ascent=1))
    again = train_until(run, 1, InspectFilter("0", 1, ascent=2)).preferred
    assert again is not None
    assert again.steps < 20
    for request in (InspectFilter("0", 1), InspectFilter("0", 1, ascent=1)):  # of other clients
        later = train_until(run, again.steps + 1, request).preferred
        assert later is not None
    run.advance(60)  # nobody inspects the filter any more
    run.train_batch()
    run.collector.select(InspectFilter("0", 1))
    (sent,) = run.train_batch()
    assert (sent.preferred, sent.preferred_refusal) == (None, "")


def test_a_filter_that_was_replaced_starts_the_search_again() -> None:
    run = InspectedRun()
    run.train_batch()
    train_until(run, 30, InspectFilter("0", 1, ascent=1))
    with torch.no_grad():
        run.model[0].weight[1] *= -1  # type: ignore[index]
    sent = train_until(run, 1, InspectFilter("0", 1, ascent=1))
    while sent.preferred is not None and sent.preferred.steps >= 30:  # sent before the next steps
        sent = train_until(run, 1, InspectFilter("0", 1, ascent=1))
    assert sent.preferred is not None


def test_the_search_takes_its_share_of_the_time_and_a_paused_run_has_time() -> None:
    calls = 0

    class Slow(Net):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            nonlocal calls
            if images.requires_grad and len(images) == 1:
                calls += 1
                run.advance(0.03)
            return super().forward(images)

    run = InspectedRun(Slow())
    run.train_batch()
    request = InspectFilter("3", 1, ascent=1)
    run.collector.select(request)
    run.train_batch()
    before = calls
    for _ in range(10):
        run.advance(0.01)
        run.train_batch()
    assert calls == before  # 0.03 s are 2 % of 1.5 s
    images = torch.randn(6, 3, 10, 10)
    for _ in range(10):
        run.collector.collect(replace(run.context(lambda: images), is_paused=True))
    assert calls >= before + 10


@pytest.mark.parametrize(
    ("images", "reason"),
    [(None, "holds no images"), (torch.zeros(6, 0, 4), "the input is empty")],
)
def test_why_there_is_no_image_is_said(images: Any, reason: str) -> None:
    run = InspectedRun()
    run.train_batch()
    for _ in range(3):
        run.advance(5)
        run.collector.select(InspectFilter("0", 1, ascent=1))
        sent = run.train_batch(reported=images)
    assert sent[-1].preferred is None
    assert reason in sent[-1].preferred_refusal


def test_a_network_that_cannot_be_run_on_an_image_says_so() -> None:
    run = InspectedRun(forward=None)
    run.train_batch()
    for _ in range(3):
        run.advance(5)
        run.collector.select(InspectFilter("0", 1, ascent=1))
        sent = run.train_batch()
    assert "the option forward=..." in sent[-1].preferred_refusal


def test_a_search_leaves_the_training_bit_identical() -> None:
    runs = [InspectedRun(Net()) for _ in range(2)]
    for run in runs:
        run.train_batch()
    for _ in range(10):
        runs[1].advance(5)
        runs[1].collector.select(InspectFilter("3", 1, ascent=1))
        for run in runs:
            torch.manual_seed(1)
            run.train_batch()
            run.random = torch.rand(())  # type: ignore[attr-defined]
    plain, searched = (run.model.state_dict() for run in runs)
    assert all(torch.equal(value, searched[name]) for name, value in plain.items())
    gradients = [[each.grad for each in run.model.parameters()] for run in runs]
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))  # type: ignore[arg-type]
    assert runs[0].random == runs[1].random  # type: ignore[attr-defined]

"""Runs, batches, plans and replies in a notebook."""

from __future__ import annotations

from revacnn_lightning import Batch
from revacnn_lightning.client import run_html
from revacnn_lightning.protocol.messages import Applied, FilterChange, PlanSummary
from tests.client.simulated_run import SimulatedRun, layer, snapshot, structure

EVIL = "<script>alert(1)</script>"
PLAN = PlanSummary(
    "Remove conv2 · filter 36", [FilterChange("conv2", [36]), FilterChange("bn2", [1, 2], 3)],
    "one per group", 1000, 900, 50, 25, notes=["Adafactor's state is reset"],
)  # fmt: skip


def test_a_plan_shows_sizes_coupled_filters_and_notes():
    html = PLAN._repr_html_()
    for expected in ("Remove conv2 · filter 36", "1,000", "900", "−10.00 %", "conv2: filter 36",
                     "bn2: filters 1, 2, 3 new", "one per group", "Adafactor&#x27;s"):  # fmt: skip
        assert expected in html


def test_an_applied_edit_shows_when_it_happened():
    html = Applied("id", 1200, 3, PLAN, 0.0123, 0.004)._repr_html_()
    assert "Applied before batch 1,200 in 4 ms" in html
    assert "0.0123" in html


def test_names_of_the_training_do_not_become_markup(training: SimulatedRun):
    network = structure(0, layer(EVIL, 0, 1, 2))
    plan = PlanSummary(EVIL, [FilterChange(EVIL, [0])], EVIL, notes=[EVIL])
    batch = Batch(snapshot(0), network)
    training.publish(network, snapshot(0))
    training.end("failed", EVIL)
    list(training.run.batches())
    for shown in (plan, Applied("id", 0, 0, plan), batch, training.run):
        html = shown._repr_html_()
        assert "<script" not in html
        assert "&lt;script&gt;" in html


def test_a_run_shows_its_layers_before_its_first_batch(training: SimulatedRun):
    training.publish(structure())
    training.until(lambda: (training.run.poll(), training.run.structure)[1])
    assert "filters" in training.run._repr_html_()


def test_a_run_shows_the_means_of_its_layers(training: SimulatedRun):
    training.publish(structure(), snapshot(9))
    training.run.wait_for(lambda run: run.batch)
    html = training.run._repr_html_()
    for expected in ("training, batch 9", "mean gradient", "loss 0.1", "10.5"):
        assert expected in html


def test_the_table_of_a_deep_network_is_cut():
    count = run_html.MAX_LAYERS + 7
    network = structure(0, *(layer(f"conv{i}", 0) for i in range(count)))
    html = Batch(snapshot(0, filters=count), network)._repr_html_()
    assert "and 7 more" in html
    assert f"conv{count - 1}" not in html

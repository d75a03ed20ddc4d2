"""How far filters have moved is known across edits: their start goes through the edit with them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from revacnn_lightning import (
    AddFilters,
    InsertLayer,
    Redo,
    Reinitialize,
    RemoveFilters,
    Undo,
)
from revacnn_lightning.runtime.starting_weights import StartingWeights
from revacnn_lightning.runtime.weight_sample import PER_FILTER, WeightSample
from revacnn_lightning.steering import Editor, ForwardProbe
from revacnn_lightning.telemetry import Recorder
from revacnn_lightning.telemetry.conv import filter_rows

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randn(4, 2, 8, 8, generator=GENERATOR)


class Run:
    """A network whose coefficients a test moves, with the start that it should be compared with."""

    def __init__(self, *layers):
        torch.manual_seed(0)
        self.model = nn.Sequential(*layers)
        self.editor = Editor(self.model)
        self.recorder = Recorder(self.model)
        self.starting = StartingWeights(self.model, self.recorder, lambda: self.editor.journal)
        self.starting.keep_present_weights()
        self.start = {n: self.weight(n).clone() for n in self.recorder.layers}

    def weight(self, layer):
        return self.model.get_submodule(layer).weight.detach()

    def train(self, scale=0.1):
        """Move each coefficient, of each filter by another length."""
        with torch.no_grad():
            for layer in self.recorder.layers:
                step = torch.randn(self.weight(layer).shape, generator=GENERATOR)
                self.weight(layer).add_(scale * step)

    def apply(self, request):
        self.editor.apply(request, ForwardProbe([lambda: self.model(IMAGES)]))
        self.recorder.update_structure()
        self.starting.track_edits()

    def check(self):
        """Compare with the slow, obvious result."""
        for layer in self.recorder.layers:
            conv = self.model.get_submodule(layer)
            start, now = (filter_rows(w, conv) for w in (self.start[layer], self.weight(layer)))
            length = start.norm(dim=1)
            known = length > 0
            moved = np.median(((now - start).norm(dim=1)[known] / length[known]).numpy())
            assert self.starting.relative_change(layer) == pytest.approx(float(moved), rel=1e-5), (
                layer
            )


def small():
    return Run(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.ReLU(), nn.Conv2d(5, 3, 1))


def test_filters_and_inputs_that_survive_a_removal_keep_their_start():
    run = small()
    run.train()
    run.apply(RemoveFilters("0", [1]))
    run.start["0"] = run.start["0"][[0, 2, 3]]
    run.start["2"] = run.start["2"][:, [0, 2, 3]]
    run.check()
    run.train()
    run.check()


def test_added_filters_start_where_they_are_added():
    run = small()
    run.train()
    run.apply(AddFilters("0", 2))
    run.start["0"] = torch.cat([run.start["0"], run.weight("0")[4:]])
    run.start["2"] = torch.cat([run.start["2"], run.weight("2")[:, 4:]], 1)
    run.check()
    run.train()
    run.check()


def test_undo_and_redo_restore_the_start():
    run = small()
    run.train()
    before = dict(run.start)
    run.apply(AddFilters("0", 1))
    run.start["0"] = torch.cat([run.start["0"], run.weight("0")[4:]])
    run.start["2"] = torch.cat([run.start["2"], run.weight("2")[:, 4:]], 1)
    after = dict(run.start)
    run.apply(RemoveFilters("2", [0]))
    run.train()
    run.apply(Undo(2))
    run.start = before
    run.check()
    run.train()
    run.apply(Redo(1))
    run.start = after
    run.check()


def test_restarted_filters_start_over():
    run = small()
    run.train()
    run.apply(Reinitialize("0", [1, 2]))
    run.start["0"][1:3] = run.weight("0")[1:3]
    run.start["2"][:, 1:3] = 0  # their outgoing weights
    run.check()
    run.train()
    run.check()
    run.apply(Undo())
    assert run.starting.relative_change("0") > 0


def test_an_inserted_layer_starts_when_it_is_inserted():
    run = small()
    run.train()
    run.apply(InsertLayer("0"))
    inserted = set(run.recorder.layers) - set(run.start)
    assert inserted
    assert all(run.starting.relative_change(layer) == 0 for layer in inserted)
    run.apply(Undo())
    run.check()


@pytest.mark.parametrize(
    "second",
    [
        nn.Conv2d(4, 6, 3, groups=2),
        nn.Conv2d(4, 4, 3, groups=4),
        nn.ConvTranspose2d(4, 6, 3),
        nn.ConvTranspose2d(4, 6, 3, groups=2),
    ],
    ids=["grouped", "depthwise", "transposed", "transposed grouped"],
)
def test_layouts_of_weights(second):
    run = Run(
        nn.Conv2d(2, 4, 3), nn.ReLU(), second, nn.ReLU(), nn.Conv2d(second.out_channels, 3, 1)
    )
    run.apply(AddFilters("0", 4))
    assert [run.starting.relative_change(layer) for layer in run.recorder.layers] == [0, 0, 0]
    run.apply(Undo())
    run.train()
    run.check()
    run.apply(RemoveFilters("0", [0, 2]))
    run.apply(Undo())
    run.check()


def test_a_sample_of_wide_filters_stays_even():
    conv = nn.Conv2d(64, 32, 3)
    sample = WeightSample.of(conv.weight, conv)
    assert len(sample.places) == PER_FILTER * 32
    assert len(np.unique(sample.places)) == len(sample.places)
    with torch.no_grad():
        start = conv.weight.clone()
        conv.weight += 0.02 * torch.randn(conv.weight.shape, generator=GENERATOR)
        distance = (conv.weight - start).flatten(1).norm(dim=1) / start.flatten(1).norm(dim=1)
    assert sample.relative_change(conv.weight, conv) == pytest.approx(
        float(distance.median()), rel=0.1
    )


def test_a_filter_that_reads_more_is_not_judged_by_its_old_inputs_alone():
    run = Run(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3))
    run.train(0.2)
    run.apply(AddFilters("0", 24))
    run.train(0.2)
    moved = run.weight("2").clone()
    start = torch.cat([run.start["2"], torch.zeros(6, 24, 3, 3)], 1)
    distance = (moved - start).flatten(1).norm(dim=1) / start.flatten(1).norm(dim=1)
    sample = run.starting._samples["2"]
    assert len(sample.places) <= 1.4 * PER_FILTER * 6
    assert run.starting.relative_change("2") == pytest.approx(float(distance.median()), rel=0.25)


def test_the_start_is_unknown_without_a_first_batch():
    run = small()
    starting = StartingWeights(run.model, run.recorder, lambda: run.editor.journal)
    run.apply(RemoveFilters("0", [1]))
    starting.track_edits()
    assert math.isnan(starting.relative_change("0"))


@pytest.mark.parametrize("width", [4, 6], ids=["of one shape", "of another shape"])
def test_the_start_of_a_layer_was_that_of_the_one_that_the_users_code_replaced(width):
    """An edit of another width then failed with an `IndexError`."""
    run = small()
    run.train()
    torch.manual_seed(1)
    run.model[0] = nn.Conv2d(2, width, 3)
    run.model[2] = nn.Conv2d(width, 5, 3)
    run.editor.adopt_replaced_layers()
    run.recorder.update_structure()
    run.starting.track_edits()
    run.start |= {layer: run.weight(layer).clone() for layer in ("0", "2")}
    run.check()
    run.train()
    run.check()
    run.apply(RemoveFilters("0", [1]))
    kept = [index for index in range(width) if index != 1]
    run.start |= {"0": run.start["0"][kept], "2": run.start["2"][:, kept]}
    run.check()

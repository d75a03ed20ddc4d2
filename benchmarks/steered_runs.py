"""Whether the change of the loss that a plan predicts is the one that its edit brings.

``python -m benchmarks.steered_runs [--runs N] [--seed N] [--json FILE] [--check] [--quick]``

Twenty trainings of the networks of `benchmarks.advice`, on scikit-learn's digits with AdamW, are
steered: every 40 steps, from the first step at which the mean training loss has fallen below 1.5,
an edit removes filters of a random layer, in turn the cheapest by the live ranking and random ones,
one to four of them. The training goes on with the edited network. The plan predicts the change of
the loss from the images of the last 8 batches, as that of a run does. Right after the edit it is
measured twice, in evaluation mode:

- same images: those of the last 8 batches.
- held out: 256 images that are never trained with.

A prediction is right if it is within a factor of 2 of what was measured, or within ±0.01. The
columns show the shares of right predictions, and the median of what was measured on held-out
images.
"""

from __future__ import annotations

import math
import random
import sys
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.advice import (
    AHEAD,
    DECAY,
    EARLY,
    RATE,
    SMOOTHING,
    TOLERANCE,
    Batch,
    eval_loss,
    load_images,
    make_loss_replay,
)
from benchmarks.advice_networks import NETWORKS
from benchmarks.report import Report, argument_parser, progress
from revacnn_lightning import EditRefusedError, RemoveFilters
from revacnn_lightning.protocol.prices import RemovalPrice
from revacnn_lightning.runtime.price_estimates import (
    RecentFilterPrices,
    root_sum_square_of_coupled_prices,
)
from revacnn_lightning.runtime.removal_prices import LossChangeMeasurer
from revacnn_lightning.steering import Editor, ForwardProbe
from revacnn_lightning.telemetry import Recorder

RUNS, EDITS, EDIT_EVERY = 20, 10, 40
MOST_FILTERS, FEWEST_LEFT = 4, 4
MIN_RIGHT = 0.8  # of all predictions


@dataclass(frozen=True)
class EditOutcome:
    """What was predicted for an edit, and what it brought: changes of the loss."""

    predicted: float
    same_images: float
    held_out: float


class SteeredRun:
    """A training whose network loses filters."""

    def __init__(self, name: str, seed: int) -> None:
        torch.manual_seed(seed)
        self.batches, self.unseen = load_images(seed)
        self.model = NETWORKS[name]()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=RATE, weight_decay=DECAY)
        self.editor = Editor(self.model, [self.optimizer])
        self.recorder = Recorder(self.model, statistics=["price"])
        self.random = random.Random(f"{name} {seed}")
        self.recent: deque[Batch] = deque(maxlen=AHEAD)
        self.window = RecentFilterPrices()

    def outcomes(self) -> Generator[EditOutcome]:
        """Train, and yield the outcome of each edit."""
        self.recorder.attach()
        try:
            yield from self._steer()
        finally:
            self.recorder.detach()

    def _steer(self) -> Iterator[EditOutcome]:
        level, next_edit, found = 0.0, 0, 0
        for step, batch in enumerate(self.batches):
            loss = self._train_on(batch)
            level = SMOOTHING * level + (1 - SMOOTHING) * loss if step else loss
            if level > EARLY and not next_edit:
                continue
            next_edit = next_edit or step + AHEAD
            if step < next_edit:
                continue
            next_edit = step + EDIT_EVERY
            if found == EDITS or not self._wide_layers():
                break
            outcome = self._edit(step, is_random=bool(found % 2))
            if outcome is not None:
                yield outcome
                found += 1

    def _train_on(self, batch: Batch) -> float:
        self.optimizer.zero_grad()
        self.recorder.begin_batch()
        loss = F.cross_entropy(self.model(batch[0]), batch[1])
        loss.backward()
        self.optimizer.step()
        recording = self.recorder.end_batch()
        assert recording is not None
        self.window.add(recording.values[0])
        self.layers, self.widths = recording.layers, recording.widths
        self.recent.append(batch)
        return loss.item()

    def _edit(self, step: int, *, is_random: bool) -> EditOutcome | None:
        """Remove filters of a random layer; return None if that is refused."""
        model, recent = self.model, list(self.recent)
        probe = ForwardProbe([lambda: model(recent[0][0][:2])])
        request = self._choose(probe, is_random=is_random)
        try:
            plan = self.editor.plan(request, probe)
        except EditRefusedError:
            return None
        price = LossChangeMeasurer(self.editor, make_loss_replay(model, recent)).measure(plan, step)
        assert isinstance(price, RemovalPrice), price
        images, labels = (torch.cat(each) for each in zip(*recent, strict=True))
        before = [eval_loss(model, batch) for batch in ((images, labels), self.unseen)]
        self.editor.apply(request, probe)
        after = [eval_loss(model, batch) for batch in ((images, labels), self.unseen)]
        self.recorder.update_structure()
        self.window = RecentFilterPrices()
        return EditOutcome(price.change, after[0] - before[0], after[1] - before[1])

    def _wide_layers(self) -> list[int]:
        """Return the layers that can lose filters."""
        least = MOST_FILTERS + FEWEST_LEFT
        return [index for index, width in enumerate(self.widths) if width >= least]

    def _choose(self, probe: ForwardProbe, *, is_random: bool) -> RemoveFilters:
        """Choose one to four filters of a layer that has enough of them."""
        groups = self.editor.channel_groups(probe)
        prices = root_sum_square_of_coupled_prices(
            self.window.root_mean_square(), self.layers, self.widths, groups, self.model
        )
        by_layer = np.split(prices, np.cumsum(self.widths)[:-1])
        index = self.random.choice(self._wide_layers())
        layer, own = self.layers[index], by_layer[index]
        count = self.random.randint(1, MOST_FILTERS)
        cheapest = np.argsort(own)[:count].tolist()
        chosen = self.random.sample(range(len(own)), count) if is_random else cheapest
        return RemoveFilters(layer, sorted(chosen))


def is_prediction_right(predicted: float, measured: float) -> bool:
    """Return whether a prediction is within a factor of 2, or within `TOLERANCE`."""
    ratio = predicted / measured if measured else math.inf
    return abs(predicted - measured) <= TOLERANCE or 0.5 <= ratio <= 2


def main() -> int:
    parser = argument_parser(__doc__, quick="three runs")
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    report = Report(
        "Predicted and measured changes of the loss by edits of steered runs",
        ("network", "seed", "edits", "same images", "held out", "median change"),
    )
    same_images: list[bool] = []
    held_out: list[bool] = []
    names = list(NETWORKS)
    for run in progress(range(3 if options.quick else options.runs), "steering"):
        name, seed = names[run % len(names)], options.seed + run
        outcomes = list(SteeredRun(name, seed).outcomes())
        own = [is_prediction_right(each.predicted, each.same_images) for each in outcomes]
        other = [is_prediction_right(each.predicted, each.held_out) for each in outcomes]
        middle = median(each.held_out for each in outcomes)
        report.add_row(name, seed, len(outcomes), np.mean(own), np.mean(other), middle)
        report.save(options.json)
        same_images += own
        held_out += other
    report.add_note(f"{len(held_out)} edits")
    report.check_at_least("right, same images", float(np.mean(same_images)), MIN_RIGHT)
    report.check_at_least("right, held-out images", float(np.mean(held_out)), MIN_RIGHT)
    return report.finish(options.json, options.check)


if __name__ == "__main__":
    sys.exit(main())

"""Whether what the page says of filters is true: the price of removing them, and verdicts.

``python -m benchmarks.advice [--json FILE] [--check] [--quick] [--seed N]``

Six small networks train on scikit-learn's digits with AdamW, batches of 32. *Early* is the first
step at which the mean training loss has fallen below 1.5 (of 2.3 at the start), *late* the first
one below 0.3, or step 3000. At both, every filter of every conv is removed from a copy of the
network by the editor, one at a time, and the change of the loss on 256 held-out images is the truth
that prices are compared with. Spearman's rank correlation over all filters of a network:

- live: the statistic ``price`` of the last 10 batches, of coupled filters together.
- fresh: the same, compared with the true change in a copy whose batch norms have the statistics of
  the next 8 training batches, with the weights of now. Running statistics are those of older
  weights: while the weights change fast, the network in evaluation mode is another one than the one
  that trains, and has another loss. The live ranking is of the one that trains.
- confirmed: forwards of 256 images, those of the next 8 training batches, with and without the
  filter: what a plan states once as many batches have been trained.
- one batch: the same with the 32 images of one batch, as in the first plan of a run.
- activation, norm: the statistics that the page has shown so far, for comparison.
- sign: share of filters whose confirmed change has the sign of the true one, of those whose true
  change exceeds 0.01.
- within error: share of true changes within twice the standard error that the price states, or
  ±0.01. (The error is that of the images; held-out images may also be harder.)

Three more checks. *Healthy*: the same networks in the first 3 epochs from PyTorch's own
initialization, with AdamW and with SGD, three seeds each; every 10 steps each layer is judged, and
restless and degenerate layers, vanishing and exploding gradients and NaN are complaints. Silent and
dormant filters are none: such small networks have some; their share is printed. *Dead for good*: a
filter of each layer is silenced in the middle of a training, certified after it, and removed; see
`benchmarks.advice_removals`. *Patterns*: whether clusters say which networks are badly trained; see
`benchmarks.advice_patterns`.

The seed decides the initializations, the batches and the held-out images.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median

import numpy as np
import torch
from scipy.stats import spearmanr
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.advice_checks import check_dead_filter_removals, check_healthy_trainings
from benchmarks.advice_networks import NETWORKS
from benchmarks.advice_patterns import check_patterns_tell_accuracy
from benchmarks.report import Report, argument_parser, progress
from revacnn_lightning import EditRefusedError, RemoveFilters
from revacnn_lightning.protocol.prices import RemovalPrice
from revacnn_lightning.runtime.loss_replay import LossReplay
from revacnn_lightning.runtime.price_estimates import (
    RecentFilterPrices,
    root_sum_square_of_coupled_prices,
)
from revacnn_lightning.runtime.removal_prices import LossChangeMeasurer
from revacnn_lightning.steering import Editor, ForwardProbe
from revacnn_lightning.telemetry import Recorder

BATCH, HELD_OUT, PIXELS = 32, 256, 16
EARLY, LATE, MAX_STEPS = 1.5, 0.3, 3000
AHEAD = 8  # batches whose images confirm a price
SMOOTHING = 0.9  # of the training loss
RATE, DECAY = 2e-3, 0.02
RECORDED = ("activation", "weight_norm", "price")
TOLERANCE = 0.01  # of a change of the loss

EPOCH = (1797 - HELD_OUT) // BATCH  # batches
HEALTHY_EPOCHS = 3
MIN_LIVE, MEDIAN_LIVE = 0.5, 0.7
MIN_CONFIRMED, MEDIAN_CONFIRMED = 0.75, 0.85

Batch = tuple[Tensor, Tensor]


def load_images(seed: int = 0) -> tuple[list[Batch], Batch]:
    """Return training batches, and the held-out images, (B, 1, 16, 16)."""
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    images = F.interpolate(images, size=(PIXELS, PIXELS), mode="bilinear")
    labels = torch.tensor(digits.target)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(images), generator=generator)
    held_out, rest = order[:HELD_OUT], order[HELD_OUT:]
    batches = []
    for _ in range(MAX_STEPS):
        chosen = rest[torch.randint(len(rest), (BATCH,), generator=generator)]
        batches.append((images[chosen], labels[chosen]))
    return batches, (images[held_out], labels[held_out])


@dataclass
class TrainingMoment:
    """A network at one step of its training.

    ``recorded`` has the mean of each recorded statistic, by layer.
    """

    stage: str
    step: int
    model: nn.Module
    batches: list[Batch]  # the next ones
    recorded: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)

    @property
    def sample_images(self) -> Tensor:
        """Two images, to trace and to verify with."""
        return self.batches[0][0][:2]


def train_to_moments(model: nn.Module, batches: list[Batch]) -> Iterator[TrainingMoment]:
    """Train a network; yield it early and late."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
    recorder = Recorder(model, statistics=RECORDED)
    recorder.attach()
    windows = {name: RecentFilterPrices() for name in RECORDED}
    limits = [("early", EARLY), ("late", LATE)]
    level = None
    for step, (images, labels) in enumerate(batches):
        optimizer.zero_grad()
        recorder.begin_batch()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        recording = recorder.end_batch()
        assert recording is not None
        for name, values in zip(recording.names, recording.values, strict=True):
            windows[name].add(values)
        level = loss.item() if level is None else SMOOTHING * level + (1 - SMOOTHING) * loss.item()
        is_last = step == len(batches) - 1 - AHEAD
        while limits and (level < limits[0][1] or is_last):
            recorded = {
                name: _by_layer(window.root_mean_square(), recording.layers, recording.widths)
                for name, window in windows.items()
            }
            stage = limits.pop(0)[0]
            yield TrainingMoment(
                stage, step + 1, model, batches[step + 1 : step + 1 + AHEAD], recorded
            )
        if not limits:
            break
    recorder.detach()


def _by_layer(values: np.ndarray, layers: list[str], widths: list[int]) -> dict[str, np.ndarray]:
    return dict(zip(layers, np.split(values, np.cumsum(widths)[:-1]), strict=True))


def eval_loss(model: nn.Module, batch: Batch) -> float:
    """Return the loss in evaluation mode."""
    was_training = model.training
    model.eval()
    with torch.no_grad():
        loss = F.cross_entropy(model(batch[0]), batch[1]).item()
    model.train(was_training)
    return loss


@dataclass
class MeasuredPrices:
    """The prices of all filters of a network that can be removed."""

    true: list[float] = field(default_factory=list)
    fresh_true: list[float] = field(default_factory=list)
    confirmed: list[RemovalPrice] = field(default_factory=list)
    one_batch: list[float] = field(default_factory=list)
    live: list[float] = field(default_factory=list)
    activation: list[float] = field(default_factory=list)
    weight_norm: list[float] = field(default_factory=list)

    def correlation_with_truth(self, values: list[float]) -> float:
        """Return Spearman's rank correlation with the truth."""
        return float(spearmanr(self.true, values)[0])

    def fresh_correlation(self) -> float:
        """Return that of the live ranking with the truth for fresh batch norms."""
        return float(spearmanr(self.fresh_true, self.live)[0])

    def right_sign_share(self) -> float:
        """Return for how many filters the confirmed change has the true sign."""
        large = [
            (true > 0) == (price.change > 0)
            for true, price in zip(self.true, self.confirmed, strict=True)
            if abs(true) > TOLERANCE
        ]
        return float(np.mean(large)) if large else float("nan")

    def within_error_share(self) -> float:
        """Return how many true changes are within twice the stated error, or `TOLERANCE`."""
        pairs = zip(self.true, self.confirmed, strict=True)
        return float(np.mean([abs(t - p.change) <= max(TOLERANCE, 2 * p.error) for t, p in pairs]))


def measure_prices(moment: TrainingMoment, held_out: Batch) -> MeasuredPrices:
    """Return the prices of all filters, and the truth."""
    model = moment.model
    editor, probe = Editor(model), ForwardProbe([lambda: model(moment.sample_images)])
    groups = editor.channel_groups(probe)
    pricers = [
        LossChangeMeasurer(editor, make_loss_replay(model, moment.batches[:count]))
        for count in (AHEAD, 1)
    ]
    layers, widths = list(moment.recorded["price"]), []
    widths = [len(moment.recorded["price"][layer]) for layer in layers]
    own = np.concatenate([moment.recorded["price"][layer] for layer in layers])
    live = _by_layer(
        root_sum_square_of_coupled_prices(own, layers, widths, groups, model), layers, widths
    )
    fresh = copy_with_fresh_norms(model, moment.batches)
    base, fresh_base = eval_loss(model, held_out), eval_loss(fresh, held_out)
    prices = MeasuredPrices()
    for layer, width in zip(layers, widths, strict=True):
        for index in range(width):
            request = RemoveFilters(layer, [index])
            try:
                plan = editor.plan(request, probe)
            except EditRefusedError:
                continue
            price, of_one_batch = (pricer.measure(plan, moment.step) for pricer in pricers)
            assert isinstance(price, RemovalPrice), price
            assert isinstance(of_one_batch, RemovalPrice), of_one_batch
            prices.confirmed.append(price)
            prices.one_batch.append(of_one_batch.change)
            prices.true.append(
                eval_loss(copy_without_filters(model, request, moment), held_out) - base
            )
            without = eval_loss(copy_without_filters(fresh, request, moment), held_out)
            prices.fresh_true.append(without - fresh_base)
            prices.live.append(float(live[layer][index]))
            prices.activation.append(float(moment.recorded["activation"][layer][index]))
            prices.weight_norm.append(float(moment.recorded["weight_norm"][layer][index]))
    return prices


def make_loss_replay(model: nn.Module, batches: Sequence[Batch]) -> LossReplay:
    """Return what computes the loss of these batches; the network stays as it is."""
    replay = LossReplay(model)
    state = copy.deepcopy(model.state_dict())  # the recorded steps update batch norms
    for step, (images, labels) in enumerate(batches):

        def run(images: Tensor = images, labels: Tensor = labels) -> Tensor:
            return F.cross_entropy(model(images), labels)

        replay.record((images, labels), 0, step, run)
        replay.finish_recording()
    model.load_state_dict(state)
    return replay


def copy_with_fresh_norms(model: nn.Module, batches: Sequence[Batch]) -> nn.Module:
    """Return a copy whose batch norms have the statistics of these batches."""
    fresh = copy.deepcopy(model).train()
    for module in fresh.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the mean over all batches
    with torch.no_grad():
        for images, _ in batches:
            fresh(images)
    return fresh


def copy_without_filters(
    model: nn.Module, request: RemoveFilters, moment: TrainingMoment
) -> nn.Module:
    """Return a copy of a network without these filters."""
    edited = copy.deepcopy(model)
    Editor(edited).apply(request, ForwardProbe([lambda: edited(moment.sample_images)]))
    return edited


def main(arguments: list[str] | None = None) -> int:
    parser = argument_parser(__doc__, quick="two networks, early only")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    report = Report(
        "Prices against the true change of the loss: Spearman's rank correlation",
        ("network", "stage", "step", "filters", "live", "fresh", "confirmed", "one batch",
         "activation", "norm", "sign", "within error", "median true change"),
    )  # fmt: skip
    batches, held_out = load_images(options.seed)
    names = list(NETWORKS)[:2] if options.quick else list(NETWORKS)
    live, fresh, confirmed, one_batch = [], [], [], []
    for name in progress(names, "networks"):
        torch.manual_seed(options.seed)
        for moment in train_to_moments(NETWORKS[name](), batches):
            prices = measure_prices(moment, held_out)
            live.append(prices.correlation_with_truth(prices.live))
            fresh.append(prices.fresh_correlation())
            confirmed.append(
                prices.correlation_with_truth([price.change for price in prices.confirmed])
            )
            one_batch.append(prices.correlation_with_truth(prices.one_batch))
            report.add_row(
                name, moment.stage, moment.step, len(prices.true), live[-1], fresh[-1],
                confirmed[-1],
                one_batch[-1],
                prices.correlation_with_truth(prices.activation),
                prices.correlation_with_truth(prices.weight_norm),
                prices.right_sign_share(), prices.within_error_share(), median(prices.true),
            )  # fmt: skip
            report.save(options.json)
            if options.quick:
                break
    report.add_note(
        f"one batch: {min(one_batch):.2f} to {max(one_batch):.2f}, median {median(one_batch):.2f}"
    )
    report.check_at_least("live, median", median(live), MEDIAN_LIVE)
    report.check_at_least("live, each", min(live), MIN_LIVE)
    report.check_at_least("live, fresh batch norms, median", median(fresh), MEDIAN_LIVE)
    report.check_at_least("live, fresh batch norms, each", min(fresh), MIN_LIVE)
    report.check_at_least("confirmed, median", median(confirmed), MEDIAN_CONFIRMED)
    report.check_at_least("confirmed, each", min(confirmed), MIN_CONFIRMED)
    check_healthy_trainings(report, names, batches[: HEALTHY_EPOCHS * EPOCH], options.seed)
    check_dead_filter_removals(report, names, batches, held_out, options.seed)
    if not options.quick:
        check_patterns_tell_accuracy(report, batches, held_out, options.seed)
    return report.finish(options.json, options.check)


if __name__ == "__main__":
    sys.exit(main())

"""Whether filters that are added in the middle of a training live, and how fast they catch up.

``python -m benchmarks.newborn [--json FILE] [--check] [--quick]``

A small network with or without batch norm trains on scikit-learn's digits for 80 steps. Then its
second conv gets 4 filters more (20 -> 24), and it trains for 100 steps more. It is compared with
the network of the final shape, trained from scratch for all 180 steps (``scratch``), and with the
network that never grew (``none``). Every row is the mean of 10 seeds.

- alive: share of filters with an output above zero on 256 images, of the new filters, and of the
  filters of a fresh layer (the same conv of ``scratch``) at the same age.
- gradient: mean absolute gradient of the weights of the new filters in the last 10 steps, divided
  by that of the incumbents (the filters that were there before).
- update to incumbents, update to fresh: mean absolute change of a new weight in each of the first
  20 steps, in the conv itself and in the columns that read the new filters (the larger ratio),
  divided by that of the incumbents in the same step, and by that of ``scratch`` at the same age.
  The largest and the mean ratio of the 20 steps. The largest ratio to incumbents must not exceed
  1.5; the ratio to fresh is for information.
- exact: the output of the network and the weights of the incumbents are the same after the edit.
- loss: on 512 held-out images at the end.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache, partial
from statistics import fmean
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.report import Report, argument_parser, progress
from revacnn_lightning import AddFilters
from revacnn_lightning.steering import Editor, ForwardProbe

BEFORE, AFTER = 80, 100  # steps before and after filters are added
OLD, NEW = 20, 4  # filters
FIRST = 20  # the updates that are compared
LAST = 10  # the steps whose gradients are compared
BATCH, HELD_OUT = 32, 512
SEEDS, QUICK_SEEDS = 10, 2

MAX_RATIO = 1.5  # of the first updates of new filters to those of incumbents
# Of the gradient of incumbents. The other optimizers divide by the gradient's size: their new
# filters cannot starve.
MIN_GRADIENT = 0.3
STARVING = {"SGD", "momentum"}

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "SGD": partial(torch.optim.SGD, lr=0.1),
    "momentum": partial(torch.optim.SGD, lr=0.02, momentum=0.9),
    "Adam": partial(torch.optim.Adam, lr=2e-3),
    "AdamW": partial(torch.optim.AdamW, lr=2e-3),
    "RMSprop": partial(torch.optim.RMSprop, lr=1e-3),
}


class GrowingNet(nn.Module):
    """Three convs with ReLU, with or without batch norm; ``conv2`` is the one that grows."""

    def __init__(self, width: int, *, norm: bool) -> None:
        super().__init__()

        def block(conv: nn.Conv2d) -> nn.Sequential:
            normalized = [nn.BatchNorm2d(conv.out_channels)] if norm else []
            return nn.Sequential(*normalized, nn.ReLU(), nn.MaxPool2d(2))

        self.conv1 = nn.Conv2d(1, 16, 3, padding=1, bias=not norm)
        self.after1 = block(self.conv1)
        self.conv2 = nn.Conv2d(16, width, 3, padding=1, bias=not norm)
        self.after2 = block(self.conv2)
        self.conv3 = nn.Conv2d(width, 20, 3, padding=1, bias=not norm)
        self.after3 = block(self.conv3)
        self.fc = nn.Linear(80, 10)

    def features(self, images: Tensor) -> Tensor:
        """Return the output of conv2 behind its ReLU, pooled."""
        return self.after2(self.conv2(self.after1(self.conv1(images))))

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.after3(self.conv3(self.features(images))).flatten(1))


@dataclass
class Training:
    """A network in training. ``updates``: mean absolute change of weights, one row per step."""

    model: GrowingNet
    optimizer: torch.optim.Optimizer
    batches: list[tuple[Tensor, Tensor]]
    step: int = 0
    updates: list[Tensor] = field(default_factory=list)
    gradients: list[float] = field(default_factory=list)

    def train(self, steps: int, first_new: int = 0) -> None:
        """Train; record the updates and gradients of filters from ``first_new`` and before it."""
        for _ in range(steps):
            before = [w.detach().clone() for w in self._weights()]
            images, labels = self.batches[self.step]
            self.optimizer.zero_grad()
            F.cross_entropy(self.model(images), labels).backward()
            self.optimizer.step()
            self.step += 1
            changes = zip(self._weights(), before, strict=True)
            self.updates.append(_by_age([(w.detach() - b).abs() for w, b in changes], first_new))
            if first_new:
                rows = self.model.conv2.weight.grad.abs().flatten(1).mean(1)
                old = float(rows[:first_new].mean())
                self.gradients.append(float(rows[first_new:].mean()) / old if old else 0.0)

    def _weights(self) -> tuple[Tensor, Tensor]:
        """Return the weights of conv2 and those that read it, filters first."""
        return self.model.conv2.weight, self.model.conv3.weight.transpose(0, 1)

    def alive_filters(self) -> Tensor:
        """Return whether each filter of conv2 is above zero for any held-out image."""
        return self._evaluate(self.model.features)[:256].amax((0, 2, 3)) > 0

    def held_out_loss(self) -> float:
        labels = load_digit_images()[1][:HELD_OUT]
        return float(F.cross_entropy(self._evaluate(self.model), labels))

    def _evaluate(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        self.model.eval()
        with torch.no_grad():
            output = function(load_digit_images()[0][:HELD_OUT])
        self.model.train()
        return output


def _by_age(changes: list[Tensor], first_new: int) -> Tensor:
    """Return (2 weights, incumbents and new): the mean absolute change."""
    old = [c[: first_new or None].mean() for c in changes]
    new = [c[first_new:].mean() for c in changes]
    return torch.stack([torch.stack(old), torch.stack(new)], 1)


@lru_cache
def load_digit_images() -> tuple[Tensor, Tensor]:
    """Return all digits as (1797, 1, 16, 16) images with values 0 to 1, and their labels."""
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
    return F.interpolate(images, size=(16, 16), mode="bilinear"), torch.tensor(data.target)


def new_training(name: str, norm: bool, width: int, seed: int) -> Training:
    """Return a training at its first step; its batches depend on the seed only."""
    generator = torch.Generator().manual_seed(seed)
    images, labels = load_digit_images()
    batches = []
    for _ in range(BEFORE + AFTER):
        at = torch.randint(HELD_OUT, len(images), (BATCH,), generator=generator)
        noise = torch.randn(BATCH, 1, 16, 16, generator=generator)
        batches.append((images[at] + 0.1 * noise, labels[at]))
    torch.manual_seed(seed)
    model = GrowingNet(width, norm=norm)
    return Training(model, OPTIMIZERS[name](model.parameters()), batches)


def measure_seed(name: str, norm: bool, seed: int) -> dict[str, Any]:
    """Return what one seed gives: a number per column, or the ratios of the first updates."""
    none = new_training(name, norm, OLD, seed)
    none.train(BEFORE + AFTER)
    scratch = new_training(name, norm, OLD + NEW, seed)
    scratch.train(AFTER)
    fresh_alive = float(scratch.alive_filters().float().mean())
    scratch.train(BEFORE)
    grown = new_training(name, norm, OLD, seed)
    grown.train(BEFORE)
    survivors = grown.model.conv2.weight.detach().clone()
    editor = Editor(grown.model, [grown.optimizer])
    probe = ForwardProbe([partial(grown.model, grown.batches[BEFORE][0][:4])])
    change = editor.apply(AddFilters("conv2", NEW), probe).output_change
    kept = torch.equal(survivors, grown.model.conv2.weight[:OLD])
    del grown.updates[:]
    grown.train(AFTER, first_new=OLD)
    editor.close()
    first = torch.stack(grown.updates[:FIRST])  # step, weight, (incumbents, new)
    fresh = torch.stack(scratch.updates[:FIRST])[..., 1]
    return {
        "alive": float(grown.alive_filters()[OLD:].float().mean()),
        "fresh alive": fresh_alive,
        "gradient": fmean(grown.gradients[-LAST:]),
        "to incumbents": first[..., 1] / first[..., 0],
        "to fresh": first[..., 1] / fresh,
        "loss": grown.held_out_loss(),
        "scratch": scratch.held_out_loss(),
        "none": none.held_out_loss(),
        "exact": kept and change == 0.0,
    }


def mean_row(name: str, norm: bool, results: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the means over the seeds."""
    mean = {
        key: fmean(r[key] for r in results)
        for key in ("alive", "fresh alive", "gradient", "loss", "scratch", "none")
    }
    values: dict[str, Any] = {"net": "batch norm" if norm else "plain", "optimizer": name}
    values |= {key: mean[key] for key in ("alive", "fresh alive", "gradient")}
    for key in ("to incumbents", "to fresh"):
        ratios = torch.stack([r[key] for r in results]).mean(0).amax(1)  # of each step
        values[f"update {key}"] = f"{ratios.max():.2f} ({ratios.mean():.2f})"
        values[key] = float(ratios.max())
    values["exact"] = all(r["exact"] for r in results)
    return values | {key: mean[key] for key in ("loss", "scratch", "none")}


COLUMNS = ["net", "optimizer", "alive", "fresh alive", "gradient", "update to incumbents",
           "update to fresh", "exact", "loss", "scratch", "none"]  # fmt: skip


def add_checks(report: Report, values: dict[str, Any]) -> None:
    """Add the checks of one row."""
    case = f"{values['optimizer']}, {values['net']}"
    report.check_at_least(f"{case}: alive", values["alive"], values["fresh alive"])
    if values["optimizer"] in STARVING:
        report.check_at_least(f"{case}: gradient", values["gradient"], MIN_GRADIENT)
    report.check_at_most(f"{case}: first updates", values["to incumbents"], MAX_RATIO)
    report.add_check(f"{case}: function and survivors kept", values["exact"], True, values["exact"])


def main() -> int:
    parser = argument_parser(__doc__, quick=f"{QUICK_SEEDS} seeds instead of {SEEDS}")
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds = QUICK_SEEDS if options.quick else SEEDS
    report = Report(
        f"Filters added after {BEFORE} steps, {AFTER} steps later; mean of {seeds} seeds", COLUMNS
    )
    cases = [(name, norm) for norm in (False, True) for name in OPTIMIZERS]
    for name, norm in progress(cases, "newborn"):
        values = mean_row(name, norm, [measure_seed(name, norm, seed) for seed in range(seeds)])
        report.add_row(**{column: values[column] for column in COLUMNS})
        add_checks(report, values)
    report.add_note("updates: the largest ratio of the first 20 steps (and their mean)")
    return report.finish(options.json, options.check)


if __name__ == "__main__":
    sys.exit(main())

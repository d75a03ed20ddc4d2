"""Whether surviving filters train exactly as in a network that was never edited.

``python -m benchmarks.optimizers [--json FILE] [--check]``

Two equal networks with a dead filter, which no gradient reaches or leaves, train for ten steps in
double precision. Then the dead filter is removed from one of them, or a filter is added to it and
killed, and both train for ten more steps on the same data. The table shows the largest relative
distance between the surviving weights of the two.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.report import Report, argument_parser, progress
from revacnn_lightning import AddFilters, RemoveFilters
from revacnn_lightning.steering import Editor, ForwardProbe

MAX_DISTANCE = 1e-12
MIN_EXACT = 12  # optimizer classes
STEPS = 10  # before the edit, and again after it
OPTIMIZERS: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"lr": 0.05}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-3}),
    ("Adam", {"lr": 0.01}),
    ("Adam", {"lr": 0.01, "amsgrad": True}),
    ("AdamW", {"lr": 0.01}),
    ("RMSprop", {"lr": 0.01, "centered": True, "momentum": 0.9}),
    ("Adagrad", {"lr": 0.01, "initial_accumulator_value": 0.1}),
    ("Adadelta", {"lr": 0.1}),
    ("Adamax", {"lr": 0.01}),
    ("NAdam", {"lr": 0.01}),
    ("RAdam", {"lr": 0.01}),
    ("ASGD", {"lr": 0.05, "t0": 2}),
    ("Rprop", {"lr": 0.01}),
    # LBFGS sums over the whole network, in a different order after an edit. Its default of 20 inner
    # iterations per step amplifies that rounding error a millionfold on this problem.
    ("LBFGS", {"lr": 0.1, "max_iter": 4}),
    ("Muon", {"lr": 0.01}),
    ("Adafactor", {"lr": 0.01}),
]
# These couple all entries of a tensor by definition. The plan says so before the edit.
COUPLED = {"Adafactor", "Muon"}
FUSED = {"SGD", "Adam", "AdamW", "Adagrad"}  # those with a fused implementation on the CPU


class SmallNet(nn.Module):
    """conv1, bn1, relu, conv2, relu, mean over pixels, fc.

    conv1 has no bias: before a batch norm, its gradient is rounding noise, and Rprop would use the
    sign of it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 10, 3, padding=1)
        self.fc = nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return self.fc(x.mean((2, 3)))


def silence_filter(model: SmallNet, index: int) -> None:
    """Make the filter of conv2 negative before its ReLU for every input, and unused by fc."""
    with torch.no_grad():
        model.conv2.weight[index] = 0
        model.conv2.bias[index] = -1
        model.fc.weight[:, index] = 0


def build_network(dead: int | None) -> SmallNet:
    """Return the network in double precision, with a dead filter in conv2 or none."""
    torch.manual_seed(0)
    model = SmallNet().double()
    if dead is not None:
        silence_filter(model, dead)
    return model


def make_optimizers(
    name: str, options: dict[str, Any], model: SmallNet
) -> list[torch.optim.Optimizer]:
    """Return the optimizers of the model. Muon trains matrices only, so SGD trains the rest."""
    optimizer_class = getattr(torch.optim, name)
    if name != "Muon":
        return [optimizer_class(model.parameters(), **options)]
    others = [p for p in model.parameters() if p is not model.fc.weight]
    return [optimizer_class([model.fc.weight], **options), torch.optim.SGD(others, lr=0.05)]


def train(model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], first: int) -> None:
    """Train for `STEPS` steps on random batches with the seeds ``first``, ``first + 1``, ..."""
    for seed in range(first, first + STEPS):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(8, 3, 8, 8, generator=generator, dtype=torch.float64)
        y = torch.randint(5, (8,), generator=generator)

        def closure(x: Tensor = x, y: Tensor = y) -> Tensor:
            model.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            return loss

        for optimizer in optimizers:
            optimizer.step(closure)


def largest_weight_difference(name: str, options: dict[str, Any], remove: bool) -> float:
    """Return the largest relative distance of a surviving weight to that of the unedited run."""
    dead = 3 if remove else None
    models = plain, edited = build_network(dead), build_network(dead)
    optimizers = [make_optimizers(name, options, model) for model in models]
    for model, of_model in zip(models, optimizers, strict=True):
        train(model, of_model, first=0)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    editor, probe = Editor(edited, optimizers[1]), ForwardProbe([partial(edited, x)])
    if remove:
        editor.apply(RemoveFilters("conv2", [3]), probe)
        in_plain, in_edited = [i for i in range(10) if i != 3], slice(None)
    else:
        editor.apply(AddFilters("conv2"), probe)
        silence_filter(edited, 10)
        in_plain, in_edited = list(range(10)), slice(0, 10)
    for model, of_model in zip(models, optimizers, strict=True):
        train(model, of_model, first=100)
    pairs = [
        (edited.conv1.weight, plain.conv1.weight),
        (edited.bn1.weight, plain.bn1.weight),
        (edited.conv2.weight[in_edited], plain.conv2.weight[in_plain]),
        (edited.fc.weight[:, in_edited], plain.fc.weight[:, in_plain]),
    ]
    return max(float(((a - b).norm() / b.norm()).detach()) for a, b in pairs)


def optimizer_cases() -> list[tuple[str, str, dict[str, Any]]]:
    """Return (class name, label, options) of every optimizer in this torch and its variants."""
    found = []
    for name, options in OPTIMIZERS:
        if not hasattr(torch.optim, name):
            continue
        labels = [k for k in options if k not in ("lr", "t0", "initial_accumulator_value")]
        variants: dict[str, dict[str, Any]] = {"default": {}}
        if name not in ("LBFGS", "Muon"):
            variants["foreach"] = {"foreach": True}
        if name in FUSED:
            variants["fused"] = {"fused": True}
        for variant, more in variants.items():
            found.append((name, " ".join([variant, *labels]), {**options, **more}))
    return found


def main() -> int:
    parser = argument_parser(__doc__, quick="no effect; the benchmark takes seconds")
    options = parser.parse_args()
    torch.set_num_threads(1)
    report = Report(
        "Survivors relative to the unedited run (fp64)",
        ["optimizer", "variant", "filter removed", "filter added", "exact"],
    )
    worst: dict[str, float] = {}
    for name, variant, kwargs in progress(optimizer_cases(), "optimizers"):
        removed, added = (
            largest_weight_difference(name, kwargs, remove=True),
            largest_weight_difference(name, kwargs, remove=False),
        )
        exact = "coupled" if name in COUPLED else str(max(removed, added) <= MAX_DISTANCE)
        report.add_row(name, variant, removed, added, exact)
        worst[name] = max(worst.get(name, 0.0), removed, added)
    exact_classes = {name for name, value in worst.items() if value <= MAX_DISTANCE}
    report.check_at_least("optimizer classes within 1e-12", len(exact_classes), MIN_EXACT)
    inexact = ", ".join(name for name in worst if name not in exact_classes | COUPLED)
    report.add_check("other inexact classes", inexact or "none", "none", not inexact)
    return report.finish(options.json, options.check)


if __name__ == "__main__":
    sys.exit(main())

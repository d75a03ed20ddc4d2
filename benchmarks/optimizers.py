"""Do survivors train on exactly as if their network had never been edited?

``python -m benchmarks.optimizers``

Two equal networks with one filter that is dead (no gradient reaches or leaves it) train for ten
steps in double precision. Then the dead filter is removed from one of them, or a filter is added
to it and killed, and both train for ten steps more on the same data. Shown is the largest
relative distance of the surviving weights between the two.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.report import Report, progress
from revacnn_lightning.protocol import requests
from revacnn_lightning.steering import Editor, ForwardProbe

LIMIT = 1e-12
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
    # Its sums run over the whole network, in another order after an edit; twenty inner iterations
    # per step, the default, amplify that rounding a millionfold on this problem.
    ("LBFGS", {"lr": 0.1, "max_iter": 4}),
    ("Muon", {"lr": 0.01}),
    ("Adafactor", {"lr": 0.01}),
]
# These couple all entries of a tensor by definition; the plan says so before the edit.
COUPLED = {"Adafactor", "Muon"}
FUSED = {"SGD", "Adam", "AdamW", "Adagrad"}  # what torch can fuse on a CPU


class Net(nn.Module):
    """conv, bn, relu, conv, relu, pool, linear. No bias before a batch norm (its gradient is
    rounding noise, whose sign Rprop would follow)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 10, 3, padding=1)
        self.fc = nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return self.fc(x.mean((2, 3)))


def kill(model: Net, index: int) -> None:
    """Let filter ``index`` of conv2 be below the ReLU for good, and unread."""
    with torch.no_grad():
        model.conv2.weight[index] = 0
        model.conv2.bias[index] = -1
        model.fc.weight[:, index] = 0


def build(dead: int | None) -> Net:
    torch.manual_seed(0)
    model = Net().double()
    if dead is not None:
        kill(model, dead)
    return model


def optimizers_of(name: str, options: dict[str, Any], model: Net) -> list[torch.optim.Optimizer]:
    """Muon trains matrices only; SGD does the rest for it."""
    make = getattr(torch.optim, name)
    if name != "Muon":
        return [make(model.parameters(), **options)]
    others = [p for p in model.parameters() if p is not model.fc.weight]
    return [make([model.fc.weight], **options), torch.optim.SGD(others, lr=0.05)]


def train(
    model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], steps: int, first: int
) -> None:
    for i in range(first, first + steps):
        generator = torch.Generator().manual_seed(i)
        x = torch.randn(8, 3, 8, 8, generator=generator, dtype=torch.float64)
        y = torch.randint(5, (8,), generator=generator)

        def closure(x: Tensor = x, y: Tensor = y) -> Tensor:
            model.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            return loss

        for optimizer in optimizers:
            optimizer.step(closure)


def distance(name: str, options: dict[str, Any], remove: bool, steps: int) -> float:
    """Of the survivors' weights to those of the unedited run."""
    dead = 3 if remove else None
    plain, edited = build(dead), build(dead)
    trainers = [optimizers_of(name, options, model) for model in (plain, edited)]
    for model, optimizers in zip((plain, edited), trainers, strict=True):
        train(model, optimizers, steps, first=0)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    editor = Editor(edited, trainers[1])
    probe = ForwardProbe([partial(edited, x)])
    if remove:
        editor.apply(requests.RemoveFilters("conv2", [3]), probe)
        of_plain, of_edited = [i for i in range(10) if i != 3], slice(None)
    else:
        editor.apply(requests.AddFilters("conv2"), probe)
        kill(edited, 10)
        of_plain, of_edited = list(range(10)), slice(0, 10)
    for model, optimizers in zip((plain, edited), trainers, strict=True):
        train(model, optimizers, steps, first=100)
    pairs = [
        (edited.conv1.weight, plain.conv1.weight),
        (edited.bn1.weight, plain.bn1.weight),
        (edited.conv2.weight[of_edited], plain.conv2.weight[of_plain]),
        (edited.fc.weight[:, of_edited], plain.fc.weight[:, of_plain]),
    ]
    return max(float(((a - b).norm() / b.norm()).detach()) for a, b in pairs)


def cases() -> list[tuple[str, str, dict[str, Any]]]:
    """(class, variant, options)."""
    found = []
    for name, options in OPTIMIZERS:
        if not hasattr(torch.optim, name):
            continue
        extra = [k for k in options if k not in ("lr", "t0", "initial_accumulator_value")]
        variants = [("default", {})]
        if name not in ("LBFGS", "Muon"):
            variants.append(("foreach", {"foreach": True}))
        if name in FUSED:
            variants.append(("fused", {"fused": True}))
        for variant, more in variants:
            label = " ".join([variant, *extra])
            found.append((name, label, {**options, **more}))
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="the same; it takes seconds anyway")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--check", action="store_true", help="exit 1 if a figure is missed")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    columns = ["optimizer", "variant", "filter removed", "filter added", "exact"]
    report = Report("Survivors against the unedited run, fp64", columns)
    worst: dict[str, float] = {}
    for name, variant, arguments_ in progress(cases(), "optimizers"):
        removed, added = (distance(name, arguments_, remove, 10) for remove in (True, False))
        exact = "coupled" if name in COUPLED else str(max(removed, added) <= LIMIT)
        report.row(name, variant, removed, added, exact)
        worst[name] = max(worst.get(name, 0.0), removed, added)
    exact_classes = sorted(name for name, value in worst.items() if value <= LIMIT)
    report.check("classes of optimizers within 1e-12", len(exact_classes), "at least 12",
                 len(exact_classes) >= 12)  # fmt: skip
    off = [name for name in worst if name not in exact_classes and name not in COUPLED]
    report.check("others that are off", ", ".join(off) or "none", "none", not off)
    return report.finish(options.json, options.check)


if __name__ == "__main__":
    sys.exit(main())

"""Every conv of torchvision's classification models: one filter removed, one filter added.

``python -m benchmarks.steering_zoo`` (``--models resnet18 vgg11_bn``, ``--budget 15``)

In double precision, with batch-norm statistics of the data and random affine values, so that a
wrong index shows. After a removal, the output on a batch the engine never saw must be that of the
old network with the removed filter's outgoing columns zeroed; after a growth, that of the old
network; both to 1e-8. Each edit is undone before the next. The smallest model of each family is
tested completely; the others, in random order of their convs, for ``--budget`` seconds.

exact: equal to 1e-8. rounding: further off, but no further than when the input is changed by one
rounding unit. mixed: the removed channel was normalised together with others (layer norm), so
that it cannot be silenced by zeroing columns; runs. refused: with a reason. rolled back: the
verifying forward found out that the code holds a size of its own. wrong: everything else.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import warnings
from collections import Counter
from functools import partial
from time import perf_counter
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from benchmarks.report import Report, progress_bar
from benchmarks.steering_models import randomized
from revacnn_lightning.errors import EditFailedError, EditRefusedError
from revacnn_lightning.protocol import requests
from revacnn_lightning.steering import Editor, EditPlan, ForwardProbe

EXACT = 1e-8
OUTCOMES = ("exact", "rounding", "mixed", "refused", "rolled back", "wrong")
# Families with attention, layer norms over the channels or channel shuffle; the rest is plain.
NOT_PLAIN = {"convnext", "maxvit", "shufflenet", "swin", "vit"}
SMALLEST = {
    "alexnet": "alexnet", "convnext": "convnext_tiny", "densenet": "densenet121",
    "efficientnet": "efficientnet_b0", "efficientnet_v2": "efficientnet_v2_s",
    "googlenet": "googlenet", "inception": "inception_v3", "maxvit": "maxvit_t",
    "mnasnet": "mnasnet0_5", "mobilenet_v2": "mobilenet_v2", "mobilenet_v3": "mobilenet_v3_small",
    "regnet_x": "regnet_x_400mf", "regnet_y": "regnet_y_400mf", "resnet": "resnet18",
    "resnext": "resnext50_32x4d", "shufflenet": "shufflenet_v2_x0_5",
    "squeezenet": "squeezenet1_1", "swin": "swin_t", "vgg": "vgg11_bn", "vit": "vit_b_16",
    "wide_resnet": "wide_resnet50_2",
}  # fmt: skip
QUICK = ["resnet18", "shufflenet_v2_x0_5", "squeezenet1_1", "mobilenet_v3_small"]
# Many parameters that no conv reaches: only built when asked for by name.
HUGE = {"regnet_y_128gf", "vit_h_14", "vit_l_16", "vit_l_32"}


def family(name: str) -> str:
    """The family of a torchvision model name."""
    return next(f for f in sorted(SMALLEST, key=len, reverse=True) if name.startswith(f))


def build(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    """The model, a batch for the engine and another one to judge by."""
    options: dict[str, Any] = {"num_classes": 100}
    pixels = 64
    if name in ("googlenet", "inception_v3"):
        options |= {"init_weights": False, "aux_logits": True}
        pixels = 299 if name == "inception_v3" else 96  # its auxiliary head pools 17×17 pixels
    if name.startswith("vit"):
        options["image_size"] = pixels = 64 if name != "vit_h_14" else 56
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        if name == "maxvit_t":
            model = small_maxvit(pixels)
        else:
            model = torchvision.models.get_model(name, weights=None, **options)
    if name.startswith("vgg"):  # 4096 units between the linear layers test nothing that 64 do not
        first = model.classifier[0]
        model.classifier = nn.Sequential(
            nn.Linear(first.in_features, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, 100)
        )
    model = model.double()
    x = torch.randn(2, 3, pixels, pixels, dtype=torch.float64)
    return randomized(model, x), x, torch.randn(2, 3, pixels, pixels, dtype=torch.float64)


def small_maxvit(pixels: int) -> nn.Module:
    """maxvit_t with windows of 2×2: its own of 7×7 take images of 224 pixels and no others."""
    return torchvision.models.MaxVit(
        input_size=(pixels, pixels),
        stem_channels=64,
        partition_size=2,
        block_channels=[64, 128, 256, 512],
        block_layers=[2, 2, 5, 2],
        head_dim=32,
        stochastic_depth_prob=0.2,
        num_classes=100,
    )


def output(model: nn.Module, x: Tensor) -> Tensor:
    flags = [(m, m.training) for m in model.modules()]
    model.eval()
    with torch.no_grad():
        y = model(x)
    for module, flag in flags:
        module.training = flag
    return y


def train_output(model: nn.Module, x: Tensor) -> None:
    """Run it while training too: auxiliary heads must fit. Leaves statistics as they are."""
    kept = [(b, b.clone()) for b in model.buffers()]
    model.train()
    with torch.no_grad():
        model(x)
        for buffer, value in kept:
            buffer.copy_(value)


def change(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


def silenced(model: nn.Module, plan: EditPlan, x: Tensor) -> Tensor:
    """The output of the unedited model with the columns zeroed that the plan removes."""
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    kept = []
    with torch.no_grad():
        for edit in plan.tensors:
            if edit.fill == "zero":
                tensor = named[edit.tensor]
                survivors = {i for a, b in edit.runs for i in range(a, b)}
                gone = torch.tensor([i for i in range(edit.size) if i not in survivors])
                kept.append((tensor, tensor.clone()))
                tensor.index_fill_(edit.dim, gone, 0.0)
        y = output(model, x)
        for tensor, value in reversed(kept):
            tensor.copy_(value)
    return y


class Subject:
    """One model under test."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.model, x, self.judge = build(name)
        self.editor = Editor(self.model)
        self.probe = ForwardProbe([partial(self.model, x)])
        self.before = output(self.model, self.judge)
        tiny = self.judge * (1 + 1e-15 * torch.randn_like(self.judge))
        self.noise = change(output(self.model, tiny), self.before)
        self.examples: dict[str, str] = {}
        self.state = {k: v.clone() for k, v in self.model.state_dict().items()}

    def convs(self) -> list[str]:
        return [n for n, m in self.model.named_modules() if isinstance(m, nn.Conv2d)]

    def judge_edit(self, layer: str, request: requests.Edit) -> str:
        """Apply, judge, undo."""
        try:
            plan = self.editor.plan(request, self.probe)
            removal = isinstance(request, requests.RemoveFilters)
            expected = silenced(self.model, plan, self.judge) if removal else self.before
            plan = self.editor.apply(request, self.probe).plan
        except (EditRefusedError, EditFailedError) as error:
            verdict = "refused" if isinstance(error, EditRefusedError) else "rolled back"
            self.examples.setdefault(verdict, f"{self.name} {layer}: {error}")
            return verdict
        difference = change(output(self.model, self.judge), expected)
        train_output(self.model, self.judge)
        self.editor.apply(requests.Undo(), self.probe)
        if difference <= EXACT:
            return "exact"
        if difference <= 30 * self.noise:
            return "rounding"
        if removal and any("change as well" in note for note in plan.notes):
            return "mixed"
        self.examples[f"wrong {layer}"] = f"{self.name} {request}: off by {difference:.1e}"
        return "wrong"

    def unchanged(self) -> bool:
        """Whether all undone edits together left the weights as they were."""
        now = self.model.state_dict()
        return now.keys() == self.state.keys() and all(
            torch.equal(now[k], v) for k, v in self.state.items()
        )


def test_model(name: str, budget: float, seed: int, advance: Any) -> tuple[Subject, Counter, int]:
    """Outcomes, as ("removed" | "added", outcome) -> count, and how many convs were tested."""
    subject = Subject(name)
    convs = subject.convs()
    random.Random(seed).shuffle(convs)
    start, tested = perf_counter(), 0
    counts: Counter = Counter()
    for layer in convs:
        if perf_counter() - start > budget:
            break
        width = subject.model.get_submodule(layer).out_channels
        counts[
            "removed", subject.judge_edit(layer, requests.RemoveFilters(layer, [width // 3]))
        ] += 1
        counts["added", subject.judge_edit(layer, requests.AddFilters(layer))] += 1
        tested += 1
        advance(1 / len(convs))
    advance(1 - tested / len(convs))
    if not subject.unchanged():
        counts["removed", "wrong"] += 1
        subject.examples["wrong undo"] = f"{name}: undo did not restore the weights"
    return subject, counts, tested


def with_convs() -> list[str]:
    names = torchvision.models.list_models(module=torchvision.models)
    return [n for n in names if not re.search("rcnn|retina|ssd|fcos|raft", n) and n not in HUGE]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--models", nargs="+", help="default: all but the largest")
    parser.add_argument("--budget", type=float, default=10.0,
                        help="seconds per model; a family's smallest has no limit")  # fmt: skip
    parser.add_argument("--families", action="store_true", help="only the smallest of each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="four models, 8 s each")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--check", action="store_true", help="exit 1 if a figure is missed")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    names = options.models or (QUICK if options.quick else with_convs())
    if options.families:
        names = [*SMALLEST.values()]
    report = Report(
        "One filter removed and one added, per conv (fp64)",
        ["model", "convs", "tested", "removed", "added", "s"],
    )
    total: Counter = Counter()
    plain_failures = 0
    shuffle = None
    examples: list[str] = []
    with progress_bar(len(names)) as advance:
        for name in names:
            unlimited = name in SMALLEST.values() and not options.quick
            start = perf_counter()
            budget = 8.0 if options.quick else float("inf") if unlimited else options.budget
            subject, counts, tested = test_model(name, budget, options.seed, advance)
            shown = [
                ", ".join(f"{counts[what, o]} {o}" for o in OUTCOMES if counts[what, o])
                for what in ("removed", "added")
            ]
            report.row(name, len(subject.convs()), tested, *shown, perf_counter() - start)
            report.save(options.json)
            total += counts
            examples += subject.examples.values()
            if family(name) not in NOT_PLAIN:
                plain_failures += sum(counts[d, o] for d in ("removed", "added")
                                      for o in ("wrong", "rolled back", "mixed"))  # fmt: skip
            if name == "shufflenet_v2_x0_5" and tested == len(subject.convs()):
                shuffle = min(counts["removed", "exact"], counts["added", "exact"])
    for example in examples:
        report.note(example)
    wrong = total["removed", "wrong"] + total["added", "wrong"]
    report.check("wrong", wrong, "0", wrong == 0)
    report.check(
        "plain families, neither exact nor refused", plain_failures, "0", not plain_failures
    )
    if shuffle is not None:
        report.check("shufflenet_v2_x0_5, exact of 56", shuffle, "at least 46", shuffle >= 46)
    return report.finish(options.json, options.check)


if __name__ == "__main__":
    sys.exit(main())

"""One filter removed from and one added to every layer of torchvision's classifiers and others.

The families of `benchmarks.steering_families`, which torchvision lacks, are tested as well.

``python -m benchmarks.steering_zoo [--models ...] [--budget S] [--json FILE] [--check] [--quick]``

Models run in double precision, with batch-norm statistics of the data and random affine values, so
that a wrong index changes the output. After a removal, the output on a batch unknown to the editor
must equal that of the unedited network with the same columns set to zero; after an addition, that
of the unedited network. Each edit is undone before the next one. The smallest model of each family
is tested completely, the others for some seconds in random order of their layers; ``--budget`` sets
the seconds of all. Those are the layers that `ReVACNN` watches by default; of a GAN, all. Networks
of linear layers, of signals and of volumes (`benchmarks.other_networks`) are tested as well.

- exact: equal within 1e-8.
- rounding: a larger difference, but not larger than after a change of the input by one rounding
  unit.
- mixed: a norm or an attention over the channels mixes the edited channel with others, so the
  function changes unavoidably. The plan has announced it, for an addition with the measured change,
  which the benchmark confirms. The network runs.
- by design: refused, because the definition of the layer determines the number of its filters.
  They are the outputs of the model, the only filter of a gate or of an attention map, or the
  offsets of a deformable convolution.
- refused: with another reason.
- rolled back: the verifying forward pass found a size that only the model's code holds.
- wrong: everything else.
"""

from __future__ import annotations

import random
import re
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple

import torch
import torchvision
from msgspec.structs import replace
from torch import Tensor, nn

from benchmarks.library_networks import LIBRARIES
from benchmarks.other_networks import OTHERS
from benchmarks.report import Report, argument_parser, progress_bar
from benchmarks.steering_families import FAMILIES
from benchmarks.steering_models import eval_output, randomize_norms, zeroed_output
from revacnn_lightning import AddFilters, EditFailedError, EditRefusedError, RemoveFilters, Undo
from revacnn_lightning.protocol.requests import Edit
from revacnn_lightning.steering import Editor, ForwardProbe
from revacnn_lightning.telemetry.layer_selection import LayerSelection
from revacnn_lightning.telemetry.unit_layers import filter_count

EXACT = 1e-8
ROUNDING = 30  # times the change of the output for a change of the input by one rounding unit
OUTCOMES = ("exact", "rounding", "mixed", "by design", "refused", "rolled back", "wrong")
# Reasons that no rule can lift: with another number of filters, it is no such layer.
BY_DESIGN = (
    "reach the model's output",
    "the last filter of",
    "has a single filter",
    "are the offsets or weights of positions",
)
MIN_ANNOUNCED = 0.95  # share of a family's layers that are exact or announced
MIN_EXACT = 0.8  # share of a family's removals that are exact, of those that could be
# Where layers are tested that are not watched by default: a linear layer that computes maps.
ALL_LAYERS = {"gan"}
# In the third stage of shufflenet_v2_x0_5, with halves of 48 channels, a new filter would have to
# pass its eight shuffles on a way that no present filter passes. Larger models have filters on all.
KNOWN_LIMITS = {"shufflenet"}
# Families with attention, layer norms over channels or channel shuffle. The others are plain.
NOT_PLAIN = {"convnext", "maxvit", "shufflenet", "swin", "vit", *FAMILIES, *LIBRARIES}
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
QUICK = [
    *("resnet18", "shufflenet_v2_x0_5", "squeezenet1_1", "mobilenet_v3_small"),
    *("own_group_norm", "own_standardized", "mlp", "resnet_1d"),
]
QUICK_SECONDS = 8.0
SECONDS = 10.0
SHUFFLE = "shufflenet_v2_x0_5"
MIN_SHUFFLE_EXACT = {"removed": 55, "added": 46}  # of its 56 convolutions
# Models with many parameters outside of convolutions. Built only if named by --models.
HUGE = {"regnet_y_128gf", "vit_h_14", "vit_l_16", "vit_l_32"}


def model_family(name: str) -> str:
    """Return the family of a model; one that is not from torchvision is a family of its own."""
    if name in FAMILIES or name in OTHERS or name in LIBRARIES:
        return name
    return next(f for f in sorted(SMALLEST, key=len, reverse=True) if name.startswith(f))


def build_model(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    """Return the model, a batch for the editor, and another batch to judge edits by."""
    if name in OTHERS or name in LIBRARIES:
        return build_other_model(name)
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
        if name in FAMILIES:
            model = FAMILIES[name]()
        elif name == "maxvit_t":
            model = small_maxvit(pixels)
        else:
            model = torchvision.models.get_model(name, weights=None, **options)
    if name.startswith("vgg"):  # 64 units between the linear layers test the same as 4096
        first = model.classifier[0]
        model.classifier = nn.Sequential(
            nn.Linear(first.in_features, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, 100)
        )
    model = model.double()
    x = torch.randn(2, 3, pixels, pixels, dtype=torch.float64)
    return randomize_norms(model, x), x, torch.randn(2, 3, pixels, pixels, dtype=torch.float64)


def build_other_model(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    """Return a network that is not a classifier of torchvision, as `build_model` does."""
    make, shape = {**OTHERS, **LIBRARIES}[name]
    count = 4 if name in OTHERS else 2
    torch.manual_seed(0)
    model = make().double()
    x = torch.randn(count, *shape, dtype=torch.float64)
    return randomize_norms(model, x), x, torch.randn(count, *shape, dtype=torch.float64)


def small_maxvit(pixels: int) -> nn.Module:
    """Return maxvit_t with windows of 2×2. Its default, 7×7, only accepts images of 224 pixels."""
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


def run_training_forward(model: nn.Module, x: Tensor) -> None:
    """Run the model in training mode, with its auxiliary heads, and restore its buffers."""
    kept = [(b, b.clone()) for b in model.buffers()]
    model.train()
    with torch.no_grad():
        model(x)
        for buffer, value in kept:
            buffer.copy_(value)


def relative_difference(a: Tensor, b: Tensor) -> float:
    """Return the largest difference, relative to the largest magnitude in ``b``."""
    return float((a - b).abs().max() / b.abs().max())


class EditedModel:
    """One model under test."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.model, x, self.unseen = build_model(name)
        self.editor = Editor(self.model)
        self.probe = ForwardProbe([partial(self.model, x)])
        self.unedited = eval_output(self.model, self.unseen)
        nudged = self.unseen * (1 + 1e-15 * torch.randn_like(self.unseen))
        self.noise = relative_difference(eval_output(self.model, nudged), self.unedited)
        self.examples: dict[str, str] = {}
        self.state = {k: v.clone() for k, v in self.model.state_dict().items()}
        selection = LayerSelection("all") if name in ALL_LAYERS else LayerSelection()
        self.layers = [name for name, _ in selection.select(self.model)]

    def judge_edit(self, layer: str, request: Edit) -> str:
        """Apply an edit, undo it, and return its outcome."""
        removal = isinstance(request, RemoveFilters)
        try:
            plan = self.editor.plan(request, self.probe)
            if plan.confirmation:
                request = replace(request, confirmed=True)
            expected = zeroed_output(self.model, plan, self.unseen) if removal else self.unedited
            plan = self.editor.apply(request, self.probe).plan
        except (EditRefusedError, EditFailedError) as error:
            outcome = "refused" if isinstance(error, EditRefusedError) else "rolled back"
            if any(reason in str(error) for reason in BY_DESIGN):
                outcome = "by design"
            self.examples.setdefault(outcome, f"{self.name} {layer}: {error}")
            return outcome
        difference = relative_difference(eval_output(self.model, self.unseen), expected)
        run_training_forward(self.model, self.unseen)
        self.editor.apply(Undo(), self.probe)
        if difference <= EXACT:
            return "exact"
        if difference <= ROUNDING * self.noise:
            return "rounding"
        if plan.is_mixing or any("change as well" in note for note in plan.notes):
            return "mixed"
        self.examples[f"wrong {layer}"] = f"{self.name} {request}: off by {difference:.1e}"
        return "wrong"

    def is_restored(self) -> bool:
        """Return whether all weights and buffers are as before the first edit."""
        now = self.model.state_dict()
        return now.keys() == self.state.keys() and all(
            torch.equal(now[k], v) for k, v in self.state.items()
        )


class ModelOutcomes(NamedTuple):
    """Results of one model: counts by ("removed" or "added", outcome)."""

    layers: int
    tested: int
    counts: Counter[tuple[str, str]]
    examples: list[str]

    def describe(self, edit: str) -> str:
        """Return the counts of "removed" or "added" in words."""
        counts = {outcome: self.counts[edit, outcome] for outcome in OUTCOMES}
        return ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)


def judge_model(
    name: str, max_seconds: float, seed: int, advance: Callable[[float], None]
) -> ModelOutcomes:
    """Remove and add a filter in each layer, in random order, for at most ``max_seconds``."""
    subject = EditedModel(name)
    layers = list(subject.layers)
    random.Random(seed).shuffle(layers)
    start, tested = perf_counter(), 0
    counts: Counter[tuple[str, str]] = Counter()
    for layer in layers:
        if perf_counter() - start > max_seconds:
            break
        width = filter_count(subject.model.get_submodule(layer))
        counts["removed", subject.judge_edit(layer, RemoveFilters(layer, [width // 3]))] += 1
        counts["added", subject.judge_edit(layer, AddFilters(layer))] += 1
        tested += 1
        advance(1 / len(layers))
    advance(1 - tested / len(layers))
    if not subject.is_restored():
        counts["removed", "wrong"] += 1
        subject.examples["wrong undo"] = f"{name}: undo did not restore the weights"
    return ModelOutcomes(len(layers), tested, counts, list(subject.examples.values()))


def classifiers() -> list[str]:
    """Return the names of all classification models, without the `HUGE` ones."""
    names = torchvision.models.list_models(module=torchvision.models)
    found = [n for n in names if not re.search("rcnn|retina|ssd|fcos|raft", n) and n not in HUGE]
    return [*found, *FAMILIES]


def check_outcomes(report: Report, outcomes: dict[str, ModelOutcomes]) -> None:
    """Check that nothing is wrong, and how many edits are exact where it is easy."""

    def count(names: list[str], *kinds: str) -> int:
        edits = ("removed", "added")
        return sum(
            outcomes[n].counts[edit, kind] for n in names for edit in edits for kind in kinds
        )

    plain = [name for name in outcomes if model_family(name) not in NOT_PLAIN]
    report.check_at_most("wrong", count(list(outcomes), "wrong"), 0)
    inexact = count(plain, "wrong", "rolled back", "mixed")
    report.check_at_most("plain families, neither exact nor refused", inexact, 0)
    _check_families(report, outcomes)
    shuffle = outcomes.get(SHUFFLE)
    if shuffle is not None and shuffle.tested == shuffle.layers:
        for edit, limit in MIN_SHUFFLE_EXACT.items():
            exact = shuffle.counts[edit, "exact"]
            report.check_at_least(f"{SHUFFLE}, {edit} exactly of 56", exact, limit)


def _check_families(report: Report, outcomes: dict[str, ModelOutcomes]) -> None:
    """Check the share of good outcomes in each family, and report the lowest one."""
    families: dict[str, list[ModelOutcomes]] = {}
    for name, found in outcomes.items():
        if model_family(name) not in KNOWN_LIMITS:
            families.setdefault(model_family(name), []).append(found)
    exact = ("exact", "rounding")
    for title, limit, edits, good, others in (
        ("exact or announced", MIN_ANNOUNCED, ("removed", "added"), (*exact, "mixed"), ()),
        ("removed exactly, where nothing mixes", MIN_EXACT, ("removed",), exact, ("mixed",)),
    ):
        shares = {
            name: _share(members, edits, good, ("by design", *others))
            for name, members in families.items()
        }
        if shares:
            lowest = min(shares, key=lambda name: shares[name])
            report.check_at_least(f"{title}, lowest: {lowest}", shares[lowest], limit)


def _share(
    members: Sequence[ModelOutcomes],
    edits: Sequence[str],
    good: Sequence[str],
    left_out: Sequence[str],
) -> float:
    """Return the share of the ``good`` outcomes of these edits in those that are not left out."""
    counts: Counter[str] = Counter()
    for member in members:
        for (edit, outcome), n in member.counts.items():
            if edit in edits and outcome not in left_out:
                counts[outcome] += n
    return sum(counts[outcome] for outcome in good) / max(1, counts.total()) if counts else 1.0


def main() -> int:
    parser = argument_parser(__doc__, quick=f"eight models, {QUICK_SECONDS:g} s each")
    parser.add_argument("--models", nargs="+", help="default: all but the largest")
    parser.add_argument(
        "--budget",
        type=float,
        help=f"seconds per model; default: {SECONDS:g}, the smallest of each family has no limit",
    )
    parser.add_argument("--families", action="store_true", help="only the smallest of each family")
    parser.add_argument(
        "--libraries",
        action="store_true",
        help="those of timm, segmentation-models-pytorch, MONAI and ultralytics (to be installed)",
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = options.models or (QUICK if options.quick else [*classifiers(), *OTHERS])
    if options.families:
        names = [*SMALLEST.values(), *FAMILIES, *OTHERS]
    if options.libraries:
        names = list(LIBRARIES)
    report = Report(
        "One filter removed and one added, per layer (fp64)",
        ["model", "layers", "tested", "removed", "added", "s"],
    )
    outcomes: dict[str, ModelOutcomes] = {}
    with progress_bar(len(names)) as advance:
        for name in names:
            budget = QUICK_SECONDS if options.quick else options.budget
            if budget is None:
                budget = float("inf") if name in (*SMALLEST.values(), *OTHERS) else SECONDS
            start = perf_counter()
            found = judge_model(name, budget, options.seed, advance)
            outcomes[name] = found
            edits = (found.describe("removed"), found.describe("added"))
            report.add_row(name, found.layers, found.tested, *edits, perf_counter() - start)
            report.save(options.json)
    for found in outcomes.values():
        for example in found.examples:
            report.add_note(example)
    check_outcomes(report, outcomes)
    return report.finish(options.json, options.check)


if __name__ == "__main__":
    sys.exit(main())

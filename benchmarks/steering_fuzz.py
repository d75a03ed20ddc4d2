"""Random edits of all kinds on networks in training, checked for consistency.

``python -m benchmarks.steering_fuzz [--edits N] [--models ...] [--json FILE] [--check] [--quick]``

Each network is edited in rounds:

1. Random edits are applied, each followed by an optimizer step.
2. The journal is replayed on a new network, which must give the same output bit for bit once it
   has the weights.
3. More edits are applied and undone immediately. Weights, gradients and optimizer state must be
   the same as before, bit for bit. They are redone and undone again, with the same results.
4. The last few edits of step 1 are undone, and training continues. Some of them are redone, and
   training continues again.

An edit that is refused, or fails its verification, must leave everything unchanged.
"""

from __future__ import annotations

import random
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from benchmarks.report import Report, argument_parser, progress_bar
from benchmarks.steering_models import SMALL, make_seeded, train_step
from revacnn_lightning import EditFailedError, EditRefusedError
from revacnn_lightning.protocol import requests
from revacnn_lightning.steering import Editor, ForwardProbe, Journal

EDITS_PER_ROUND = 25
PIXELS = 32
MAX_ERRORS = 10  # per network, then the fuzzer stops
MIN_MODELS = 7

# How often each kind of edit is requested.
WEIGHTS = {
    "RemoveFilters": 6,
    "AddFilters": 6,
    "split": 3,
    "InsertLayer": 1,
    "RemoveLayer": 1,
    "Freeze": 1,
    "Unfreeze": 1,
    "ScaleLearningRate": 1,
    "Reinitialize": 1,
    "SetFilter": 1,
    "MergeFilters": 1,
}


@dataclass
class FuzzTally:
    """What happened to one network."""

    counts: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Fuzzer:
    """One network in training that receives random edits."""

    def __init__(self, name: str, seed: int, tally: FuzzTally) -> None:
        self.name, self.seed, self.tally = name, seed, tally
        self.random = random.Random(f"{name} {seed}")
        self.model = make_seeded(SMALL[name], seed)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        self.editor = Editor(self.model, [self.optimizer])
        generator = torch.Generator().manual_seed(seed)
        self.x = torch.randn(4, 3, PIXELS, PIXELS, generator=generator)
        self.y = torch.randint(10, (4,), generator=generator)
        self.probe = ForwardProbe([partial(self.model, self.x[:2])])
        self.initial_widths = {n: m.out_channels for n, m in self._convs()}

    def _convs(self) -> list[tuple[str, Any]]:
        return [(n, m) for n, m in self.model.named_modules() if isinstance(m, _ConvNd)]

    def run_round(self, edits: int) -> None:
        """Apply edits with training in between, then check replay and undo."""
        applied = tries = 0
        while applied < edits and tries < 8 * edits:
            tries += 1
            if self.apply_random_edit():
                applied += 1
                train_step(self.model, self.optimizer, self.x, self.y)
        self.check_replay()
        self.check_immediate_undo(self.random.randint(1, 6))
        self.undo_last(self.random.randint(1, max(1, min(applied, 20))))

    def apply_random_edit(self) -> bool:
        """Request one random edit. Return whether it was applied."""
        request = self.random_request()
        before = copy_training_state(self.model, self.optimizer)
        version = self.editor.version
        try:
            self.editor.apply(request, self.probe)
        except (EditRefusedError, EditFailedError) as error:
            refused = isinstance(error, EditRefusedError)
            self.tally.counts["refused" if refused else "rolled back"] += 1
            if not are_equal_states(before, copy_training_state(self.model, self.optimizer)):
                self.tally.errors.append(f"{self.name}: {request} was not rolled back: {error}")
            return False
        assert self.editor.version == version + 1
        self.tally.counts["applied"] += 1
        self.tally.kinds[type(request).__name__] += 1
        return True

    def random_request(self) -> requests.Edit:
        """Return a random request. Most requests are possible."""
        kind = self.random.choices([*WEIGHTS], [*WEIGHTS.values()])[0]
        layer, conv = self.random.choice(self._convs())
        width = conv.out_channels
        kind = self._bounded_kind(kind, layer, width)
        some = self.random.sample(range(width), min(width, self.random.choice([1, 1, 2, 3])))
        if kind == "RemoveFilters":
            return requests.RemoveFilters(layer, some)
        if kind == "AddFilters":
            return requests.AddFilters(layer, self.random.choice([1, 1, 2]))
        if kind == "split":
            return requests.AddFilters(layer, self.random.choice([1, 1, 2]), some[0])
        if kind == "InsertLayer":
            return requests.InsertLayer(layer, self.random.choice(["residual", "dirac"]))
        if kind == "RemoveLayer":
            return requests.RemoveLayer(self._random_block(layer))
        if kind in ("Freeze", "Unfreeze"):
            return getattr(requests, kind)(layer, self.random.choice([None, some]))
        if kind == "ScaleLearningRate":
            return requests.ScaleLearningRate(layer, self.random.choice([0.1, 0.5, 1, 3]))
        if kind == "Reinitialize":
            return requests.Reinitialize(layer, some)
        if kind == "SetFilter":
            weights = [self.random.random() + 0.01 for _ in some]
            return requests.SetFilter(layer, self.random.randrange(width), some, weights)
        return requests.MergeFilters(layer, self.random.sample(range(width), min(width, 2)))

    def _bounded_kind(self, kind: str, layer: str, width: int) -> str:
        """Return the kind of edit, or another that keeps the network close to its initial size."""
        initial = self.initial_widths.get(layer, width)
        if kind == "RemoveFilters" and width < initial // 2:
            kind = "AddFilters"
        if kind in ("AddFilters", "split", "InsertLayer") and width > 2 * initial:
            kind = "RemoveFilters"
        if kind == "InsertLayer" and layer.count("inserted") > 1:
            kind = "RemoveLayer"
        return kind

    def _random_block(self, layer: str) -> str:
        """Return an inserted block if there is one, else the layer or a block around it."""
        inserted = [
            name
            for name, _ in self.model.named_modules()
            if name.rpartition(".")[2].startswith("inserted")
        ]
        if inserted and self.random.random() < 0.7:
            return self.random.choice(inserted)
        parts = layer.split(".")
        return ".".join(parts[: self.random.randint(max(1, len(parts) - 1), len(parts))])

    def check_replay(self) -> None:
        """Replay the journal on a new network and compare the outputs."""
        replayed = make_seeded(SMALL[self.name], self.seed + 1)
        Journal.from_data(self.editor.journal.to_data()).replay(replayed)
        replayed.load_state_dict(self.model.state_dict())
        if not torch.equal(eval_output(replayed, self.x), eval_output(self.model, self.x)):
            self.tally.errors.append(f"{self.name}: the replayed network gives another output")
        self.tally.counts["replays"] += 1

    def check_immediate_undo(self, edits: int) -> None:
        """Apply edits and undo them without training in between."""
        before = copy_training_state(self.model, self.optimizer)
        applied = sum(self.apply_random_edit() for _ in range(edits))
        if applied:
            edited = copy_training_state(self.model, self.optimizer)
            self.editor.apply(requests.Undo(applied), self.probe)
            if not are_equal_states(before, copy_training_state(self.model, self.optimizer)):
                self.tally.errors.append(f"{self.name}: undoing {applied} edits left a difference")
            self.tally.counts["undone"] += applied
            self.check_immediate_redo(before, edited, applied)

    def check_immediate_redo(
        self, before: dict[str, Any], edited: dict[str, Any], count: int
    ) -> None:
        """Redo edits that were just undone, and undo them again."""
        ids = {name: self.editor.filter_ids(name) for name, _ in self._convs()}
        for request, expected in ((requests.Redo(count), edited), (requests.Undo(count), before)):
            self.editor.apply(request, self.probe)
            if not are_equal_states(expected, copy_training_state(self.model, self.optimizer)):
                self.tally.errors.append(f"{self.name}: {request} left a difference")
        if ids != {name: self.editor.filter_ids(name) for name, _ in self._convs()}:
            self.tally.errors.append(f"{self.name}: the ids differ after a redo and an undo")
        self.tally.counts["redone"] += count

    def undo_last(self, edits: int) -> None:
        """Undo edits that training steps followed, train on, and redo some of them."""
        edits = min(edits, self.editor.journal.undoable)
        if edits:
            self.editor.apply(requests.Undo(edits), self.probe)
            self.tally.counts["undone"] += edits
            train_step(self.model, self.optimizer, self.x, self.y)
            again = self.random.randint(1, edits)
            self.editor.apply(requests.Redo(again), self.probe)
            self.tally.counts["redone"] += again
            train_step(self.model, self.optimizer, self.x, self.y)
            self.check_replay()


def copy_training_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return copies of all tensors, gradients, optimizer state, sizes and torch's random state."""
    found: dict[str, Any] = {}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        found[name] = tensor.detach().clone()
        if tensor.grad is not None:
            found[f"{name} grad"] = tensor.grad.clone()
    names = {id(p): n for n, p in model.named_parameters()}
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            found[f"{names[id(parameter)]} {key}"] = (
                value.clone() if isinstance(value, Tensor) else value
            )
    groups = [[names[id(p)] for p in g["params"]] for g in optimizer.param_groups]
    found["groups"] = groups
    found["sizes"] = {
        name: {k: v for k, v in vars(module).items() if isinstance(v, (int, tuple))}
        for name, module in model.named_modules()
    }
    found["random"] = torch.get_rng_state()
    return found


def are_equal_states(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Return whether two snapshots are equal bit for bit."""
    return a.keys() == b.keys() and all(_is_equal(a[key], b[key]) for key in a)


def _is_equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and torch.equal(
            a.contiguous().view(-1).view(torch.uint8), b.contiguous().view(-1).view(torch.uint8)
        )
    return bool(a == b)


def eval_output(model: nn.Module, x: Tensor) -> Tensor:
    """Return the output in evaluation mode."""
    model.eval()
    with torch.no_grad():
        return model(x)


def fuzz_network(
    name: str, edit_count: int, seed: int, advance: Callable[[float], None]
) -> FuzzTally:
    """Run rounds on new initial weights each, until ``edit_count`` edits have been applied."""
    tally = FuzzTally()
    start = perf_counter()
    while tally.counts["applied"] < edit_count and len(tally.errors) < MAX_ERRORS:
        before = tally.counts["applied"]
        try:
            Fuzzer(name, seed, tally).run_round(min(EDITS_PER_ROUND, edit_count - before))
        except Exception:  # noqa: BLE001 - the benchmark reports every error
            lines = traceback.format_exc().strip().splitlines()
            tally.errors.append(f"{name} (seed {seed}): {lines[-1]} | {lines[-3].strip()}")
        seed += 1
        advance(tally.counts["applied"] - before)
    tally.seconds = perf_counter() - start
    return tally


def main() -> int:
    parser = argument_parser(__doc__, quick="100 edits, in less than a minute")
    parser.add_argument("--edits", type=int, default=10_000, help="over all models")
    parser.add_argument("--models", nargs="+", choices=[*SMALL], default=[*SMALL])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    edits = 100 if options.quick else options.edits
    edits_per_model = -(-edits // len(options.models))
    counted = ("applied", "refused", "rolled back", "undone", "redone", "replays")
    report = Report("Random edits of networks in training", ["model", *counted, "errors", "s"])
    kinds: Counter[str] = Counter()
    errors: list[str] = []
    applied = 0
    with progress_bar(edits_per_model * len(options.models)) as advance:
        for name in options.models:
            tally = fuzz_network(name, edits_per_model, options.seed, advance)
            counts = (tally.counts[key] for key in counted)
            report.add_row(name, *counts, len(tally.errors), tally.seconds)
            report.save(options.json)
            kinds += tally.kinds
            errors += tally.errors
            applied += tally.counts["applied"]
    report.add_note("by kind: " + ", ".join(f"{k} {n}" for k, n in sorted(kinds.items())))
    for error in errors:
        report.add_note(error)
    report.check_at_least("edits applied", applied, edits)
    report.check_at_least("models", len(options.models), MIN_MODELS)
    report.check_at_most("errors", len(errors), 0)
    return report.finish(options.json, options.check)


if __name__ == "__main__":
    sys.exit(main())

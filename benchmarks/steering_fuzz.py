"""Random edits of all kinds on training networks: does anything ever go wrong?

``python -m benchmarks.steering_fuzz --edits 10000``

Each network is edited in rounds. In a round, random edits are applied, with an optimizer step
after each. Then the journal is replayed on a fresh network, which must give the same output bit
for bit once the weights are loaded; then a few edits more are applied and undone at once, which
must leave every bit of weights, gradients and optimizer state as it was; and at last a random
suffix of the round's own edits is undone, and training goes on. An edit that is refused, or fails
its check, must have touched nothing.
"""

from __future__ import annotations

import argparse
import random
import sys
import traceback
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from benchmarks.report import Report, progress_bar
from benchmarks.steering_models import SMALL, seeded, train_step
from revacnn_lightning.errors import EditFailedError, EditRefusedError
from revacnn_lightning.protocol import requests
from revacnn_lightning.steering import Editor, ForwardProbe, Journal

ROUND = 25  # edits between two replays
PIXELS = 32

KINDS = {
    "RemoveFilters": 6,
    "AddFilters": 6,
    "split": 3,
    "InsertLayer": 1,
    "RemoveLayer": 1,
    "Freeze": 1,
    "Unfreeze": 1,
    "Reinitialize": 1,
    "SetFilter": 1,
    "MergeFilters": 1,
}


@dataclass
class Tally:
    """What happened to one network."""

    counts: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Fuzzer:
    """One network being edited at random."""

    def __init__(self, name: str, seed: int, tally: Tally) -> None:
        self.name, self.seed, self.tally = name, seed, tally
        self.random = random.Random(f"{name} {seed}")
        self.model = seeded(SMALL[name], seed)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        self.editor = Editor(self.model, [self.optimizer])
        generator = torch.Generator().manual_seed(seed)
        self.x = torch.randn(4, 3, PIXELS, PIXELS, generator=generator)
        self.y = torch.randint(10, (4,), generator=generator)
        self.probe = ForwardProbe([partial(self.model, self.x[:2])])
        self.widths = {n: m.out_channels for n, m in self._convs()}

    def _convs(self) -> list[tuple[str, Any]]:
        return [(n, m) for n, m in self.model.named_modules() if isinstance(m, _ConvNd)]

    def request(self) -> requests.Edit:
        """A random request; most can be carried out."""
        kind = self.random.choices([*KINDS], [*KINDS.values()])[0]
        layer, conv = self.random.choice(self._convs())
        width = conv.out_channels
        first = self.widths.get(layer, width)
        if kind == "RemoveFilters" and width < first // 2:
            kind = "AddFilters"
        if kind in ("AddFilters", "split", "InsertLayer") and width > 2 * first:
            kind = "RemoveFilters"
        if kind == "InsertLayer" and layer.count("inserted") > 1:
            kind = "RemoveLayer"
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
            return requests.RemoveLayer(self._removable(layer))
        if kind in ("Freeze", "Unfreeze"):
            return getattr(requests, kind)(layer, self.random.choice([None, some]))
        if kind == "Reinitialize":
            return requests.Reinitialize(layer, some)
        if kind == "SetFilter":
            weights = [self.random.random() + 0.01 for _ in some]
            return requests.SetFilter(layer, self.random.randrange(width), some, weights)
        return requests.MergeFilters(layer, self.random.sample(range(width), min(width, 2)))

    def _removable(self, layer: str) -> str:
        """An inserted block if there is one, else the layer or one of the blocks around it."""
        inserted = [n for n, _ in self.model.named_modules()
                    if n.rpartition(".")[2].startswith("inserted")]  # fmt: skip
        if inserted and self.random.random() < 0.7:
            return self.random.choice(inserted)
        parts = layer.split(".")
        return ".".join(parts[: self.random.randint(max(1, len(parts) - 1), len(parts))])

    def edit(self) -> bool:
        """One random request, carried out, or refused without touching anything."""
        request = self.request()
        before = snapshot(self.model, self.optimizer)
        version = self.editor.version
        try:
            self.editor.apply(request, self.probe)
        except (EditRefusedError, EditFailedError) as error:
            self.tally.counts[
                "refused" if isinstance(error, EditRefusedError) else "rolled back"
            ] += 1
            if not same(before, snapshot(self.model, self.optimizer)):
                self.tally.errors.append(f"{self.name}: {request} was not taken back: {error}")
            return False
        assert self.editor.version == version + 1
        self.tally.counts["applied"] += 1
        self.tally.kinds[type(request).__name__] += 1
        return True

    def round(self, edits: int) -> None:
        """Some edits with training, then replay and undo."""
        done = tries = 0
        while done < edits and tries < 8 * edits:
            tries += 1
            if self.edit():
                done += 1
                train_step(self.model, self.optimizer, self.x, self.y)
        self.check_replay()
        self.check_undo_at_once(self.random.randint(1, 6))
        self.undo_some(self.random.randint(1, max(1, min(done, 20))))

    def check_replay(self) -> None:
        fresh = seeded(SMALL[self.name], self.seed + 1)
        Journal.from_data(self.editor.journal.to_data()).replay(fresh)
        fresh.load_state_dict(self.model.state_dict())
        if not torch.equal(output(fresh, self.x), output(self.model, self.x)):
            self.tally.errors.append(f"{self.name}: the replayed network gives another output")
        self.tally.counts["replays"] += 1

    def check_undo_at_once(self, edits: int) -> None:
        before = snapshot(self.model, self.optimizer)
        done = sum(self.edit() for _ in range(edits))
        if done:
            self.editor.apply(requests.Undo(done), self.probe)
            if not same(before, snapshot(self.model, self.optimizer)):
                self.tally.errors.append(f"{self.name}: undoing {done} edits left a trace")
            self.tally.counts["undone"] += done

    def undo_some(self, edits: int) -> None:
        edits = min(edits, self.editor.journal.undoable)
        if edits:
            self.editor.apply(requests.Undo(edits), self.probe)
            self.tally.counts["undone"] += edits
            train_step(self.model, self.optimizer, self.x, self.y)


def snapshot(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Every tensor of the model, its gradients, its optimizer state, and every size."""
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


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Bit for bit, but for the sign of zeros and NaN against NaN."""
    return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and torch.equal(
            a.contiguous().view(-1).view(torch.uint8), b.contiguous().view(-1).view(torch.uint8)
        )
    return bool(a == b)


def output(model: nn.Module, x: Tensor) -> Tensor:
    model.eval()
    with torch.no_grad():
        return model(x)


def fuzz(name: str, edits: int, seed: int, report: Any) -> Tally:
    """Rounds of random edits on one network, each on fresh weights, until so many were applied."""
    tally = Tally()
    start = perf_counter()
    while tally.counts["applied"] < edits and len(tally.errors) < 10:
        before = tally.counts["applied"]
        try:
            Fuzzer(name, seed, tally).round(min(ROUND, edits - before))
        except Exception:  # noqa: BLE001 - whatever it is, it is an error to report
            where = traceback.format_exc().strip().splitlines()
            tally.errors.append(f"{name} (seed {seed}): {where[-1]} | {where[-3].strip()}")
        seed += 1
        report(tally.counts["applied"] - before)
    tally.seconds = perf_counter() - start
    return tally


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--edits", type=int, default=10_000, help="applied edits, over all models")
    parser.add_argument("--models", nargs="+", choices=[*SMALL], default=[*SMALL])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="100 edits, under a minute")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--check", action="store_true", help="exit 1 if a figure is missed")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    edits = 100 if options.quick else options.edits
    each = -(-edits // len(options.models))
    report = Report(
        "Random edits of training networks",
        ["model", "applied", "refused", "rolled back", "undone", "replays", "errors", "s"],
    )
    kinds: Counter[str] = Counter()
    errors: list[str] = []
    applied = 0
    with progress_bar(each * len(options.models)) as advance:
        for name in options.models:
            tally = fuzz(name, each, options.seed, advance)
            c = tally.counts
            report.row(name, c["applied"], c["refused"], c["rolled back"], c["undone"],
                       c["replays"], len(tally.errors), tally.seconds)  # fmt: skip
            report.save(options.json)
            kinds += tally.kinds
            errors += tally.errors
            applied += c["applied"]
    report.note("by kind: " + ", ".join(f"{k} {n}" for k, n in sorted(kinds.items())))
    for error in errors:
        report.note(error)
    report.check("edits applied", applied, f"at least {edits}", applied >= edits)
    report.check("models", len(options.models), "at least 7", len(options.models) >= 7)
    report.check("errors", len(errors), "0", not errors)
    return report.finish(options.json, options.check)


if __name__ == "__main__":
    sys.exit(main())

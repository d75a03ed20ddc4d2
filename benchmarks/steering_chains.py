"""Chains of random edits on the networks of `benchmarks.steering_zoo`: undone, redone, replayed.

``python -m benchmarks.steering_chains [--models ...] [--libraries] [--budget S] [--json FILE]
[--check] [--quick]``

On each network, 20 random edits follow each other: filters are removed, added, split, frozen and
reinitialized, in any of the layers that `ReVACNN` watches by default. Then

- all are undone: weights, buffers, sizes and the state of the optimizer must be as before;
- all are redone: they must be as after the last edit;
- the journal is replayed on a new network, which must give the same output once it has the
  weights.

All comparisons are bit for bit. A refused edit must change nothing, and another one is tried.
Networks whose edits are slow get as many as fit into ``--budget`` seconds.
"""

from __future__ import annotations

import random
import sys
import traceback
from functools import partial
from time import perf_counter
from typing import NamedTuple

import torch
from msgspec.structs import replace

from benchmarks.library_networks import LIBRARIES
from benchmarks.other_networks import OTHERS
from benchmarks.report import Report, argument_parser, progress
from benchmarks.steering_families import FAMILIES
from benchmarks.steering_fuzz import are_equal_states, copy_training_state
from benchmarks.steering_models import eval_output
from benchmarks.steering_zoo import SMALLEST, build_model
from revacnn_lightning import (
    AddFilters,
    EditFailedError,
    EditRefusedError,
    Freeze,
    Redo,
    Reinitialize,
    RemoveFilters,
    Undo,
)
from revacnn_lightning.protocol.requests import Edit
from revacnn_lightning.steering import Editor, ForwardProbe, Journal
from revacnn_lightning.telemetry.layer_selection import LayerSelection
from revacnn_lightning.telemetry.unit_layers import filter_count

EDITS = 20
TRIES = 3 * EDITS
BUDGET = 30.0  # seconds per network
QUICK = ["resnet18", "own_group_norm", "mixer", "resnet_1d", "gan"]
WEIGHTS = {"remove": 4, "add": 4, "split": 2, "freeze": 1, "reinitialize": 1}


class ChainOutcome(NamedTuple):
    """What a chain has done on one network."""

    applied: int
    refused: int
    errors: list[str]


class EditChain:
    """One network that receives random edits in a row."""

    def __init__(self, name: str, seed: int) -> None:
        self.name = name
        self.random = random.Random(f"{name} {seed}")
        self.model, x, self.unseen = build_model(name)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4)
        self.editor = Editor(self.model, [self.optimizer])
        self.probe = ForwardProbe([partial(self.model, x)])
        self._train_once(x)

    def _train_once(self, x: torch.Tensor) -> None:
        """Take one optimizer step, so that there are gradients and an optimizer state to edit."""
        self.model.train()
        self.model(x).square().mean().backward()
        self.optimizer.step()

    def run(self, budget: float) -> ChainOutcome:
        """Apply the edits, then undo, redo and replay all of them."""
        errors: list[str] = []
        before, start = copy_training_state(self.model, self.optimizer), perf_counter()
        applied = tries = 0
        while applied < EDITS and tries < TRIES and perf_counter() - start < budget:
            tries += 1
            applied += self._apply(self._request(), errors)
        edited = copy_training_state(self.model, self.optimizer)
        if applied:
            for request, expected in ((Undo(applied), before), (Redo(applied), edited)):
                self.editor.apply(request, self.probe)
                if not are_equal_states(expected, copy_training_state(self.model, self.optimizer)):
                    errors.append(f"{self.name}: {request} left a difference")
        if not self._is_replayed():
            errors.append(f"{self.name}: the replayed network gives another output")
        return ChainOutcome(applied, tries - applied, errors)

    def _request(self) -> Edit:
        """Return a random request, on the layers as they are now."""
        layer, module = self.random.choice([*LayerSelection().select(self.model)])
        width = filter_count(module)
        some = self.random.sample(range(width), min(width, self.random.choice([1, 1, 2])))
        kind = self.random.choices([*WEIGHTS], [*WEIGHTS.values()])[0]
        if kind == "remove":
            return RemoveFilters(layer, some)
        if kind == "freeze":
            return Freeze(layer, some)
        if kind == "reinitialize":
            return Reinitialize(layer, some)
        return AddFilters(layer, len(some), some[0] if kind == "split" else None)

    def _apply(self, request: Edit, errors: list[str]) -> bool:
        """Apply an edit, confirmed if it must be; return whether it was applied."""
        before = copy_training_state(self.model, self.optimizer)
        try:
            if self.editor.plan(request, self.probe).confirmation:
                request = replace(request, confirmed=True)
            self.editor.apply(request, self.probe)
        except (EditRefusedError, EditFailedError) as error:
            if not are_equal_states(before, copy_training_state(self.model, self.optimizer)):
                errors.append(f"{self.name}: {request} was not rolled back: {error}")
            return False
        return True

    def _is_replayed(self) -> bool:
        """Return whether the journal makes the same network of a new one."""
        replayed, _, _ = build_model(self.name)
        Journal.from_data(self.editor.journal.to_data()).replay(replayed)
        replayed.load_state_dict(self.model.state_dict())
        outputs = (eval_output(model, self.unseen) for model in (replayed, self.model))
        return torch.equal(*outputs)


def run_chain(name: str, seed: int, budget: float) -> ChainOutcome:
    """Run a chain on a network; an exception is an error of it."""
    try:
        return EditChain(name, seed).run(budget)
    except Exception:  # noqa: BLE001 - the benchmark reports every error
        lines = traceback.format_exc().strip().splitlines()
        return ChainOutcome(0, 0, [f"{name}: {lines[-1]} | {lines[-3].strip()}"])


def main() -> int:
    parser = argument_parser(__doc__, quick="five small networks")
    parser.add_argument("--models", nargs="+", help="default: the smallest of each family")
    parser.add_argument(
        "--libraries",
        action="store_true",
        help="those of timm, segmentation-models-pytorch, MONAI and ultralytics (to be installed)",
    )
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds per network")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    default = [*LIBRARIES] if options.libraries else [*SMALLEST.values(), *FAMILIES, *OTHERS]
    names = options.models or (QUICK if options.quick else default)
    report = Report(
        "Random edits in a row: undone, redone and replayed",
        ["model", "applied", "refused", "errors", "s"],
    )
    errors: list[str] = []
    for name in progress(names, "editing"):
        start = perf_counter()
        found = run_chain(name, options.seed, options.budget)
        errors += found.errors
        seconds = perf_counter() - start
        report.add_row(name, found.applied, found.refused, len(found.errors), seconds)
        report.save(options.json)
    for error in errors:
        report.add_note(error)
    report.check_at_most("errors", len(errors), 0)
    return report.finish(options.json, options.check)


if __name__ == "__main__":
    sys.exit(main())

"""Grow and prune a network while it trains, by a rule of a dozen lines.

revacnn launch examples/01_digits.py      in one terminal: train and open the viewer
python examples/02_grow_and_prune.py      in another one: apply the rule to this training

The rule removes filters that contribute little, and adds some to the layer with the largest
gradient. Training continues with its optimizer state intact, and the viewer shows every edit.
"""

from __future__ import annotations

import argparse
from itertools import cycle

from revacnn_lightning import AddFilters, Batch, EditRefusedError, RemoveFilters, Run, attach

MIN_FILTERS, MAX_FILTERS = 4, 128  # of a layer
WEAK = 0.05  # of the mean activation of the layer


def propose_removal(batch: Batch) -> RemoveFilters | None:
    """Return a request that removes the weak filters of the layer that has most of them."""
    weak = {
        layer: (values < WEAK * values.mean()).nonzero()[0][: max(0, len(values) - MIN_FILTERS)]
        for layer, values in batch.statistic("activation").items()
    }
    layer = max(weak, key=lambda name: len(weak[name]))
    return RemoveFilters(layer, weak[layer]) if len(weak[layer]) else None


def propose_growth(batch: Batch) -> AddFilters | None:
    """Return a request that adds a tenth to the layer with the largest mean gradient."""
    means = {
        layer: values.mean()
        for layer, values in batch.statistic("gradient").items()
        if len(values) < MAX_FILTERS
    }
    layer = max(means, key=lambda name: means[name], default=None)
    return AddFilters(layer, 1 + len(batch[layer]["gradient"]) // 10) if layer else None


def grow_and_prune(run: Run, every: int) -> None:
    """Prune and grow in turns, each time after ``every`` batches, until the run has ended."""
    rules, next_edit = cycle([propose_removal, propose_growth]), every
    for batch in run.batches(newest_only=True):
        if batch.step < next_edit:
            continue
        next_edit = batch.step + every
        edit = next(rules)(batch)
        try:
            reply = run.apply(edit, version=batch.version) if edit else None
        except EditRefusedError as error:  # this network cannot be edited in this way
            print(f"Refused: {error}")
            continue
        if reply:
            parameters = f"{reply.plan.parameters_after:,} parameters"
            print(f"Batch {reply.step}: {reply.plan.title}, {parameters}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--connect", metavar="FILE", help="connection file (default: newest run)")
    parser.add_argument("--every", type=int, default=200, help="batches between two edits")
    options = parser.parse_args()
    with attach(options.connect, wait=60) as run:
        print(f"Attached to {run}", flush=True)
        grow_and_prune(run, options.every)
        print(f"Ended: {run}")


if __name__ == "__main__":
    main()

"""What agreement costs per batch without a request; how long an edit and the new wrapper take."""

from __future__ import annotations

import statistics
from pathlib import Path

import torch

from benchmarks.distributed.driver import make_editing_callback, median_ms, train_in_processes
from benchmarks.distributed.networks import ClassifierModule, make_loader, normalized_net
from benchmarks.report import Report
from benchmarks.training_loops import resnet18
from revacnn_lightning import AddFilters
from revacnn_lightning.runtime.ranks import agreement

__all__ = ["measure_costs"]

EDITED = "net.layer1.0.conv1"
# Batches before the end. A request without a viewer waits for some batches.
EDITS_FROM_END = (60, 48, 36, 24, 12)
EDITED_BATCHES = 64


def measure_costs(report: Report, processes: int, steps: int, folder: Path) -> None:
    """Measure agreement in batches without a request, then some edits of a ResNet-18."""
    alone, shown = agreement.IDLE_SECONDS_BETWEEN, agreement.SECONDS_BETWEEN
    for label, make_net, count, gap in (
        ("small network", normalized_net, 10 * steps, alone),
        ("small network, as with a viewer", normalized_net, 10 * steps, shown),
        ("resnet18", resnet18, 4 * steps, alone),
    ):
        agreement.IDLE_SECONDS_BETWEEN = gap  # also of the processes that are started
        module = ClassifierModule(make_net)
        is_edited = label == "resnet18"
        edits = {count - each: AddFilters(EDITED, 1) for each in EDITS_FROM_END if is_edited}
        driver = make_editing_callback(folder, lambda batch, _, edits=edits: edits.get(batch))
        data = make_loader(count, 4 * processes, torch.float32, processes)
        results = train_in_processes(module, data, folder / label, processes, driver)
        first = results[0]
        idle = count - EDITED_BATCHES
        cost = max(sum(each["costs"][: 2 * idle]) / idle for each in results)  # two calls per batch
        step = statistics.median(first["times"][1:idle])
        name = f"{label}, {processes} processes"
        wraps = median_ms(first["wraps"])
        report.add_row(name, len(first["applied"]), "", wraps, "", cost * 1e3, step * 1e3)
        report.check_at_most(f"{name}: agreement per batch, ms", cost * 1e3, 0.2)
        report.check_at_most(f"{name}: agreement, share of a step", cost / step, 0.005)
        if edits:
            for reason in first["refused"]:
                report.add_note(f"{name}: refused: {reason}")
            seconds = [each for _, _, each in first["applied"]] or [float("inf")]
            listed = ", ".join(f"{each * 1e3:.0f}" for each in seconds)
            report.add_note(f"{name}: the edits took {listed} ms")
            report.check_at_most(f"{name}: new wrapper, s", max(first["wraps"] or seconds), 0.6)
            # The first one includes the trace of the network, which a viewer gets when it attaches.
            edit = statistics.median(seconds)
            report.check_at_most(f"{name}: edit, in steps", edit / step, 1.0)
    agreement.IDLE_SECONDS_BETWEEN = alone

"""How long an edit takes, against a training step of the same model in the same run.

``python -m benchmarks.edit_time``

An edit here is all of `Editor.apply`: the trace, the surgery with Adam's state, the verifying
forwards and the journal. The probe is one sample of the batch, as a training uses it.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
from functools import partial
from time import perf_counter

import torch
import torchvision
from torch import nn

from benchmarks.report import Report, progress_bar
from benchmarks.steering_models import seeded, train_step
from revacnn_lightning.protocol import requests
from revacnn_lightning.steering import Editor, ForwardProbe

MODELS = ["resnet50", "densenet121", "efficientnet_b0"]
LIMIT = 0.25
BATCH = 8


def measure(
    name: str, pixels: int, edits: int, samples: int, seed: int, advance: object
) -> tuple[float, list[float], list[float]]:
    """Seconds: median training step, each removal, each growth. Steps and edits take turns."""
    model = seeded(partial(torchvision.models.get_model, name, weights=None), seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    x, y = torch.randn(BATCH, 3, pixels, pixels), torch.randint(1000, (BATCH,))
    editor = Editor(model, [optimizer])
    probe = ForwardProbe([partial(model, x[:samples])])
    convs = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d)]
    chosen = random.Random(seed).sample(convs, min(edits, len(convs)))
    train_step(model, optimizer, x, y)
    editor.channel_groups(
        probe
    )  # of the first edit only, as in a run whose structure is on display
    steps, removals, growths = [], [], []
    for layer in chosen:
        for kind, times in ((requests.RemoveFilters(layer, [0]), removals),
                            (requests.AddFilters(layer), growths)):  # fmt: skip
            times.append(editor.apply(kind, probe).seconds)
            advance(1)  # type: ignore[operator]
        if len(steps) < 5:
            start = perf_counter()
            train_step(model, optimizer, x, y)
            steps.append(perf_counter() - start)
    return statistics.median(steps), removals, growths


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--pixels", type=int, default=224)
    parser.add_argument("--edits", type=int, default=20, help="convs per model, two edits each")
    parser.add_argument("--samples", type=int, default=1, help="of the batch, for the probe")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="three convs per model")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--check", action="store_true", help="exit 1 if a figure is missed")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    edits = 3 if options.quick else options.edits
    report = Report(
        f"One edit against one training step (batch {BATCH}, {options.pixels} px, fp32)",
        ["model", "step ms", "remove ms", "add ms", "slowest ms", "edit / step"],
    )
    with progress_bar(2 * edits * len(options.models)) as advance:
        for name in options.models:
            step, removals, growths = measure(
                name, options.pixels, edits, options.samples, options.seed, advance
            )
            both = removals + growths
            ratio = statistics.median(both) / step
            report.row(name, 1e3 * step, 1e3 * statistics.median(removals),
                       1e3 * statistics.median(growths), 1e3 * max(both), ratio)  # fmt: skip
            report.check(f"{name}: median edit / step", ratio, f"at most {LIMIT}", ratio <= LIMIT)
    return report.finish(options.json, options.check)


if __name__ == "__main__":
    sys.exit(main())

"""Where does steering pay? Networks are treated, grown and pruned while they train.

- A network has collapsed: leave it, treat it, or start over?
- It begins narrow and grows where the gain is highest: is that better than a fixed shape?
- Its best shape is not known: is pruning to a budget by price better than by norms?

python examples/06_steering_pays.py                      handwritten digits
python examples/06_steering_pays.py cifar10/             and CIFAR-10
python examples/06_steering_pays.py cifar10/ --units 10  train ten networks at most this time

`cifar10/` holds `train/<class>/*.jpg` and `test/<class>/*.jpg`. A run may be interrupted at any
time: the results of each network become lines of a file, and the next sitting trains those that
are missing. The report is written from all results.
"""

from __future__ import annotations

import argparse
import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from grow_arms import train_grow_arms
from prune_arms import train_prune_arms
from rescue_networks import (
    ARMS,
    ConvClassifier,
    RescueSetting,
    accuracy_of,
    silent_filters,
    train_after_treatment,
    train_quietly,
)
from shape_networks import WIDTHS
from shape_report import ShapeSetting
from shape_training import BudgetTraining
from steering_report import write_steering_report
from study_images import Images, load_images
from study_results import append_results, read_results
from tqdm import tqdm

TRAIN_PER_CLASS = {RescueSetting: 300, ShapeSetting: 500}  # of CIFAR-10
TEST_PER_CLASS = 100
COLLAPSED = 0.2  # accuracy, of ten classes, at or below which a network has collapsed

# Their rates are those at which networks with other seeds, from 100 on, collapsed. The treatments
# were chosen on those as well.
RESCUES = [
    RescueSetting("CIFAR-10, three convolutions", "cifar10", "plain", 0.2, (1, 5), 10, 10),
    RescueSetting("CIFAR-10, five convolutions", "cifar10", "deep", 0.2, (1, 5), 10, 10),
    RescueSetting("digits, three convolutions", "digits", "plain", 0.4, (2, 10), 20, 20),
    RescueSetting("digits, five convolutions", "digits", "deep", 0.4, (2, 10), 20, 20),
]
# Their epochs and goals were chosen on networks with seeds from 1000 on, by time and so that most
# reach the goals.
SHAPES = [
    ShapeSetting("growing: digits, plain", "grow", "digits", "plain", 3, 10, 0.93),
    ShapeSetting("growing: digits, residual", "grow", "digits", "residual", 3, 10, 0.93),
    ShapeSetting("pruning: digits, plain", "prune", "digits", "plain", 6, 10, 0.93),
    ShapeSetting("pruning: digits, residual", "prune", "digits", "residual", 6, 10, 0.93),
    ShapeSetting("growing: CIFAR-10, plain", "grow", "cifar10", "plain", 2, 10, 0.4),
    ShapeSetting("growing: CIFAR-10, residual", "grow", "cifar10", "residual", 2, 10, 0.4),
    ShapeSetting("pruning: CIFAR-10, plain", "prune", "cifar10", "plain", 2, 10, 0.4),
    ShapeSetting("pruning: CIFAR-10, residual", "prune", "cifar10", "residual", 2, 10, 0.4),
]
SETTINGS: list[RescueSetting | ShapeSetting] = [*RESCUES, *SHAPES]


def run_rescue_arms(setting: RescueSetting, seed: int, images: Images) -> list[dict[str, Any]]:
    """Return one result for each moment and arm of a network, or one if it did not collapse."""
    pl.seed_everything(seed, verbose=False)
    network = ConvClassifier(setting.architecture, images.shape, setting.rate)
    known = {"setting": setting.title, "seed": seed}
    results, epoch = [], 0
    for moment in setting.moments:
        train_quietly(network, images, moment - epoch)
        epoch = moment
        accuracy = accuracy_of(network, images.test)
        if accuracy > COLLAPSED or not all(p.isfinite().all() for p in network.parameters()):
            results.append({**known, "moment": moment, "arm": "", "accuracy": _finite(accuracy)})
            break
        silent = silent_filters(network, images.train.tensors[0])
        before = {"moment": moment, "silent": sum(map(len, silent.values()))}
        for arm in ARMS:
            pl.seed_everything(1000 * seed + moment, verbose=False)  # the same batches for all
            treated = train_after_treatment(
                copy.deepcopy(network), arm, setting, images, setting.epochs - moment
            )
            after = accuracy_of(treated, images.test)
            left = silent_filters(treated, images.train.tensors[0])
            results.append(
                {
                    **known, **before, "arm": arm, "accuracy": after,
                    "left": sum(map(len, left.values())),
                }
            )  # fmt: skip
        pl.seed_everything(1000 * seed + moment, verbose=False)  # continue as the first arm did
    return results


def run_shape_arms(setting: ShapeSetting, seed: int, images: Images) -> list[dict[str, Any]]:
    """Return one result for each arm of growing, or of pruning."""
    training = BudgetTraining(setting.architecture, images, 0.0, seed)
    each = training.macs_per_image(WIDTHS[setting.architecture])
    training = training._replace(budget=each * setting.epochs * len(images.train))
    arms = {"grow": train_grow_arms, "prune": train_prune_arms}[setting.part](training)
    return [
        {"setting": setting.title, "seed": seed, "arm": arm, **outcome.to_result(training)}
        for arm, outcome in arms.items()
    ]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def run_missing_studies(
    settings: Sequence[RescueSetting | ShapeSetting],
    root: Path | None,
    file: Path,
    max_networks: int,
) -> None:
    """Study at most `max_networks` networks that have no result yet, and append their results."""
    known = {(each["setting"], each["seed"]) for each in read_results(file)}
    missing = [
        (setting, seed)
        for setting in settings
        for seed in range(setting.seeds)
        if (setting.title, seed) not in known
    ]
    missing.sort(key=lambda each: each[1] / each[0].seeds)  # all settings advance together
    images: dict[tuple[str, int], Images] = {}
    for setting, seed in tqdm(missing[:max_networks], unit="network"):
        key = setting.data, TRAIN_PER_CLASS[type(setting)]
        if key not in images:
            images[key] = load_images(setting.data, root, key[1], TEST_PER_CLASS)
        study = run_shape_arms if isinstance(setting, ShapeSetting) else run_rescue_arms
        append_results(file, study(setting, seed, images[key]))


def main() -> None:
    options = parse_arguments()
    torch.set_num_threads(options.threads)
    chosen = [SETTINGS[index] for index in options.settings]
    settings = [one for one in chosen if one.data == "digits" or options.folder is not None]
    options.results.parent.mkdir(parents=True, exist_ok=True)
    run_missing_studies(settings, options.folder, options.results, options.units)
    results = read_results(options.results)
    if not results:
        raise SystemExit("There is no result to report: train some networks first")
    write_steering_report(results, SETTINGS, options.report)
    print(f"Wrote {options.report} about {len(results)} results")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", help="CIFAR-10 as an image folder")
    parser.add_argument(
        "--settings", type=int, nargs="+", default=list(range(len(SETTINGS))),
        choices=range(len(SETTINGS)), help="only these, by their place in SETTINGS",
    )  # fmt: skip
    parser.add_argument("--units", type=int, default=10**6, help="networks in this sitting")
    parser.add_argument("--results", type=Path, default=Path("steering_pays.jsonl"))
    parser.add_argument("--report", type=Path, default=Path("steering_pays.md"))
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()

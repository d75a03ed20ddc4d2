"""Check in public what the 2016 work claims: patterns of filters show how well a network trained.

python examples/05_published_patterns.py cifar10/                  train, and write the report
python examples/05_published_patterns.py cifar10/ --networks 20    train 20 at most this time

`cifar10/` holds `train/<class>/*.jpg` and `test/<class>/*.jpg`. Networks with random settings are
trained for a few epochs: a run of hours, which may be interrupted at any time. Each network becomes
a line of the file of results, and the next sitting trains those that are missing. The report is
written from all results.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import torch
from pattern_networks import draw_settings, train_and_measure
from pattern_report import write_pattern_report
from study_images import Images, load_images
from study_results import append_results, read_results
from tqdm import tqdm


class PatternStudy(NamedTuple):
    """Networks of one architecture, trained on one data set with the settings of `seeds`."""

    title: str
    data: str
    architecture: str
    networks: int
    epochs: int


STUDIES = [
    PatternStudy("CIFAR-10, original network", "cifar10", "original", 120, 4),
    PatternStudy("CIFAR-10, network with batch norm", "cifar10", "normalized", 60, 4),
    PatternStudy("handwritten digits, original network", "digits", "original", 60, 20),
]


def train_missing_networks(
    studies: list[PatternStudy], root: Path | None, file: Path, max_networks: int
) -> None:
    """Train at most `max_networks` networks that have no result yet, and append the results."""
    known = {(each["study"], each["seed"]) for each in read_results(file)}
    missing = [
        (study, seed)
        for study in studies
        for seed in range(study.networks)
        if (study.title, seed) not in known
    ]
    missing.sort(key=lambda each: each[1] / each[0].networks)  # all studies advance together
    images: dict[str, Images] = {}
    for study, seed in tqdm(missing[:max_networks], unit="network"):
        if study.data not in images:
            images[study.data] = load_images(study.data, root)
        settings = draw_settings(study.architecture, seed)
        result = train_and_measure(settings, images[study.data], study.epochs)
        append_results(file, [{"study": study.title, **result}])


def main() -> None:
    options = parse_arguments()
    torch.set_num_threads(options.threads)
    studies = [study for study in STUDIES if not options.data or study.data in options.data]
    options.results.parent.mkdir(parents=True, exist_ok=True)
    train_missing_networks(studies, options.folder, options.results, options.networks)
    results = read_results(options.results)
    if not results:
        raise SystemExit("There is no result to report: train some networks first")
    write_pattern_report(results, sum(study.networks for study in STUDIES), options.report)
    print(f"Wrote {options.report} about {len(results)} networks")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", help="CIFAR-10 as an image folder")
    parser.add_argument("--data", nargs="+", choices=["cifar10", "digits"], help="only these")
    parser.add_argument("--networks", type=int, default=10**6, help="to train in this sitting")
    parser.add_argument("--results", type=Path, default=Path("published_patterns.jsonl"))
    parser.add_argument("--report", type=Path, default=Path("published_patterns.md"))
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()

"""The report of `05_published_patterns.py`: do patterns of filters show bad training?

Networks with an even seed choose which measure is the best one. Those with an odd seed, the other
architecture and the other data set only test it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import rankdata

MEASURES = {
    "silhouette": "clusters of filters: silhouette, minus that of random filters",
    "hopkins": "clusters of filters: Hopkins' statistic",
    "effective_rank": "directions that the filters span: effective rank / that of random filters",
    "near_duplicates": "share of filters that have a near duplicate",
    "single_color": "share of filters of a single color",
    "silent": "share of filters that no test image activates",
    "late_movement": "instability: relative change of the weights in the last epoch",
}
# What the 2016 work claims, and the measure of it: the larger, the worse the network.
CLAIMS = {
    "clusters of filters": "silhouette",
    "filters of a single color": "single_color",
    "unstable filters": "late_movement",
}
# A measure that is larger in better networks.
IS_GOOD = {"effective_rank"}
MOVED = 0.2  # median over the layers of |W - W₀| / |W₀|, from which on a network has left its start
DRAWS = 1000  # of the bootstrap
MIN_NETWORKS = 9  # fewer say nothing about a third of them

Result = dict[str, Any]


class Interval(NamedTuple):
    """A value with its 95 % interval, by the bootstrap over networks."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "–"
        return f"{self.value:+.2f} ({self.low:+.2f} to {self.high:+.2f})"


def has_left_initialization(result: Result) -> bool:
    """Return whether a network has left its random start, and is finite."""
    movement = np.array([layer["movement"] for layer in result["layers"]], float)
    return bool(np.isfinite(movement).all() and np.median(movement) > MOVED)


def measure_values(results: Sequence[Result], measure: str, layer: int) -> np.ndarray:
    """Return a measure of one layer of all networks, float64 (n,)."""
    return np.array([result["layers"][layer][measure] for result in results], float)


def accuracies(results: Sequence[Result]) -> np.ndarray:
    return np.array([result["accuracy"] for result in results])


def bootstrap_interval(
    values: np.ndarray, accuracy: np.ndarray, statistic: Callable[[np.ndarray, np.ndarray], float]
) -> Interval:
    """Return a statistic of (values, accuracies) with its interval; NaN if nothing varies."""
    known = np.isfinite(values)
    values, accuracy = values[known], accuracy[known]
    if len(values) < MIN_NETWORKS or np.ptp(values) == 0 or np.ptp(accuracy) == 0:
        return Interval(*[math.nan] * 3)
    generator = np.random.default_rng(0)
    draws = []
    for _ in range(DRAWS):
        chosen = generator.integers(len(values), size=len(values))
        if np.ptp(values[chosen]) > 0 and np.ptp(accuracy[chosen]) > 0:
            draws.append(statistic(values[chosen], accuracy[chosen]))
    low, high = np.nanpercentile(draws, [2.5, 97.5])
    return Interval(statistic(values, accuracy), float(low), float(high))


def rank_correlation(values: np.ndarray, accuracy: np.ndarray) -> float:
    """Return Spearman's correlation: that of the ranks."""
    return float(np.corrcoef(rankdata(values), rankdata(accuracy))[0, 1])


def is_worst_third(accuracy: np.ndarray) -> np.ndarray:
    """Return which networks are the worst third, bool (n,); equal accuracies in the given order."""
    return rankdata(accuracy, method="ordinal") <= len(accuracy) / 3


def worst_third_auc(badness: np.ndarray, accuracy: np.ndarray) -> float:
    """Return how probably one of the worst third has the larger badness than one of the others."""
    worst = is_worst_third(accuracy)
    n_worst, n_others = int(worst.sum()), int((~worst).sum())
    ranks = rankdata(badness)
    return float((ranks[worst].sum() - n_worst * (n_worst + 1) / 2) / (n_worst * n_others))


def badness_of(results: Sequence[Result], measure: str, layer: int) -> np.ndarray:
    """Return a measure with the sign that makes it larger in worse networks, as is claimed."""
    values = measure_values(results, measure, layer)
    return -values if measure in IS_GOOD else values


def choose_best_detector(results: Sequence[Result]) -> tuple[str, int]:
    """Return the measure and the layer that identify the worst third of these networks best."""
    accuracy = accuracies(results)

    def score(place: tuple[str, int]) -> float:
        badness = badness_of(results, *place)
        known = np.isfinite(badness)
        if known.sum() < MIN_NETWORKS:
            return -1.0
        return worst_third_auc(badness[known], accuracy[known])

    layers = range(len(results[0]["layers"]))
    return max(((measure, layer) for measure in MEASURES for layer in layers), key=score)


def describe_study(title: str, results: Sequence[Result]) -> list[str]:
    """Return the section of one study: each measure's correlation with the accuracy."""
    moved = [result for result in results if has_left_initialization(result)]
    accuracy = accuracies(results)
    low, median, high = np.percentile(accuracy, [0, 50, 100])
    lines = [
        f"## {title}",
        "",
        f"{len(results)} networks; {len(moved)} have left their random start. Accuracy: "
        f"{low:.2f} to {high:.2f}, median {median:.2f}.",
        "",
        "Spearman's correlation with the accuracy, with the 95 % interval:",
        "",
        "| measure | layer | all networks | those that have left their start |",
        "|---|---|---|---|",
    ]
    for measure, meaning in MEASURES.items():
        for layer in range(len(results[0]["layers"])):
            of_all, of_moved = (
                bootstrap_interval(
                    measure_values(part, measure, layer), accuracies(part), rank_correlation
                )
                for part in (results, moved)
            )
            if not (math.isnan(of_all.value) and math.isnan(of_moved.value)):
                lines.append(f"| {meaning} | {layer + 1} | {of_all} | {of_moved} |")
    return [*lines, ""]


def layers_supporting_claim(results: Sequence[Result], measure: str) -> str:
    """Return in which layers a measure is larger in worse networks, as is claimed."""
    found: dict[str, list[str]] = {"supported": [], "contradicted": [], "not shown": []}
    for layer in range(len(results[0]["layers"]) if results else 0):
        low, high = bootstrap_interval(
            measure_values(results, measure, layer), accuracies(results), rank_correlation
        )[1:]
        if math.isnan(low):
            continue
        verdict = "supported" if high < 0 else "contradicted" if low > 0 else "not shown"
        found[verdict].append(str(layer + 1))
    return (
        "; ".join(
            f"{verdict} in layer{'s' * (len(layers) > 1)} {', '.join(layers)}"
            for verdict, layers in found.items()
            if layers
        )
        or "–"
    )


def describe_claims(studies: dict[str, list[Result]]) -> list[str]:
    """Return the table of what is claimed and what these networks show."""
    lines = [
        "## What is claimed, and what these networks show",
        "",
        "Among networks that have left their start. *Supported*: a worse network has more of it, "
        "and the 95 % interval of the correlation excludes zero. *Contradicted*: a worse network "
        "has less of it. Correlation is not cause: what makes a network bad may make its filters "
        "alike.",
        "",
        f"| claim: a badly trained network has | {' | '.join(studies)} |",
        f"|---|{'---|' * len(studies)}",
    ]
    for claim, measure in CLAIMS.items():
        verdicts = [
            layers_supporting_claim(
                [each for each in found if has_left_initialization(each)], measure
            )
            for found in studies.values()
        ]
        lines.append(f"| {claim} | {' | '.join(verdicts)} |")
    return [*lines, ""]


def describe_detection(studies: dict[str, list[Result]]) -> list[str]:
    """Return the section about telling the worst third: chosen on even seeds, tested on others."""
    first, *others = studies
    moved = {
        title: [each for each in found if has_left_initialization(each)]
        for title, found in studies.items()
    }
    development = [each for each in moved[first] if each["seed"] % 2 == 0]
    if len(development) < MIN_NETWORKS:
        return ["## Finding the worst third", "", "There are too few networks for this yet.", ""]
    measure, layer = choose_best_detector(development)
    tests = {
        f"{first}, even seeds (chosen on these)": development,
        f"{first}, odd seeds": [each for each in moved[first] if each["seed"] % 2],
        **{title: moved[title] for title in others},
    }
    lines = [
        "## Finding the worst third",
        "",
        f"The best measure of the even seeds: {MEASURES[measure]}, in layer {layer + 1}. Among "
        "networks that have left their start, this is how probably it is worse in one of the worst "
        "third than in one of the others (the area under the ROC curve; 0.5 is chance):",
        "",
        "| networks | number | area under the curve |",
        "|---|---|---|",
    ]
    for title, found in tests.items():
        badness = badness_of(found, measure, layer) if found else np.empty(0)
        area = bootstrap_interval(badness, accuracies(found), worst_third_auc)
        lines.append(f"| {title} | {len(found)} | {str(area).replace('+', '')} |")
    return [*lines, ""]


def write_pattern_report(results: Sequence[Result], planned: int, file: Path) -> None:
    """Write the report about all results as Markdown; ``planned`` networks make it complete."""
    studies: dict[str, list[Result]] = {}
    for result in results:
        studies.setdefault(result["study"], []).append(result)
    lines = [
        "# Do patterns of filters show bad training?",
        "",
        "Written by `examples/05_published_patterns.py` from networks with random optimizers, "
        "learning rates, scales of the initial weights and weight decays. A network has left its "
        f"start if the median over its layers of |W − W₀| / |W₀| is more than {MOVED}: one that "
        "never did has the filters of a healthy one, whatever its accuracy is.",
        "",
        f"{len(results)} of {planned} planned networks are trained.",
        "",
        *describe_claims(studies),
        *describe_detection(studies),
    ]
    for title, found in studies.items():
        lines += describe_study(title, found)
    file.write_text("\n".join(lines))

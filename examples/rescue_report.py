"""The report of `06_steering_pays.py`: which treatment of a collapsed network pays, and when."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rescue_networks import ARMS, Setting
from scipy.stats import t as student

Result = dict[str, Any]
MIN_PAIRS = 5  # fewer say nothing
RESTARTED = "restart front to back"
COMPARED = ("leave", "lower the rate", "restart all together", "start over")
FAILED = 0.2  # accuracy, of ten classes, at or below which a treatment has failed
INTRODUCTION = [
    "# Does steering pay? A collapsed network",
    "",
    "Written by `examples/06_steering_pays.py`. Networks without batch norm are trained at a rate "
    "at which most collapse: filters fall silent, and the accuracy is that of chance. Each one is "
    "then treated in five ways, with the epochs that are left of one budget. All treatments but "
    "the first lower the rate to a tenth. Intervals are 95 % of paired differences of the accuracy "
    f"on test images. A treatment has *failed* at an accuracy of at most {FAILED}, with ten "
    "classes.",
    "",
    "- *restart all together*: each silent filter gets new random values and outgoing weights of "
    "zero, beginning with the last layer. This is the edit *Reinitialize* of the page.",
    "- *restart front to back*: the same edit, beginning with the first layer. After each layer, "
    "the script scales its filters, also those that were not silent, to the response that a new "
    "network has to training images (Mishkin & Matas 2016), and forgets the momentum. The page has "
    "no button for that.",
    "- *start over*: a new network for the epochs that are left.",
    "",
    "The restart was developed on networks of three convolutions with other seeds. With random "
    "values of the usual scale, or with a response of variance 1, it failed in some of them. The "
    "intervals are not corrected for the number of comparisons. A network that has recovered by "
    "itself at the second moment is not treated there.",
    "",
]


class Difference(NamedTuple):
    """The mean of paired differences with its 95 % interval, by Student's t."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isnan(self.mean):
            return "–"
        return f"{self.mean:+.3f} ({self.low:+.3f} to {self.high:+.3f})"


def paired_difference(first: np.ndarray, second: np.ndarray) -> Difference:
    """Return ``first`` minus ``second``, (n,) each, in pairs; NaN for too few pairs."""
    differences = np.asarray(first, float) - np.asarray(second, float)
    n = len(differences)
    if n < MIN_PAIRS:
        return Difference(*[math.nan] * 3)
    mean, error = differences.mean(), differences.std(ddof=1) / math.sqrt(n)
    half = float(student.ppf(0.975, n - 1) * error)
    return Difference(float(mean), float(mean) - half, float(mean) + half)


def by_arm(results: Sequence[Result], moment: int) -> dict[str, np.ndarray]:
    """Return the accuracies of the networks that have every arm at a moment, in one order."""
    of_seed: dict[int, dict[str, float]] = {}
    for one in results:
        if one["moment"] == moment and one["arm"]:
            of_seed.setdefault(one["seed"], {})[one["arm"]] = one["accuracy"]
    complete = [arms for _, arms in sorted(of_seed.items()) if set(arms) == set(ARMS)]
    return {arm: np.array([arms[arm] for arms in complete]) for arm in ARMS}


def judge(difference: Difference) -> str:
    if math.isnan(difference.mean):
        return "too few networks"
    if difference.low > 0:
        return "pays"
    return "does not pay: worse" if difference.high < 0 else "not shown"


def describe_moment(setting: Setting, results: Sequence[Result], moment: int) -> list[str]:
    """Return the tables of one moment: the accuracies, and the paired comparisons."""
    found = by_arm(results, moment)
    n = len(found["leave"])
    lines = [f"### Noticed after {moment} of {setting.epochs} epochs", ""]
    if not n:
        return [*lines, "No network had collapsed.", ""]
    silent = [one["silent"] for one in results if one["moment"] == moment and one["arm"] == "leave"]
    lines += [
        f"{n} networks; {min(silent)} to {max(silent)} filters of each were silent.",
        "",
        "| treatment | mean accuracy | worst | best | failed |",
        "|---|---|---|---|---|",
    ]
    for arm, accuracy in found.items():
        n_failed = int((accuracy <= FAILED).sum())
        lines.append(
            f"| {arm} | {accuracy.mean():.3f} | {accuracy.min():.3f} | {accuracy.max():.3f} "
            f"| {n_failed} of {n} |"
        )
    lines += ["", f"| {RESTARTED} against | difference | restarting |", "|---|---|---|"]
    for arm in COMPARED:
        difference = paired_difference(found[RESTARTED], found[arm])
        lines.append(f"| {arm} | {difference} | {judge(difference)} |")
    return [*lines, ""]


def describe_answer(results: Sequence[Result], settings: Sequence[Setting]) -> list[str]:
    """Return the table of all moments in one line each: where restarting pays, and where not."""
    lines = [
        "## Where restarting pays",
        "",
        f"*{RESTARTED}* against the other treatments, by the 95 % interval of the difference.",
        "",
        f"| network | noticed after | networks | {' | '.join(COMPARED)} |",
        f"|---|---|---|{'---|' * len(COMPARED)}",
    ]
    for setting in settings:
        own = [one for one in results if one["setting"] == setting.title]
        for moment in setting.moments:
            found = by_arm(own, moment)
            n = len(found["leave"])
            if n:
                words = [judge(paired_difference(found[RESTARTED], found[a])) for a in COMPARED]
                share = moment / setting.epochs
                lines.append(f"| {setting.title} | {share:.0%} | {n} | {' | '.join(words)} |")
    return [*lines, ""]


def describe_setting(setting: Setting, results: Sequence[Result]) -> list[str]:
    seeds = {one["seed"] for one in results}
    kept = {one["seed"] for one in results if one["arm"]}
    lines = [
        f"## {setting.title}",
        "",
        f"{len(seeds)} of {setting.seeds} planned networks were trained at rate "
        f"{setting.rate:g}; {len(kept)} collapsed.",
        "",
    ]
    for moment in setting.moments:
        lines += describe_moment(setting, results, moment)
    return lines


def write_report(results: Sequence[Result], settings: Sequence[Setting], file: Path) -> None:
    """Write the report about all results as Markdown."""
    lines = [*INTRODUCTION, *describe_answer(results, settings)]
    for setting in settings:
        own = [one for one in results if one["setting"] == setting.title]
        if own:
            lines += describe_setting(setting, own)
    file.write_text("\n".join(lines).rstrip() + "\n")

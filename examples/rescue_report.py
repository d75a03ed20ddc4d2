"""The part of the report of `06_steering_pays.py` about treatments of a collapsed network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from paired_differences import Difference, paired_difference, steering_verdict
from rescue_networks import ARMS, RescueSetting

Result = dict[str, Any]
RESTARTED = "restart front to back"
COMPARED = ("leave", "lower the rate", "restart all together", "start over")
FAILED = 0.2  # accuracy, of ten classes, at or below which a treatment has failed
INTRODUCTION = [
    "## A collapsed network",
    "",
    "Networks without batch norm are trained at a rate at which most collapse: filters fall "
    "silent, and the accuracy is that of chance. Each one is then treated in five ways, with the "
    "epochs that are left of one budget. All treatments but the first lower the rate to a tenth. A "
    f"treatment has *failed* at an accuracy of at most {FAILED}, with ten classes.",
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
    "values of the usual scale, or with a response of variance 1, it failed in some of them. A "
    "network that has recovered by itself at the second moment is not treated there.",
    "",
]


def accuracies_by_arm(results: Sequence[Result], moment: int) -> dict[str, np.ndarray]:
    """Return the accuracies of the networks that have every arm at a moment, in one order."""
    of_seed: dict[int, dict[str, float]] = {}
    for one in results:
        if one["moment"] == moment and one["arm"]:
            of_seed.setdefault(one["seed"], {})[one["arm"]] = one["accuracy"]
    complete = [arms for _, arms in sorted(of_seed.items()) if set(arms) == set(ARMS)]
    return {arm: np.array([arms[arm] for arms in complete]) for arm in ARMS}


def compare_restarts(
    setting: RescueSetting, results: Sequence[Result]
) -> dict[int, dict[str, Difference]]:
    """Return what restarting gains over each other treatment, by moment."""
    found = {}
    for moment in setting.moments:
        accuracies = accuracies_by_arm(results, moment)
        if len(accuracies[RESTARTED]):
            found[moment] = {
                arm: paired_difference(accuracies[RESTARTED], accuracies[arm]) for arm in COMPARED
            }
    return found


def describe_moment(setting: RescueSetting, results: Sequence[Result], moment: int) -> list[str]:
    """Return the tables of one moment: the accuracies, and the paired comparisons."""
    found = accuracies_by_arm(results, moment)
    n = len(found["leave"])
    lines = [f"#### Noticed after {moment} of {setting.epochs} epochs", ""]
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
    for arm, difference in compare_restarts(setting, results)[moment].items():
        lines.append(f"| {arm} | {difference} | {steering_verdict(difference)} |")
    return [*lines, ""]


def describe_where_restarting_pays(
    results: Sequence[Result], settings: Sequence[RescueSetting]
) -> list[str]:
    """Return the table of all moments in one line each: where restarting pays, and where not."""
    lines = [
        "### Where restarting pays",
        "",
        f"*{RESTARTED}* against the other treatments, by the 95 % interval of the difference.",
        "",
        f"| network | noticed after | networks | {' | '.join(COMPARED)} |",
        f"|---|---|---|{'---|' * len(COMPARED)}",
    ]
    for setting in settings:
        own = [one for one in results if one["setting"] == setting.title]
        for moment, differences in compare_restarts(setting, own).items():
            n, share = len(accuracies_by_arm(own, moment)["leave"]), moment / setting.epochs
            words = " | ".join(map(steering_verdict, differences.values()))
            lines.append(f"| {setting.title} | {share:.0%} | {n} | {words} |")
    return [*lines, ""]


def describe_rescue_setting(setting: RescueSetting, results: Sequence[Result]) -> list[str]:
    seeds = {one["seed"] for one in results}
    kept = {one["seed"] for one in results if one["arm"]}
    lines = [
        f"### {setting.title}",
        "",
        f"{len(seeds)} of {setting.seeds} planned networks were trained at rate "
        f"{setting.rate:g}; {len(kept)} collapsed.",
        "",
    ]
    for moment in setting.moments:
        lines += describe_moment(setting, results, moment)
    return lines


def describe_rescue(results: Sequence[Result], settings: Sequence[RescueSetting]) -> list[str]:
    """Return the section of this part; [] if it has no results."""
    own = {
        setting: [one for one in results if one["setting"] == setting.title] for setting in settings
    }
    if not any(own.values()):
        return []
    lines = [*INTRODUCTION, *describe_where_restarting_pays(results, settings)]
    for setting, found in own.items():
        if found:
            lines += describe_rescue_setting(setting, found)
    return lines

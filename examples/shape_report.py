"""The parts of the report of `06_steering_pays.py` about growing and about pruning to a budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from grow_arms import GROW_ARMS
from paired_differences import Difference, paired_difference, steering_verdict
from prune_arms import PRUNE_ARMS

__all__ = ["GROW", "PARTS", "PRUNE", "ReportPart", "ShapeSetting", "compare_arms", "describe_part"]

Result = dict[str, Any]


class ShapeSetting(NamedTuple):
    """What is trained.

    Attributes:
        part: "grow" or "prune".
        epochs: of the reference shape, whose multiply-accumulates are the budget of each training.
        goal: accuracy; the running cost is what is spent until it is reached.
    """

    title: str
    part: str
    data: str
    architecture: str
    epochs: int
    seeds: int
    goal: float


class ReportPart(NamedTuple):
    """A part of the report.

    Attributes:
        steered: the arms that are compared with all arms that are not.
    """

    name: str
    heading: str
    introduction: str
    arms: tuple[str, ...]
    steered: tuple[str, ...]

    def compared_arms(self, steered: str) -> list[str]:
        """Return what an arm is compared with: all others, but the first one only once."""
        return [arm for arm in self.arms if arm not in (steered, self.arms[0])]


GROW = ReportPart(
    "grow",
    "Growing where the gain is highest",
    "A network with a quarter of the filters of a reference shape grows up to eight times in the "
    "first half of its budget, by four filters each time, in the layer with the highest growth "
    "gain and in the directions of the gain. It grows no further when an image costs as much as in "
    "the reference shape. This is *grown*. All others are trained with as many "
    "multiply-accumulates: *final shape* is the shape in which *grown* ends, from scratch; *half "
    "as wide* has half of the filters of the reference shape, from scratch; *random filters* grows "
    "in the same layers at the same times, by random filters; *rebuilt optimizer* does that, and "
    "replaces the optimizer by a new one after each growth. The comparisons of *random filters* "
    "were added when its results on digits were known.",
    GROW_ARMS,
    ("grown", "random filters"),
)
PRUNE = ReportPart(
    "prune",
    "Pruning to a budget, with a shape that is not known",
    "A network of the reference shape is trained with 40 % of its budget. Then it loses up to "
    "eight filters every eight batches, until an image costs as little as in a network with half "
    "of the filters in each layer. *by price* is `PruneTo`, which chooses by the measured price; "
    "*by norm* removes the filters with the smallest norms, relative to the mean of their layer; "
    "*uniform halving* removes those of each layer in turn, down to a half. *halved shape from "
    "scratch* and *found shape from scratch* are trained with as many multiply-accumulates from "
    "the beginning, the second in the shape in which *by price* ends.",
    PRUNE_ARMS,
    ("by price",),
)
PARTS = (GROW, PRUNE)
CONDITIONS = (
    "Adam with its usual rate trains all of them, on batches of 64 images in the same order. The "
    "budget counts the forwards of the training batches; a training step costs about three times "
    "as much for every shape. It does not count what gains and prices cost. The seconds do, and "
    "the pauses of a network that is grown by an attached script, on a machine that others use, "
    "too. Epochs and goals were chosen on networks with other seeds, from 1000 on. Nothing was "
    "tuned on these."
)


class ArmResults(NamedTuple):
    """The results of the seeds that have every arm, in one order: (seeds,) arrays by arm."""

    results: dict[str, list[Result]]

    @property
    def seed_count(self) -> int:
        return len(next(iter(self.results.values())))

    def values(self, arm: str, name: str) -> np.ndarray:
        return np.array([float(one[name]) for one in self.results[arm]])

    def running_costs(self, arm: str, goal: float) -> np.ndarray:
        """Return the share of the budget until the accuracy is reached; 1 if it never is."""
        return np.array([cost_until_goal(one["curve"], goal) for one in self.results[arm]])


def cost_until_goal(curve: Sequence[Sequence[float]], goal: float) -> float:
    return min(next((share for share, accuracy in curve if accuracy >= goal), 1.0), 1.0)


def complete_arms(part: ReportPart, results: Sequence[Result]) -> ArmResults:
    of_seed: dict[int, dict[str, Result]] = {}
    for one in results:
        of_seed.setdefault(one["seed"], {})[one["arm"]] = one
    complete = [arms for _, arms in sorted(of_seed.items()) if set(arms) == set(part.arms)]
    return ArmResults({arm: [arms[arm] for arms in complete] for arm in part.arms})


def compare_arms(
    part: ReportPart, steered: str, results: Sequence[Result]
) -> dict[str, Difference]:
    """Return what a steered arm gains in accuracy over each other one."""
    arms = complete_arms(part, results)
    accuracies = {arm: arms.values(arm, "accuracy") for arm in part.arms}
    return {
        arm: paired_difference(accuracies[steered], accuracies[arm])
        for arm in part.compared_arms(steered)
    }


def describe_part(
    part: ReportPart, results: Sequence[Result], settings: Sequence[ShapeSetting]
) -> list[str]:
    """Return the section of a part; [] if it has no results."""
    known = [
        (setting, [one for one in results if one["setting"] == setting.title])
        for setting in settings
        if setting.part == part.name
    ]
    known = [(setting, own) for setting, own in known if own]
    if not known:
        return []
    lines = [f"## {part.heading}", "", part.introduction, "", CONDITIONS, ""]
    for steered in part.steered:
        others = part.compared_arms(steered)
        lines += [
            f"*{steered}* against the others, by the 95 % interval of the difference of the "
            "accuracy:", "",
            f"| network | seeds | {' | '.join(others)} |", f"|---|---|{'---|' * len(others)}",
        ]  # fmt: skip
        for setting, own in known:
            words = " | ".join(map(steering_verdict, compare_arms(part, steered, own).values()))
            lines.append(f"| {setting.title} | {complete_arms(part, own).seed_count} | {words} |")
        lines.append("")
    for setting, own in known:
        lines += describe_shape_setting(part, setting, own)
    if part is GROW:
        lines += describe_running_cost(known)
    return lines


def describe_shape_setting(
    part: ReportPart, setting: ShapeSetting, results: Sequence[Result]
) -> list[str]:
    """Return the tables of one network: the arms, and the paired comparisons."""
    arms = complete_arms(part, results)
    lines = [
        f"### {setting.title}", "",
        f"{arms.seed_count} of {setting.seeds} planned seeds. The budget is that of "
        f"{setting.epochs} epochs of the reference shape.",
        "",
        "| arm | mean accuracy | worst | best | last shape | MACs of an image | batches "
        "| seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    if not arms.seed_count:
        return [*lines, ""]
    for arm in part.arms:
        accuracy = arms.values(arm, "accuracy")
        shapes = np.array([one["widths"] for one in arms.results[arm]]).mean(0)
        shape = "-".join(f"{width:.0f}" for width in shapes)
        lines.append(
            f"| {arm} | {accuracy.mean():.3f} | {accuracy.min():.3f} | {accuracy.max():.3f} "
            f"| {shape} | {arms.values(arm, 'macs').mean():,.0f} "
            f"| {arms.values(arm, 'batches').mean():.0f} "
            f"| {arms.values(arm, 'seconds').mean():.1f} |"
        )
    for steered in part.steered:
        lines += ["", f"| {steered} against | difference of the accuracy | steering |",
                  "|---|---|---|"]  # fmt: skip
        for arm, difference in compare_arms(part, steered, results).items():
            lines.append(f"| {arm} | {difference} | {steering_verdict(difference)} |")
    return [*lines, ""]


def describe_running_cost(known: Sequence[tuple[ShapeSetting, Sequence[Result]]]) -> list[str]:
    """Return the section about what is spent until an accuracy is reached."""
    lines = [
        "## Running cost", "",
        "The share of the budget of multiply-accumulates until the networks of the last section "
        "reach a given accuracy on test images, which is measured at each twelfth of the budget. A "
        "network that never reaches it counts as if it did at the end, which makes it look better "
        "than it is. A positive difference means that the steered network needs less.",
        "",
    ]  # fmt: skip
    for setting, own in known:
        arms = complete_arms(GROW, own)
        if not arms.seed_count:
            continue
        costs = {arm: arms.running_costs(arm, setting.goal) for arm in GROW.arms}
        lines += [f"### {setting.title}: accuracy {setting.goal:g}", "",
                  "| arm | reached | share of the budget |", "|---|---|---|"]  # fmt: skip
        for arm in GROW.arms:
            reached = sum(
                any(accuracy >= setting.goal for _, accuracy in one["curve"])
                for one in arms.results[arm]
            )
            lines.append(f"| {arm} | {reached} of {arms.seed_count} | {costs[arm].mean():.2f} |")
        for steered in GROW.steered:
            lines += ["", f"| {steered} against | needs less by | steering |", "|---|---|---|"]
            for arm in GROW.compared_arms(steered):
                difference = paired_difference(costs[arm], costs[steered])
                lines.append(f"| {arm} | {difference} | {steering_verdict(difference)} |")
        lines.append("")
    return lines

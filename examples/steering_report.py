"""The report of `06_steering_pays.py`: first where steering pays, then each part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from paired_differences import NOT_SHOWN, PAYS, TOO_FEW, WORSE, Difference, steering_verdict
from rescue_networks import RescueSetting
from rescue_report import RESTARTED, compare_restarts, describe_rescue
from shape_report import PARTS, ShapeSetting, compare_arms, describe_part

__all__ = ["write_steering_report"]

INTRODUCTION = [
    "# Does steering pay?",
    "",
    "Written by `examples/06_steering_pays.py`. Networks are steered while they train, by the "
    "edits of this package, and compared with the same networks treated otherwise. Intervals are "
    "95 % of differences of the accuracy on test images, in pairs with the same seed. They are not "
    "corrected for the number of comparisons. Steering *pays* if the whole interval is above zero, "
    "and is *worse* if it is below zero. Otherwise, neither is shown.",
    "",
]


def write_steering_report(
    results: Sequence[dict[str, Any]], settings: Sequence[RescueSetting | ShapeSetting], file: Path
) -> None:
    """Write the report about all results as Markdown."""
    rescues = [one for one in settings if isinstance(one, RescueSetting)]
    shapes = [one for one in settings if isinstance(one, ShapeSetting)]
    lines = [*INTRODUCTION, *describe_summary(results, rescues, shapes)]
    lines += describe_rescue(results, rescues)
    for part in PARTS:
        lines += describe_part(part, results, shapes)
    file.write_text("\n".join(lines).rstrip() + "\n")


def describe_summary(
    results: Sequence[dict[str, Any]],
    rescues: Sequence[RescueSetting],
    shapes: Sequence[ShapeSetting],
) -> list[str]:
    """Return a table with one line for each comparison: in how many networks steering pays."""
    words: dict[tuple[str, str], Counter[str]] = {}

    def count(steered: str, differences: dict[str, Difference]) -> None:
        for other, difference in differences.items():
            words.setdefault((steered, other), Counter())[steering_verdict(difference)] += 1

    for setting in rescues:
        own = [one for one in results if one["setting"] == setting.title]
        for differences in compare_restarts(setting, own).values():
            count(RESTARTED, differences)
    for part in PARTS:
        for shape in shapes:
            own = [one for one in results if one["setting"] == shape.title]
            if shape.part == part.name and own:
                for steered in part.steered:
                    count(steered, compare_arms(part, steered, own))
    lines = [
        "Each line counts the networks of one comparison; of the restarts, each moment counts.",
        "",
        "| steered | against | pays | worse | not shown | too few seeds |",
        "|---|---|---|---|---|---|",
    ]
    for (steered, other), found in words.items():
        counts = " | ".join(str(found[word]) for word in (PAYS, WORSE, NOT_SHOWN, TOO_FEW))
        lines.append(f"| {steered} | {other} | {counts} |")
    return [*lines, ""]

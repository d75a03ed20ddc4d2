"""Groups of layers by their module path: ``layer1.0.conv1`` belongs to ``layer1``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

__all__ = ["Stage", "find_stages", "fitting", "layers_of", "short_name"]

LETTER = 5.0  # px of a small header, that a letter takes


@dataclass(frozen=True)
class Stage:
    """Layers that lie in one top-level module, and the places they take."""

    name: str
    first: int  # place, left
    last: int  # place, right


def common_prefix(names: Sequence[str]) -> int:
    """Number of leading path parts that all names share, their last part left out."""
    paths = [name.split(".")[:-1] for name in names]
    length = 0
    while paths and all(len(path) > length for path in paths):
        if len({path[length] for path in paths}) > 1:
            break
        length += 1
    return length


def find_stages(names: Sequence[str], rank: Sequence[int]) -> list[Stage]:
    """Stages from left to right; none where they would say nothing or overlap."""
    depth = common_prefix(names)
    places: dict[str, list[int]] = {}
    for name, place in zip(names, rank, strict=True):
        places.setdefault(".".join(name.split(".")[: depth + 1]), []).append(place)
    if len(places) < 2 or max(len(set(taken)) for taken in places.values()) < 2:
        return []
    stages = [Stage(name, min(taken), max(taken)) for name, taken in places.items()]
    stages.sort(key=lambda stage: stage.first)
    if any(b.first <= a.last for a, b in pairwise(stages)):
        return []
    return [
        Stage(stage.name[len(_prefix(names, depth)) :], stage.first, stage.last) for stage in stages
    ]


def layers_of(name: str, stages: Sequence[Stage], names: Sequence[str]) -> list[str]:
    """The layers of the stage that a layer is in; the layer alone where there are no stages."""
    prefix = _prefix(names, common_prefix(names))
    for stage in stages:
        path = prefix + stage.name
        if name == path or name.startswith(path + "."):
            return [other for other in names if other == path or other.startswith(path + ".")]
    return [name]


def short_name(name: str, stages: Sequence[Stage], names: Sequence[str]) -> str:
    """The name as it is written above a column: without what its stage's title says already."""
    prefix = _prefix(names, common_prefix(names))
    rest = name[len(prefix) :]
    for stage in stages:
        if rest.startswith(stage.name + "."):
            return rest[len(stage.name) + 1 :]
    return rest if prefix and stages else name


def fitting(label: str, room: float) -> str:
    """As much of the end of a module path as fits (px), but at least its last part."""
    while "." in label and len(label) * LETTER > room:
        label = label.split(".", 1)[1]
    return label


def _prefix(names: Sequence[str], depth: int) -> str:
    return ".".join(names[0].split(".")[:depth]) + "." if depth else ""

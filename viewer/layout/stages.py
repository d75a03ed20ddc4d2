"""Groups of layers by their module path: ``layer1.0.conv1`` belongs to ``layer1``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Stage", "find_stages", "fitting", "layers_of", "short_name", "told_apart"]

LETTER = 5.0  # px of a small header, that a letter takes
NEARLY_ALL = 0.8  # of the layers; of ResNet-152, layer3 has 0.7


@dataclass(frozen=True)
class Stage:
    """Layers that lie in one module, and the places they take."""

    name: str  # path below what the paths of all layers have in common
    first: int  # place, left
    last: int  # place, right
    layer: int  # the first of its layers


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
    """Stages from left to right; none where they would say nothing.

    A frame may not surround what another stage's title stands over: where two take turns, both
    go without. What is small and lies beside the layers of another, like an auxiliary classifier,
    only loses its own.
    """
    groups = _groups(range(len(names)), names, rank)
    framed = [path for path in groups if not _lost(path, groups, rank)]
    stages = []
    for path in framed:
        places = [rank[i] for i in groups[path]]
        stages.append(Stage(path, min(places), max(places), groups[path][0]))
    stages.sort(key=lambda stage: stage.first)
    longest = max((len({rank[i] for i in groups[path]}) for path in framed), default=0)
    return stages if len(groups) > 1 and longest > 1 else []


def _groups(
    layers: Iterable[int], names: Sequence[str], rank: Sequence[int]
) -> dict[str, list[int]]:
    """Layers by the first part of their path below what all have in common.

    A group of nearly all of them is told by its own parts instead.
    """
    layers = list(layers)
    whole = len(_prefix(names, common_prefix(names)))
    depth = common_prefix([names[i] for i in layers])
    groups: dict[str, list[int]] = {}
    for i in layers:
        groups.setdefault(".".join(names[i].split(".")[: depth + 1])[whole:], []).append(i)
    largest = max(groups.values(), key=len, default=[])
    if len(groups) < 2 or len(largest) < NEARLY_ALL * len(names):
        return groups
    parts = _groups(largest, names, rank)
    if len(parts) == 1 or max(len({rank[i] for i in part}) for part in parts.values()) < 2:
        return groups
    found: dict[str, list[int]] = {}
    for path, group in groups.items():
        found |= parts if group is largest else {path: group}
    return found


def _lost(path: str, groups: Mapping[str, list[int]], rank: Sequence[int]) -> bool:
    """Whether a frame around this group would lie over another's."""
    mine = {rank[i] for i in groups[path]}
    for other, group in groups.items():
        theirs = {rank[i] for i in group}
        if other == path or max(mine) < min(theirs) or max(theirs) < min(mine):
            continue
        beside = theirs <= mine and 2 * len(group) <= len(groups[path])
        if not beside:
            return True
    return False


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
    if prefix and rest[0].isdigit():  # says little without the list it is of
        return f"{prefix.split('.')[-2]}.{rest}"
    return rest


def fitting(label: str, room: float, letter: float = LETTER) -> str:
    """As much of the end of a module path as fits (px), but at least its last part."""
    while "." in label and len(label) * letter > room:
        label = label.split(".", 1)[1]
    return label


def told_apart(labels: Sequence[str], room: float) -> list[str]:
    """Neighbouring labels in so much room (px) each: first without the end that they share."""
    paths = [label.split(".") for label in labels]
    longest = max(len(label) for label in labels) * LETTER
    while longest > room and len(paths) > 1 and min(len(path) for path in paths) > 1:
        if len({path[-1] for path in paths}) > 1:
            break
        paths = [path[:-1] for path in paths]
    return [fitting(".".join(path), room) for path in paths]


def _prefix(names: Sequence[str], depth: int) -> str:
    return ".".join(names[0].split(".")[:depth]) + "." if depth else ""

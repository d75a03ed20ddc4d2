"""Stages of a network: layers grouped by module path. ``layer1.0.conv1`` belongs to ``layer1``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["NetworkStage", "find_stages", "layers_in_same_stage", "short_layer_name"]

SPLIT_SHARE = 0.8  # a larger stage is split into its parts; layer3 of a ResNet-152 has 0.7


@dataclass(frozen=True)
class NetworkStage:
    """The layers of one module, drawn in one frame, and the ranks that they cover.

    Attributes:
        name: module path without the prefix that all layers share.
        path: module path.
        first_rank: smallest rank.
        last_rank: largest rank.
        first_layer: index of the first layer.
    """

    name: str
    path: str
    first_rank: int
    last_rank: int
    first_layer: int


def find_stages(layer_names: Sequence[str], ranks: Sequence[int]) -> list[NetworkStage]:
    """Return the stages from left to right; none if they carry no information.

    Stages whose ranks interleave would have overlapping frames and are left out. If a stage is
    much smaller and beside the layers of another, such as an auxiliary classifier, only the
    smaller one is left out.
    """
    groups = _group_layers(range(len(layer_names)), layer_names, ranks)
    prefix = _join(layer_names, _shared_depth(layer_names))
    framed = [path for path in groups if not _overlaps_another(path, groups, ranks)]
    stages = []
    for path in framed:
        covered = [ranks[i] for i in groups[path]]
        stages.append(
            NetworkStage(path, prefix + path, min(covered), max(covered), groups[path][0])
        )
    stages.sort(key=lambda stage: stage.first_rank)
    longest = max((len({ranks[i] for i in groups[path]}) for path in framed), default=0)
    return stages if len(groups) > 1 and longest > 1 else []


def layers_in_same_stage(
    layer_name: str, stages: Sequence[NetworkStage], layer_names: Sequence[str]
) -> list[str]:
    """Return the layers in the same stage as a layer; only itself if it is in none."""
    for stage in stages:
        inside = f"{stage.path}."
        if layer_name == stage.path or layer_name.startswith(inside):
            return [
                other for other in layer_names if other == stage.path or other.startswith(inside)
            ]
    return [layer_name]


def short_layer_name(
    layer_name: str, stages: Sequence[NetworkStage], layer_names: Sequence[str]
) -> str:
    """Return a layer's name without the part that its stage's title shows."""
    for stage in stages:
        if layer_name.startswith(f"{stage.path}."):
            return layer_name[len(stage.path) + 1 :]
    prefix = _join(layer_names, _shared_depth(layer_names))
    rest = layer_name[len(prefix) :]
    if prefix and rest[0].isdigit():  # an index without its list says little
        return f"{prefix.split('.')[-2]}.{rest}"
    return rest


def _shared_depth(names: Sequence[str]) -> int:
    """Return how many leading path parts all names share, not counting their last part."""
    paths = [name.split(".")[:-1] for name in names]
    depth = 0
    while paths and all(len(path) > depth for path in paths):
        if len({path[depth] for path in paths}) > 1:
            break
        depth += 1
    return depth


def _join(names: Sequence[str], depth: int) -> str:
    """Return the first ``depth`` path parts of the names, with a trailing dot."""
    return ".".join(names[0].split(".")[:depth]) + "." if depth else ""


def _group_layers(
    layers: Iterable[int], names: Sequence[str], ranks: Sequence[int]
) -> dict[str, list[int]]:
    """Group layers by the first path part in which they differ.

    A group of nearly all layers is replaced by its own groups.
    """
    layers = list(layers)
    prefix_length = len(_join(names, _shared_depth(names)))
    depth = _shared_depth([names[i] for i in layers])
    groups: dict[str, list[int]] = {}
    for i in layers:
        path = ".".join(names[i].split(".")[: depth + 1])[prefix_length:]
        groups.setdefault(path, []).append(i)
    largest = max(groups.values(), key=len, default=[])
    if len(groups) < 2 or len(largest) < SPLIT_SHARE * len(names):
        return groups
    parts = _group_layers(largest, names, ranks)
    if len(parts) == 1 or max(len({ranks[i] for i in part}) for part in parts.values()) < 2:
        return groups
    split: dict[str, list[int]] = {}
    for path, group in groups.items():
        split |= parts if group is largest else {path: group}
    return split


def _overlaps_another(path: str, groups: Mapping[str, list[int]], ranks: Sequence[int]) -> bool:
    """Return whether a frame around this group would cover layers of another group."""
    covered = {ranks[i] for i in groups[path]}
    for other, group in groups.items():
        others = {ranks[i] for i in group}
        is_apart = max(covered) < min(others) or max(others) < min(covered)
        if other == path or is_apart:
            continue
        is_beside = others <= covered and 2 * len(group) <= len(groups[path])
        if not is_beside:
            return True
    return False

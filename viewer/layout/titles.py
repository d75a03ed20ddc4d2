"""Labels above the columns, and frames with titles around the stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .boxes import Box
from .stages import NetworkStage, short_layer_name

__all__ = ["StageBox", "column_labels", "stage_boxes"]

BOX_PADDING = {"roomy": 46.0, "normal": 9.0, "crowded": 4.0}  # px
LABEL_GAP = 8.0  # px between the labels of adjacent columns
LABEL_CHARACTER = 5.0  # px: width of a character of a label
TITLE_CHARACTER = 6.0  # px: width of a character of a stage's title


@dataclass(frozen=True)
class StageBox:
    """The frame around a stage, in pixels.

    Attributes:
        name: title, shortened to fit.
        layer: index of one of its layers.
        path: the path of the module of the stage, or of the block.
        block: path of the block that closes with this frame; "" if there is none.
        level: number of frames around this one.
    """

    name: str
    left: float
    right: float
    layer: int
    path: str
    block: str = ""
    level: int = 0


def column_labels(
    layer_names: list[str], stages: list[NetworkStage], density: str, width: float
) -> list[str]:
    """Return the label of each column.

    Args:
        layer_names: the names of the layers.
        width: the width available for each label, px.
    """
    if density == "crowded":  # shown one at a time, on hover
        return [short_layer_name(name, [], layer_names) for name in layer_names]
    labels = [short_layer_name(name, stages, layer_names) for name in layer_names]
    if density == "roomy":
        return labels
    by_title: dict[str, list[int]] = {}
    for i, (name, label) in enumerate(zip(layer_names, labels, strict=True)):
        by_title.setdefault(name.removesuffix(label), []).append(i)
    for group in by_title.values():
        shortened = _shorten_labels([labels[i] for i in group], width - LABEL_GAP)
        for i, label in zip(group, shortened, strict=True):
            labels[i] = label
    return labels


def stage_boxes(
    stages: list[NetworkStage], ranks: list[int], columns: list[Box], density: str
) -> list[StageBox]:
    """Return frames that overlap neither each other nor columns outside their stage."""
    by_rank: dict[int, list[Box]] = {}
    for column, rank in zip(columns, ranks, strict=True):
        by_rank.setdefault(rank, []).append(column)
    left = {rank: min(c.left for c in members) for rank, members in by_rank.items()}
    right = {rank: max(c.right for c in members) for rank, members in by_rank.items()}
    gaps = {  # half the gap to the right of each rank
        rank: (left[rank + 1] - right[rank]) / 2 - 2 for rank in by_rank if rank + 1 in left
    }
    beside = (
        gaps.get(rank) for stage in stages for rank in (stage.first_rank - 1, stage.last_rank)
    )
    padding = min([BOX_PADDING[density], *(gap for gap in beside if gap is not None)])
    spans = [
        (
            min(left[rank] for rank in range(stage.first_rank, stage.last_rank + 1)) - padding,
            max(right[rank] for rank in range(stage.first_rank, stage.last_rank + 1)) + padding,
        )
        for stage in stages
    ]
    titles = _titles([stage.name for stage in stages], [end - start for start, end in spans])
    return [
        StageBox(title, start, end, stage.first_layer, stage.path)
        for title, (start, end), stage in zip(titles, spans, stages, strict=True)
    ]


def _titles(names: list[str], widths: list[float]) -> list[str]:
    """Shorten all titles to the same number of last path parts, as many as fit everywhere."""
    fits = [
        _truncate(name, width, TITLE_CHARACTER) for name, width in zip(names, widths, strict=True)
    ]
    n_parts = min(
        (fit.count(".") + 1 for fit, name in zip(fits, names, strict=True) if fit != name),
        default=max((name.count(".") + 1 for name in names), default=1),
    )
    return [".".join(name.split(".")[-n_parts:]) for name in names]


def _truncate(label: str, width: float, character: float = LABEL_CHARACTER) -> str:
    """Return as many of a path's last parts as fit a width (px), but at least one."""
    while "." in label and len(label) * character > width:
        label = label.split(".", 1)[1]
    return label


def _shorten_labels(labels: Sequence[str], width: float) -> list[str]:
    """Shorten labels to a width (px) each, first by the ending that all share."""
    paths = [label.split(".") for label in labels]
    longest = max(len(label) for label in labels) * LABEL_CHARACTER
    while longest > width and len(paths) > 1 and min(len(path) for path in paths) > 1:
        if len({path[-1] for path in paths}) > 1:
            break
        paths = [path[:-1] for path in paths]
    shortened = [_truncate(".".join(path), width) for path in paths]
    if len(set(shortened)) == len(set(labels)):
        return shortened
    return _make_distinct(labels, shortened, width)


def _make_distinct(labels: Sequence[str], shortened: Sequence[str], width: float) -> list[str]:
    """Return labels without the ending that several share, if all of them stay distinct."""
    by_text: dict[str, list[int]] = {}
    for i, text in enumerate(shortened):
        by_text.setdefault(text, []).append(i)
    distinct = list(shortened)
    for text, members in by_text.items():
        if len({labels[i] for i in members}) > 1:
            for i in members:
                distinct[i] = _fit(labels[i].removesuffix(f".{text}"), width)
    return distinct if len(set(distinct)) == len(set(labels)) else list(shortened)


def _fit(label: str, width: float) -> str:
    """Return the last parts of a path that fit a width (px), or the end of the last part."""
    label = _truncate(label, width)
    n = max(2, int(width / LABEL_CHARACTER))
    return label if len(label) <= n else f"…{label[1 - n :]}"

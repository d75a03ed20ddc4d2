"""What is written above the columns, and the frames around stages of them."""

from __future__ import annotations

from dataclasses import dataclass

from .columns import Column
from .stages import Stage, fitting, short_name, told_apart

__all__ = ["StageBox", "boxes", "labels_of"]

BOX_PADS = {"roomy": 46.0, "normal": 9.0, "crowded": 4.0}  # px; room for headers
LABEL_GAP = 8.0  # px between the names above neighbouring columns
TITLE_LETTER = 6.0  # px, of a stage's title


@dataclass(frozen=True)
class StageBox:
    """The frame around a stage, px."""

    name: str  # as much of it as fits
    left: float
    right: float
    layer: int  # one of those in it
    path: str  # the whole name


def labels_of(names: list[str], stages: list[Stage], density: str, room: float) -> list[str]:
    """What is written above the columns, each in so much room (px)."""
    if density == "crowded":  # one at a time, over the others
        return [short_name(name, [], names) for name in names]
    labels = [short_name(name, stages, names) for name in names]
    if density == "roomy":
        return labels
    together: dict[str, list[int]] = {}  # by what they are written below
    for i, (name, label) in enumerate(zip(names, labels, strict=True)):
        together.setdefault(name.removesuffix(label), []).append(i)
    for group in together.values():
        fits = told_apart([labels[i] for i in group], room - LABEL_GAP)
        for i, label in zip(group, fits, strict=True):
            labels[i] = label
    return labels


def boxes(
    stages: list[Stage], rank: list[int], columns: list[Column], density: str
) -> list[StageBox]:
    """Frames around the stages, never over each other nor over columns of no stage."""
    places: dict[int, list[Column]] = {}
    for column, place in zip(columns, rank, strict=True):
        places.setdefault(place, []).append(column)
    left = {place: min(c.left for c in there) for place, there in places.items()}
    right = {place: max(c.right for c in there) for place, there in places.items()}
    gaps = {
        place: (left[place + 1] - right[place]) / 2 - 2 for place in places if place + 1 in left
    }
    beside = (gaps.get(edge) for stage in stages for edge in (stage.first - 1, stage.last))
    pad = min([BOX_PADS[density], *(gap for gap in beside if gap is not None)])
    spans = [
        (
            min(left[place] for place in range(stage.first, stage.last + 1)) - pad,
            max(right[place] for place in range(stage.first, stage.last + 1)) + pad,
        )
        for stage in stages
    ]
    titles = _titles([stage.name for stage in stages], [end - start for start, end in spans])
    return [
        StageBox(title, start, end, stage.layer, stage.name)
        for title, (start, end), stage in zip(titles, spans, stages, strict=True)
    ]


def _titles(names: list[str], rooms: list[float]) -> list[str]:
    """As many of the last parts of all the names as fit everywhere, but at least one of each."""
    fits = [fitting(name, room, TITLE_LETTER) for name, room in zip(names, rooms, strict=True)]
    parts = min(
        (fit.count(".") + 1 for fit, name in zip(fits, names, strict=True) if fit != name),
        default=max((name.count(".") + 1 for name in names), default=1),
    )
    return [".".join(name.split(".")[-parts:]) for name in names]

"""Names of the images that can be chosen, by their index."""

from __future__ import annotations

from .formatting import format_count

__all__ = ["image_name", "short_image_name"]


def image_name(index: int | None) -> str:
    """Return the name of an image, for the title of a view.

    The index None is the first image of the batch. Negative ones are images of the user.
    """
    if index is None:
        return "first image of the batch"
    return f"validation image {format_count(index)}" if index >= 0 else "your image"


def short_image_name(index: int | None) -> str:
    """Return a short name of an image, for places with little room."""
    if index is None:
        return "batch"
    return f"validation {format_count(index)}" if index >= 0 else "your image"

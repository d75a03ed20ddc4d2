"""Paths in the autograd graph."""

from __future__ import annotations

from typing import Any

from torch import Tensor

__all__ = ["backward_path"]


def backward_path(maps: Tensor, image: Tensor) -> list[Any]:
    """Return the nodes of the autograd graph on all paths from ``maps`` back to ``image``.

    Each node precedes those that its forward depends on; the last is that of ``image``, a leaf that
    requires a gradient. The list is empty if no gradient flows to it.
    """
    reaches_image: dict[Any, bool] = {}
    finished: list[Any] = []
    stack: list[tuple[Any, bool]] = [] if maps.grad_fn is None else [(maps.grad_fn, False)]
    while stack:
        node, is_expanded = stack.pop()
        previous = [other for other, _ in node.next_functions if other is not None]
        if is_expanded:
            reaches_image[node] = getattr(node, "variable", None) is image or any(
                reaches_image.get(other, False) for other in previous
            )
            finished.append(node)
        elif node not in reaches_image:
            reaches_image[node] = False
            stack.append((node, True))
            stack += [(other, False) for other in previous if other not in reaches_image]
    return [node for node in reversed(finished) if reaches_image[node]]

"""Commands that clip the gradients: staged from a verdict, or sent immediately."""

from __future__ import annotations

import math

import msgspec

from revacnn_lightning.protocol.gradient_clipping import describe_clipping
from revacnn_lightning.protocol.requests import SetGradientClipping

from .command_arguments import CommandArguments
from .tab_state import TabState

__all__ = ["set_gradient_clipping", "stage_clipping"]


def stage_clipping(tab: TabState, arguments: CommandArguments) -> None:
    """Stage that gradients are clipped at ``value`` by the algorithm ``option``."""
    request = _to_request(arguments)
    if request is not None:
        tab.staging.set_clipping(request)


def set_gradient_clipping(tab: TabState, arguments: CommandArguments) -> None:
    """Clip gradients at ``value`` by the algorithm ``option``; a value of 0 stops that."""
    request = _to_request(arguments)
    if request is not None:
        clipping = describe_clipping(request.value, request.algorithm)
        tab.edit_queue.send_clipping(request, f"Set the gradient clipping to {clipping}")


def _to_request(arguments: CommandArguments) -> SetGradientClipping | None:
    """Return the request with these arguments; None if they are invalid."""
    if not math.isfinite(arguments.value) or arguments.option not in ("norm", "value"):
        return None
    fields = {
        "type": "SetGradientClipping",
        "value": arguments.value,
        "algorithm": arguments.option,
    }
    return msgspec.convert(fields, SetGradientClipping)

"""Prices of removals in words: the predicted change of the loss."""

from __future__ import annotations

import math

from revacnn_lightning.protocol.messages import PlanSummary
from revacnn_lightning.protocol.prices import RemovalPrice

from .formatting import format_number

__all__ = [
    "describe_plan_loss_change",
    "explain_removal_price",
    "format_loss_change",
    "format_removal_price",
]


def format_loss_change(change: float) -> str:
    """Return a change of the loss with its sign: ``+0.012``."""
    sign = "+" if change > 0 else "−" if change < 0 else "±"
    return f"{sign}{format_number(abs(change))}"


def format_removal_price(price: RemovalPrice) -> str:
    """Return for example ``loss +0.012 ± 0.003``, or that the loss is the same on each image."""
    if price.change == 0 and not price.error > 0:
        return "loss unchanged"
    spread = "" if math.isnan(price.error) else f" ± {format_number(price.error)}"
    return f"loss {format_loss_change(price.change)}{spread}"


def describe_plan_loss_change(plan: PlanSummary | None) -> str:
    """Return in words the predicted change of the loss, or why it is unknown; "" without either."""
    if plan is None or (plan.price is None and not plan.price_note):
        return ""
    if plan.price is None:
        return f"change of the loss unknown: {plan.price_note}"
    return f"predicted {format_removal_price(plan.price)}"


def explain_removal_price(price: RemovalPrice) -> str:
    """Return what the numbers of `format_removal_price` mean."""
    images = f"{price.images} images" if price.images else "the images"
    return (
        f"Predicted: the change of the loss on {images} up to batch {price.step}, "
        f"{format_number(price.loss)} before, with the standard error of the mean."
    )

"""What an edit will do, for a person to read. `messages` exports these with all others."""

from __future__ import annotations

from msgspec import Struct, field

from revacnn_lightning.protocol.message_html import plan_html
from revacnn_lightning.protocol.prices import RemovalPrice
from revacnn_lightning.protocol.trial_state import TrialCost

__all__ = ["FilterChange", "PlanSummary"]


class FilterChange(Struct, frozen=True):
    """What an edit does to the filters of one layer.

    ``filters`` are those that it removes, freezes, changes in place, or trains at another rate;
    ``added`` is the number of new ones.
    """

    layer: str
    filters: list[int] = field(default_factory=list)
    added: int = field(default=0, name="count")  # as in the journals of existing checkpoints


class PlanSummary(Struct, frozen=True):
    """What an edit will do, in words and numbers, for a person to read before applying it."""

    title: str  # "Remove conv2 · filter 36"
    filter_changes: list[FilterChange] = field(default_factory=list)
    coupling: str = ""  # why the edit changes several layers: "one per group: 32"
    parameters_before: int = 0
    parameters_after: int = 0
    macs_before: int = 0  # multiply-accumulates of one sample's forward; 0 if unknown
    macs_after: int = 0
    output_effect: str = ""  # `OUTPUT_UNCHANGED`, or how the output changes; "" if unknown
    confirmation: str = ""  # why the request must be ``confirmed``; "" if it need not be
    notes: list[str] = field(default_factory=list)  # "Adafactor's state cannot be kept exactly"
    price: RemovalPrice | None = None  # of a removal: the predicted change of the loss
    price_note: str = ""  # why it is not known
    trial: TrialCost | None = None  # of a trial of edits

    def _repr_html_(self) -> str:
        return plan_html(self)

"""A conv and what is known of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn

from revacnn_lightning.telemetry.recording.activation_sums import ActivationSums
from revacnn_lightning.telemetry.recording.weight_sums import WeightSums
from revacnn_lightning.telemetry.statistics import Conv

__all__ = ["ObservedLayer", "forward_order", "new_layer", "settle_source"]


@dataclass(eq=False)
class ObservedLayer:
    """A conv and what is known of it."""

    name: str
    conv: Conv
    width: int
    weights: WeightSums
    own: ActivationSums  # of the conv's output
    passed_on: ActivationSums  # of the output of the non-linearity that follows
    place: int = 0  # in the model
    source: nn.Module | None = None  # whose output is the map: the conv or the non-linearity
    follower: nn.Module | None = None  # the non-linearity, in a traced batch
    feeders: set[nn.Module] = field(default_factory=set)  # and what handed it its input
    rank: int = -1  # place in the forward order; -1: as in the model
    seen: bool = False  # it was called
    turn: int = -1  # when it was called first in a traced batch; -1: not called
    marks: int = 0  # maps of this batch that the non-linearity should have received
    hidden: bool = False  # it runs, but its calls do not reach us
    wanted: frozenset[str] = frozenset()  # statistics of this batch

    @property
    def map(self) -> ActivationSums:
        """Of the activation map."""
        return self.passed_on if self.source not in (None, self.conv) else self.own

    def begin(self, wanted: frozenset[str]) -> None:
        self.wanted = wanted
        self.turn, self.marks = -1, 0
        self.own.begin()
        self.passed_on.begin()

    def forget(self) -> None:
        """It was edited, or the network around it was."""
        self.source = self.follower = None
        self.feeders = set()
        self.hidden = False
        self.weights.forget()
        self.begin(frozenset())


def new_layer(conv: Conv) -> ObservedLayer:
    return ObservedLayer(
        "", conv, 0, WeightSums(conv), ActivationSums(absolute=True), ActivationSums(absolute=False)
    )


def settle_source(layer: ObservedLayer) -> None:
    """Decide what the map of a traced layer is: what followed every call of it, else its output."""
    if layer.own.calls:
        every = layer.passed_on.calls == layer.own.calls
        layer.source = layer.follower if every else layer.conv


def forward_order(layers: list[ObservedLayer]) -> list[ObservedLayer]:
    """By first forward; a layer not seen yet stays behind its predecessor in the model."""
    rank, keyed = -1, []
    for place, layer in enumerate(layers):
        rank = layer.rank if layer.rank >= 0 else rank
        keyed.append((rank, place, layer))
    return [layer for _, _, layer in sorted(keyed, key=lambda item: item[:2])]

"""Which layers are watched: all convolutions by default, and hidden linear layers behind them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from torch import nn

from revacnn_lightning.telemetry.split_tensors import find_tensor_parallel_modules
from revacnn_lightning.telemetry.unit_layers import (
    UnitLayer,
    filter_count,
    is_forward_called,
    named_unit_layers,
)

__all__ = ["LayerChoice", "LayerSelection"]

LayerChoice = Literal["conv", "all"] | Sequence[str] | None

MAX_NAMES = 6  # of a message


@dataclass(frozen=True)
class LayerSelection:
    """The layers of a model that are watched.

    Attributes:
        choice: ``"conv"``: all convolutions; ``"all"``: all convolutions and linear layers; a list
            of names or patterns as in `fnmatch`, such as ``["features.*", "head.fc1"]``: the layers
            of these names and all layers in modules of these names; None: all convolutions and the
            hidden linear layers, which lie between the last convolution of a network and its
            output. A network without a convolution has hidden linear layers, too.
    """

    choice: LayerChoice = None

    def select(self, model: nn.Module) -> Iterator[tuple[str, UnitLayer]]:
        """Yield the name of each watched layer that has filters, and the layer.

        Layers that are split by tensor parallelism are left out: in hooks of one rank, an operation
        on their tensors would wait for the others.
        """
        chosen, parallel = self._choose_and_split(model)
        return ((name, layer) for name, layer in chosen if layer not in parallel)

    def left_out(self, model: nn.Module) -> list[str]:
        """Return the names of the layers that are left out."""
        chosen, parallel = self._choose_and_split(model)
        return [name for name, layer in chosen if layer in parallel]

    def _choose_and_split(
        self, model: nn.Module
    ) -> tuple[list[tuple[str, UnitLayer]], set[nn.Module]]:
        """Return the chosen layers, and those among them that tensor parallelism splits."""
        chosen = list(self._choose(model))
        return chosen, find_tensor_parallel_modules(model, [layer for _, layer in chosen])

    def _choose(self, model: nn.Module) -> Iterator[tuple[str, UnitLayer]]:
        layers = [(name, each) for name, each in named_unit_layers(model) if filter_count(each) > 0]
        if self.choice is None:
            hidden = _hidden_linear(layers)
            return ((n, m) for n, m in layers if not isinstance(m, nn.Linear) or n in hidden)
        if self.choice == "conv":
            return ((n, m) for n, m in layers if not isinstance(m, nn.Linear))
        if self.choice == "all":
            return iter(layers)
        patterns = _patterns(self.choice)
        return ((n, m) for n, m in layers if any(_matches(n, pattern) for pattern in patterns))

    def check(self, model: nn.Module) -> None:
        """Check that each pattern selects a layer of the model.

        Raises:
            ValueError: one does not; the message names the layers that can be watched.
        """
        if self.choice is None or self.choice in ("conv", "all"):
            return
        names = [name for name, _ in named_unit_layers(model)]
        for pattern in _patterns(self.choice):
            if not any(_matches(name, pattern) for name in names):
                raise ValueError(_why_unmatched(model, pattern, names))


def _patterns(choice: str | Iterable[str]) -> list[str]:
    return [choice] if isinstance(choice, str) else list(choice)


def _matches(name: str, pattern: str) -> bool:
    """Return whether a pattern is that of a layer or of a module around it."""
    parts = name.split(".")
    around = itertools.accumulate(parts, lambda path, part: f"{path}.{part}")
    return any(fnmatchcase(path, pattern) for path in around)


def _why_unmatched(model: nn.Module, pattern: str, names: Sequence[str]) -> str:
    found = [
        f"{name} is a {type(module).__name__}"
        for name, module in model.named_modules()
        if name and fnmatchcase(name, pattern)
    ]
    what = f"{found[0]}, which has no filters" if found else "no module of the model has this name"
    rest = len(names) - MAX_NAMES
    known = ", ".join(names[:MAX_NAMES]) + (f" and {rest} more" if rest > 0 else "")
    options = f"choose of {known}" if names else "the model has no convolution and no linear layer"
    return f"layers={[pattern]!r}: {what}; {options}"


def _hidden_linear(layers: Sequence[tuple[str, UnitLayer]]) -> set[str]:
    """Return the names of the linear layers between the last conv of a network and its output.

    The order is that in which the model registers them. Runs of linear layers end a network unless
    a conv of the same network follows: one in the same child of the model. The last of a run makes
    the output.
    """
    hidden: set[str] = set()
    runs = [
        (is_linear, [name for name, _ in run])
        for is_linear, run in itertools.groupby(
            [each for each in layers if is_forward_called(each[1])],
            lambda each: isinstance(each[1], nn.Linear),
        )
    ]
    for (is_linear, names), following in itertools.zip_longest(runs, runs[1:]):
        if is_linear and (following is None or _network(names[-1]) != _network(following[1][0])):
            hidden |= set(names[:-1])
    return hidden


def _network(name: str) -> str:
    return name.partition(".")[0]

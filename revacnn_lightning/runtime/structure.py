"""Build the `Structure` message from the model, the recorder and the editor."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations

from revacnn_lightning.errors import RevacnnError
from revacnn_lightning.protocol.messages import LayerInfo, Structure
from revacnn_lightning.steering import Editor, ForwardProbe
from revacnn_lightning.steering.planning.layer_costs import LayerCostAndSize
from revacnn_lightning.telemetry import Recorder
from revacnn_lightning.telemetry.split_tensors import class_before_fsdp
from revacnn_lightning.telemetry.unit_layers import (
    UnitLayer,
    filter_count,
    group_count,
    input_count,
    kernel_size,
    named_unit_layers,
    own_parameters,
)

__all__ = ["TracedTopology", "build_structure", "contract_edges"]


@dataclass(frozen=True)
class TracedTopology:
    """What tracing shows of a structure: which layer feeds which, and what cannot be edited.

    Attributes:
        version: structure version.
        edges: pairs of layers with filters, (from, to), watched or not.
        refusals: why a layer cannot be edited, for those that cannot.
        sizes: what each layer costs and returns.
    """

    version: int
    edges: list[tuple[str, str]] = field(default_factory=list)
    refusals: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, LayerCostAndSize] = field(default_factory=dict)

    @classmethod
    def trace(
        cls, version: int, editor: Editor, make_probe: Callable[[], ForwardProbe]
    ) -> TracedTopology:
        """Trace the network. If that is not possible, every layer is refused."""
        try:
            probe = make_probe()
            edges, refusals = editor.edges(probe), editor.refusals(probe)
            return cls(version, edges, refusals, editor.layer_costs_and_sizes(probe))
        except RevacnnError as error:
            names = [name for name, _ in named_unit_layers(editor.model)]
            return cls(version, [], dict.fromkeys(names, str(error)))


def build_structure(
    *,
    run: str,
    version: int,
    step: int,
    model: nn.Module,
    recorder: Recorder,
    editor: Editor,
    topology: TracedTopology | None,
) -> Structure:
    """Return the `Structure` message; a topology of another version is ignored."""
    modules = dict(model.named_modules())
    # The model's code may have put other modules in their places since the last batch.
    names = [name for name in recorder.layers if isinstance(modules.get(name), UnitLayer)]
    index = {name: i for i, name in enumerate(names)}
    if topology is None or topology.version != version:
        topology = TracedTopology(version)
    sources, observed = recorder.activation_sources, recorder.observed
    return Structure(
        run=run,
        version=version,
        step=step,
        model=class_before_fsdp(type(model)).__name__,
        layers=[
            _build_layer(
                name, modules[name], editor, topology, sources.get(name, ""), observed[name]
            )
            for name in names
        ],
        edges=[(index[a], index[b]) for a, b in contract_edges(names, topology.edges)],
        parameter_count=sum(parameter.numel() for parameter in model.parameters()),
        undoable=editor.journal.undoable,
        redoable=len(editor.journal.undone),
    )


def _build_layer(
    name: str,
    conv: Any,
    editor: Editor,
    topology: TracedTopology,
    activation_source: str,
    observed: bool,
) -> LayerInfo:
    sizes = topology.sizes.get(name, LayerCostAndSize(0, None))
    return LayerInfo(
        name=name,
        module_type=class_before_fsdp(type_before_parametrizations(conv)).__name__,
        in_channels=input_count(conv),
        out_channels=filter_count(conv),
        kernel_size=kernel_size(conv),
        stride=() if isinstance(conv, nn.Linear) else tuple(conv.stride),
        groups=group_count(conv),
        filter_ids=editor.filter_ids(name),
        frozen_filters=editor.frozen_filters(name),
        learning_rate_factor=editor.learning_rate_factor(name),
        activation_source=activation_source,
        observed=observed,
        edit_refusal=topology.refusals.get(name, ""),
        parameters=sum(p.numel() for p in own_parameters(conv)),
        macs=sizes.macs,
        output_size=sizes.output_size,
    )


def contract_edges(
    layer_names: Sequence[str], edges: Sequence[tuple[str, str]]
) -> list[tuple[str, str]]:
    """Return the edges between these layers, with all other layers contracted.

    A path that leads from one of these layers to another only over other layers becomes one edge.

    An edge is (from, to). The result is sorted.
    """
    listed, followers = set(layer_names), defaultdict(list)
    for source, target in edges:
        followers[source].append(target)
    found = set()
    for name in listed:
        seen: set[str] = set()
        pending = list(followers[name])
        while pending:
            target = pending.pop()
            if target in listed:
                found.add((name, target))
            elif target not in seen:
                seen.add(target)
                pending += followers[target]
    return sorted(found)

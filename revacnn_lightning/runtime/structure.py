"""Build the `Structure` message from the model, the recorder and the editor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations

from revacnn_lightning.errors import RevacnnError
from revacnn_lightning.protocol.messages import LayerInfo, Structure
from revacnn_lightning.steering import Editor, ForwardProbe
from revacnn_lightning.steering.planning.layer_sizes import LayerSizes
from revacnn_lightning.telemetry import Recorder

__all__ = ["TracedTopology", "build_structure"]


@dataclass(frozen=True)
class TracedTopology:
    """What tracing shows of a structure: which convolution feeds which, and what cannot be edited.

    Attributes:
        version: structure version.
        edges: pairs of convolutions, (from, to).
        refusals: why a convolution cannot be edited, for those that cannot.
        sizes: what each layer costs and returns.
    """

    version: int
    edges: list[tuple[str, str]] = field(default_factory=list)
    refusals: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, LayerSizes] = field(default_factory=dict)

    @classmethod
    def trace(
        cls, version: int, editor: Editor, make_probe: Callable[[], ForwardProbe]
    ) -> TracedTopology:
        """Trace the network. If that is not possible, every convolution is refused."""
        try:
            probe = make_probe()
            edges, refusals = editor.edges(probe), editor.refusals(probe)
            return cls(version, edges, refusals, editor.layer_sizes(probe))
        except RevacnnError as error:
            convs = [name for name, module in editor.model.named_modules() if _is_conv(module)]
            return cls(version, [], dict.fromkeys(convs, str(error)))


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
    names = [name for name in recorder.layers if name in modules]
    index = {name: i for i, name in enumerate(names)}
    if topology is None or topology.version != version:
        topology = TracedTopology(version)
    sources, observed = recorder.activation_sources, recorder.observed
    return Structure(
        run=run,
        version=version,
        step=step,
        model=type(model).__name__,
        layers=[
            _build_layer(
                name, modules[name], editor, topology, sources.get(name, ""), observed[name]
            )
            for name in names
        ],
        edges=[(index[a], index[b]) for a, b in topology.edges if a in index and b in index],
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
    sizes = topology.sizes.get(name, LayerSizes(0, None))
    return LayerInfo(
        name=name,
        module_type=type_before_parametrizations(conv).__name__,
        in_channels=conv.in_channels,
        out_channels=conv.out_channels,
        kernel_size=tuple(conv.kernel_size),
        stride=tuple(conv.stride),
        groups=conv.groups,
        filter_ids=editor.filter_ids(name),
        frozen_filters=editor.frozen_filters(name),
        activation_source=activation_source,
        observed=observed,
        edit_refusal=topology.refusals.get(name, ""),
        parameters=sum(p.numel() for p in _own_parameters(conv)),
        macs=sizes.macs,
        output_size=sizes.output_size,
    )


def _own_parameters(conv: nn.Module) -> Iterator[nn.Parameter]:
    """Yield the parameters of a conv and of its parametrizations, not of inserted blocks."""
    yield from conv.parameters(recurse=False)
    parametrizations = conv._modules.get("parametrizations")
    if parametrizations is not None:
        yield from parametrizations.parameters()


def _is_conv(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d | nn.ConvTranspose2d)

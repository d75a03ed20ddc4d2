"""Rules of normalization layers, which scale channels or normalize them together."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from revacnn_lightning.steering.tracing.labels import labeled_dims
from revacnn_lightning.steering.tracing.records import OpCall
from revacnn_lightning.steering.tracing.rules.elementwise import couple_broadcast_labels
from revacnn_lightning.steering.tracing.rules.op_families import BATCH_NORMS
from revacnn_lightning.steering.tracing.rules.table import register_rule
from revacnn_lightning.steering.tracing.trace import Trace

__all__: list[str] = []

NORMS = (nn.LayerNorm, nn.RMSNorm) if hasattr(nn, "RMSNorm") else (nn.LayerNorm,)


@register_rule(*BATCH_NORMS)
def _batch_norm(trace: Trace, call: OpCall) -> None:
    x = call.args[0]
    if _uses_batch_statistics(call):
        for label in trace.labels(x):
            if labeled_dims(label) - {1}:  # a weight that is standardized, its filters along dim 1
                trace.normalize_together(label, f"{trace.where()} normalizes over them")
    arriving = trace.channels_along(x, 1)
    _count_features(trace, arriving)
    for tensor in call.args[1:5]:  # weight, bias, running mean, running variance
        if isinstance(tensor, Tensor):
            entries = trace.channels_along(tensor, 0)
            if entries is None:
                continue
            if arriving is None:
                trace.fix(entries, f"{trace.where()} normalizes channels that no layer produces")
            else:
                trace.couple_arrival(entries, arriving)
    sources = trace.source_layers(x)
    if len(sources) == 1 and trace.running_module_name():
        (conv,) = sources
        if len(trace.filters.get(conv, ())) == x.shape[1]:
            trace.norm_after.setdefault(conv, set()).add(trace.running_module_name())
    trace.set_labels(call.outs[0], list(trace.labels(x)))


def _count_features(trace: Trace, arriving: Tensor | None) -> None:
    """Record that a norm without parameters counts its channels in an attribute."""
    norm = trace.running_module
    if isinstance(norm, _NormBase) and arriving is not None and not _own_tensors(norm):
        features = int(norm.num_features)
        if len(arriving) % features == 0:  # an instance norm repeats the channels per image
            trace.record_count_attribute("num_features", arriving[:features])


def _own_tensors(module: nn.Module) -> list[Tensor]:
    own = (*module._parameters.values(), *module._buffers.values())
    return [tensor for tensor in own if tensor is not None]


def _uses_batch_statistics(call: OpCall) -> bool:
    """Return whether the first boolean argument, ``training``, is true."""
    flags = [arg for arg in call.args if isinstance(arg, bool)]
    return flags[0] if flags else call.base == "_batch_norm_with_update"


@register_rule("native_layer_norm", "_fused_rms_norm", "rms_norm", "layer_norm")
def _layer_norm(trace: Trace, call: OpCall) -> None:
    x, shape = call.args[:2]
    normalized = set(range(x.ndim - len(shape), x.ndim))
    affine = [t for t in call.args[2:4] if isinstance(t, Tensor)]
    for label in trace.labels(x):
        dims = labeled_dims(label)
        if dims & normalized:
            trace.normalize_together(label, f"{trace.where()} normalizes over them")
        if isinstance(trace.running_module, NORMS) and not affine and len(dims) == 1:
            (dim,) = dims
            entry = dim - min(normalized)
            trace.record_count_attribute("normalized_shape", label.reshape(-1), entry)
    trace.set_labels(call.outs[0], couple_broadcast_labels(trace, [x, *affine], x.ndim))


@register_rule("native_group_norm", "group_norm")
def _group_norm(trace: Trace, call: OpCall) -> None:
    x, weight, bias = call.args[:3]
    groups = int(call.args[6]) if call.base == "native_group_norm" else int(call.args[1])
    arriving = trace.channels_along(x, 1)
    if arriving is not None:
        for tensor in (weight, bias):
            entries = trace.channels_along(tensor, 0) if isinstance(tensor, Tensor) else None
            if entries is not None:
                trace.couple_arrival(entries, arriving)
        per_group = arriving.view(groups, -1)
        if groups > 1 and isinstance(trace.running_module, nn.GroupNorm):
            trace.keep_groups_whole(
                per_group
            )  # adding or removing a group does not change the others
            trace.record_count_attribute("num_groups", per_group[:, 0])
        else:
            trace.normalize_together(arriving, f"{trace.where()} normalizes over them")
            trace.couple(per_group[:1], per_group)
    trace.set_labels(call.outs[0], list(trace.labels(x)))


@register_rule("_weight_norm_interface")
def _weight_norm(trace: Trace, call: OpCall) -> None:
    """w = g v / |v| (Salimans & Kingma 2016); g has size 1 in every dimension but ``dim``."""
    direction, gain = call.args[:2]
    # A new column of zeros leaves |v| unchanged, so nothing is normalized together.
    trace.set_labels(
        call.outs[0], couple_broadcast_labels(trace, [direction, gain], direction.ndim)
    )

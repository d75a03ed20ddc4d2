"""Rules of convolutions: which filters produce channels, and which columns read them."""

from __future__ import annotations

from torch import Tensor

from revacnn_lightning.steering.tracing.labels import Label, label_along, labeled_dims
from revacnn_lightning.steering.tracing.records import OpCall
from revacnn_lightning.steering.tracing.rules.rounding import conv_rounding_unit
from revacnn_lightning.steering.tracing.rules.table import register_rule
from revacnn_lightning.steering.tracing.trace import Trace

__all__ = ["convolution_rule", "couple_bias", "fix_if_only_one_labeled", "why_unlabeled"]


@register_rule("convolution", "_convolution", "convolution_overrideable")
def convolution_rule(trace: Trace, call: OpCall) -> None:
    """Record which filters of the weight produce channels, and which columns read them."""
    x, weight, bias = call.args[:3]
    transposed, groups = call.args[6], call.args[8]
    name = trace.record_conv(call.out, x, weight, transposed=transposed)
    trace.rounding_unit = max(trace.rounding_unit, conv_rounding_unit(call.out))
    spatial = _labels_over_space(trace, call)
    is_depthwise = groups > 1 and groups == x.shape[1] and not transposed
    arriving = trace.channels_along(x, 1)
    rows, columns = trace.channels_along(weight, 0), trace.channels_along(weight, 1)
    if arriving is not None and not is_depthwise:
        trace.activity.record(x, 1, arriving)
    if transposed:
        produced = filters = _transposed(trace, arriving, rows, columns, groups)
    elif is_depthwise:
        produced, filters = _depthwise(trace, arriving, rows, groups), rows
    else:
        produced = filters = _grouped(trace, arriving, rows, columns, groups)
    if produced is not None:
        couple_bias(trace, bias, 0, produced)
    if name is not None and filters is not None:
        trace.filters[name] = filters.numpy()
    elif name is not None:
        trace.unlabeled[name] = why_unlabeled(call.out.shape[1], transposed, groups)
    labels = [] if produced is None else [label_along(produced, call.out.ndim, 1)]
    labels += [label for label in trace.labels(x) if labeled_dims(label) == {0}]  # the batch
    labels += spatial
    trace.set_labels(call.out, labels)


@register_rule("deform_conv2d")
def _deformable(trace: Trace, call: OpCall) -> None:
    """A deformable conv (Dai et al. 2017): others compute where each pixel of the kernel reads."""
    x, weight, offset, mask, bias = call.args[:5]
    trace.rounding_unit = max(trace.rounding_unit, conv_rounding_unit(call.out))
    for tensor in (offset, mask):
        for label in trace.labels(tensor):
            trace.fix(label, f"are the offsets or weights of positions in {trace.where()}")
    for label in trace.labels(x):
        if labeled_dims(label) != {1}:
            trace.fix(label, f"are treated as space by {trace.where()}")
    arriving = trace.channels_along(x, 1)
    if arriving is not None:
        trace.activity.record(x, 1, arriving)
    rows, columns = trace.channels_along(weight, 0), trace.channels_along(weight, 1)
    groups, parts = int(call.args[11]), int(call.args[12])
    if arriving is not None and parts > 1:  # each part of the channels has offsets of its own
        trace.couple(arriving.view(parts, -1)[:1], arriving.view(parts, -1))
    produced = _grouped(trace, arriving, rows, columns, groups)
    if produced is not None:
        couple_bias(trace, bias, 0, produced)
        trace.set_labels(call.out, [label_along(produced, call.out.ndim, 1)])


def _labels_over_space(trace: Trace, call: OpCall) -> list[Label]:
    """Return the labels of channels along which a conv of a single channel slides.

    It mixes neighbors, as in efficient channel attention (Wang et al. 2020).
    """
    x, kept = call.args[0], []
    for label in trace.labels(x):
        dims = labeled_dims(label)
        if not dims - {0, 1}:
            continue
        dim = max(dims)
        if len(dims) == 1 and call.out.shape[1] == 1 and call.out.shape[dim] == x.shape[dim]:
            trace.normalize_together(label, f"{trace.where()} mixes those beside each other")
            kept.append(label)
        else:
            trace.fix(label, f"are treated as space by {trace.where()}")
    return kept


def _grouped(
    trace: Trace,
    arriving: Tensor | None,
    rows: Tensor | None,
    columns: Tensor | None,
    groups: int,
) -> Tensor | None:
    """Weight (C_out, C_in / groups, …): groups have rows of their own and share column indices."""
    if rows is not None:
        trace.record_producing_rows(rows)
        if groups > 1:
            per_group = rows.view(groups, -1)
            trace.couple(per_group[:1], per_group)
    if columns is not None and arriving is not None:
        per_group = arriving.view(groups, -1)
        trace.record_reading_columns(columns, per_group[0])
        trace.couple(columns[None], per_group)
    else:
        fix_if_only_one_labeled(trace, arriving, columns)
    return rows


def _transposed(
    trace: Trace,
    arriving: Tensor | None,
    rows: Tensor | None,
    columns: Tensor | None,
    groups: int,
) -> Tensor | None:
    """Weight (C_in, C_out / groups, …)."""
    if rows is not None and arriving is not None:
        trace.record_reading_columns(rows, arriving)
        if groups > 1:
            per_group = rows.view(groups, -1)
            trace.couple(per_group[:1], per_group)
    else:
        fix_if_only_one_labeled(trace, arriving, rows)
    if columns is None:
        return None
    trace.record_producing_rows(columns)
    return columns.repeat(groups)


def _depthwise(
    trace: Trace, arriving: Tensor | None, rows: Tensor | None, groups: int
) -> Tensor | None:
    """Weight (C_in · m, 1, …): filters i·m … i·m + m - 1 process channel i."""
    if rows is None or arriving is None:
        fix_if_only_one_labeled(trace, arriving, rows)
        return rows
    processed = arriving.repeat_interleave(len(rows) // groups)
    trace.record_producing_rows(rows)
    trace.couple_arrival(rows, processed)
    return processed


def why_unlabeled(filters: int, transposed: bool = False, groups: int = 1) -> str:
    """Return why the filters of a layer cannot be traced: the end of a message "<layer> …"."""
    if filters == 1:
        return (
            "has a single filter, and tracing cannot distinguish its path through the network "
            "from a constant"
        )
    if transposed and groups == filters:
        return "is a transposed conv with one filter per group; such filters cannot be edited"
    return "computes its weight in a way through which its filters cannot be traced"


def couple_bias(trace: Trace, bias: Tensor | None, dim: int, produced: Tensor) -> None:
    """Couple the entries of a bias to the channels that the weight produces."""
    channels = trace.channels_along(bias, dim) if bias is not None else None
    if channels is not None:
        trace.couple_arrival(channels, produced)


def fix_if_only_one_labeled(trace: Trace, arriving: Tensor | None, columns: Tensor | None) -> None:
    """Fix the channels of a product if only one of its two operands has labels."""
    for channels, reason in (
        (columns, f"{trace.where()} reads channels that no layer produces"),
        (arriving, f"are read by {trace.where()}, whose weight cannot be traced"),
    ):
        if channels is not None:
            trace.fix(channels, reason)

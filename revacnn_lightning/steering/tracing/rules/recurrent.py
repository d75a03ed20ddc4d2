"""Rules of fused recurrent layers, which read channels of their input: LSTM, GRU, RNN.

Where a layer runs step by step, the rules of its operations apply instead. The numbers of hidden
units are never edited: nothing is recorded for them, so what reads the output stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from revacnn_lightning.steering.tracing.labels import labeled_dims
from revacnn_lightning.steering.tracing.records import OpCall
from revacnn_lightning.steering.tracing.rules.convolutions import fix_if_only_one_labeled
from revacnn_lightning.steering.tracing.rules.rounding import matmul_rounding_unit
from revacnn_lightning.steering.tracing.rules.table import register_rule
from revacnn_lightning.steering.tracing.trace import Trace

__all__: list[str] = []


@register_rule("mkldnn_rnn_layer")
def _one_layer(trace: Trace, call: OpCall) -> None:
    """One layer in one direction: x (T, B, C), weight_ih (gates, C)."""
    _read(trace, call, [call.args[1]])


@register_rule("_cudnn_rnn", "miopen_rnn")
def _all_layers(trace: Trace, call: OpCall) -> None:
    """All layers and directions. Those of the first layer read x (T, B, C)."""
    weights, per_direction = call.args[1], int(call.args[2])
    directions = 2 if call.argument(13 if call.base == "_cudnn_rnn" else 11, "") else 1
    _read(trace, call, [weights[i * per_direction] for i in range(directions)])


def _read(trace: Trace, call: OpCall, weights: Sequence[Tensor]) -> None:
    """Record that the columns of these weights read the last dimension of the input."""
    x = call.args[0]
    arriving = trace.channels_along(x, -1)
    trace.rounding_unit = max(trace.rounding_unit, matmul_rounding_unit(call.outs[0]))
    if arriving is not None:
        trace.activity.record(x, x.ndim - 1, arriving)
    for weight in weights:
        columns = trace.channels_along(weight, 1)
        if columns is not None and arriving is not None:
            trace.record_reading_columns(columns, arriving)
        else:
            fix_if_only_one_labeled(trace, arriving, columns)
    for tensor in call.tensors:
        for label in trace.labels(tensor):
            if tensor is x and labeled_dims(label) == {x.ndim - 1}:
                continue
            if tensor is not x and any(tensor is weight for weight in weights):
                continue
            trace.fix(label, f"are states or steps of {trace.where()}, whose number is fixed")


@register_rule("_pack_padded_sequence")
def _packed(trace: Trace, call: OpCall) -> None:
    """(B, T, …) -> (steps, …): the steps of all sequences, one after the other."""
    _convert_steps(trace, call, 2, 1)


@register_rule("_pad_packed_sequence")
def _padded(trace: Trace, call: OpCall) -> None:
    """(steps, …) -> (B, T, …)."""
    _convert_steps(trace, call, 1, 2)


def _convert_steps(trace: Trace, call: OpCall, before: int, after: int) -> None:
    """Keep labels over the dimensions behind those of batch and time."""
    kept = []
    for label in trace.labels(call.args[0]):
        if min(labeled_dims(label)) < before:
            trace.fix(label, f"are the steps of a packed sequence in {trace.where()}")
        else:
            kept.append(label.reshape((1,) * after + tuple(label.shape[before:])))
    trace.set_labels(call.outs[0], kept)

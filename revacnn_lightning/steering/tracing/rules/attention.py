"""Rules of attention, whose channels are split into heads: (batch, heads, positions, channels).

The scores are sums over the channels of a head of query and key: a channel of the query belongs to
one of the key, and all scores change when one is added or removed. The result has the channels of
the value. The views before and after couple the channels of all heads (`views.py`), because every
head keeps as many.

Source: Vaswani et al. 2017, "Attention is all you need", arXiv:1706.03762.
"""

from __future__ import annotations

from torch import Tensor

from revacnn_lightning.steering.tracing.labels import Label, labeled_dims
from revacnn_lightning.steering.tracing.records import OpCall
from revacnn_lightning.steering.tracing.rules.table import register_rule
from revacnn_lightning.steering.tracing.trace import Trace

__all__ = ["has_channels_per_head", "per_head_matmul_rule"]


def has_channels_per_head(trace: Trace, tensor: Tensor) -> bool:
    """Return whether the matrices of a batch have different channels: each has those of a head."""
    return tensor.ndim == 3 and any(_is_per_head(label) for label in trace.labels(tensor))


def _is_per_head(label: Label) -> bool:
    return len(labeled_dims(label)) == 2 and 0 in labeled_dims(label)


def per_head_matmul_rule(trace: Trace, call: OpCall, left: Tensor, right: Tensor) -> None:
    """Label a matrix product for each head: (B·h, N, K) x (B·h, K, M) -> (B·h, N, M)."""
    trace.has_heads = True
    for label in (*trace.labels(left), *trace.labels(right)):
        if labeled_dims(label) == {0}:
            trace.fix(label, f"are one for each head of {trace.where()}")
    rows, read = _split_by_dim(trace, left, 2)
    columns, written = _split_by_dim(trace, right, 1)
    for label in (*read, *columns):
        if not (read and columns):
            trace.fix(label, f"are multiplied by others than channels in {trace.where()}")
    if read and columns:
        _sum_over(trace, read[0], columns[0].transpose(1, 2))
    trace.set_labels(call.out, [*rows, *written])


def _split_by_dim(trace: Trace, tensor: Tensor, dim: int) -> tuple[list[Label], list[Label]]:
    """Return the labels with channels along ``dim`` last if it is 2, first if it is 1."""
    labels = [label for label in trace.labels(tensor) if labeled_dims(label) != {0}]  # of heads
    along = [label for label in labels if dim in labeled_dims(label)]
    others = [label for label in labels if dim not in labeled_dims(label)]
    return (others, along) if dim == 2 else (along, others)


def _sum_over(trace: Trace, query: Label, key: Label) -> None:
    """Record a product that sums over the channels of two tensors."""
    trace.couple_arrival(query, key)
    trace.normalize_together(query, f"the scores of {trace.where()} sum over them")


@register_rule(
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_attention_math",
)
def _attention(trace: Trace, call: OpCall) -> None:
    """Query, key and value (B, h, N, c) -> (B, h, N, c)."""
    trace.has_heads = True
    query, key, value = (trace.labels(each) for each in call.args[:3])
    for label in (*query, *key, *value):
        if not labeled_dims(label) <= {1, 3}:
            trace.fix(label, f"are the positions of {trace.where()}")
    if query and key:
        _sum_over(trace, query[0], key[0])
    for label in (*query, *key):
        if not (query and key):
            trace.fix(label, f"are multiplied by others than channels in {trace.where()}")
    trace.set_labels(call.outs[0], list(value))

"""Triton kernels that reduce the filters of all layers in one launch, one program per filter.

A kernel finds the tensors of the layers through a table of their addresses. Each filter is a run of
coefficients in memory, whose order does not matter. Sums are float32.

Importing this module needs Triton, which PyTorch brings on Linux with CUDA.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

__all__ = ["BLOCK", "TYPES", "copy_filters", "write_filter_norms", "write_norms_of_changes"]

BLOCK = 1024  # coefficients that a program reads together

# The dtypes of coefficients that the kernels know.
TYPES = {torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}

# Sizes are not specialized: compiling a kernel again after an edit would take longer than it saves.


@triton.jit(do_not_specialize=["layer_count", "first_slot", "slot_step"])
def write_filter_norms(
    addresses,
    layer_of,
    layers,
    out,
    layer_count,
    first_slot,
    slot_step,
    ORDER: tl.constexpr,
    TYPE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write the L1 or L2 norm of each filter. Grid: (filters, sets of tensors).

    Args:
        addresses: the addresses of the tensors, int64 (sets, layers).
        layer_of: the layer of each filter, int32 (filters,).
        layers: int64 (4, layers): the first filter, the coefficients of a filter, the column of the
            first filter, and the position of the first coefficient among those of all layers.
        out: float32, receives the norms.
        layer_count: how many layers there are.
        first_slot: where the norms of the first set begin in ``out``.
        slot_step: how far the norms of the next set are from there.
        ORDER: 1 or 2.
        TYPE: the type of the coefficients.
        BLOCK: see the constant `BLOCK`.
    """
    index, part = tl.program_id(0), tl.program_id(1)
    layer = tl.load(layer_of + index)
    row = index - tl.load(layers + layer)
    length = tl.load(layers + layer_count + layer)
    column = tl.load(layers + 2 * layer_count + layer) + row
    start = tl.load(addresses + part * layer_count + layer).to(tl.pointer_type(TYPE)) + row * length
    total = tl.zeros([BLOCK], tl.float32)
    for begin in range(0, length, BLOCK):
        offsets = begin + tl.arange(0, BLOCK)
        values = tl.load(start + offsets, mask=offsets < length, other=0.0).to(tl.float32)
        if ORDER == 1:
            total += tl.abs(values)
        else:
            total += values * values
    norm = tl.sum(total, 0)
    if ORDER == 2:
        norm = tl.sqrt_rn(norm)
    tl.store(out + first_slot + part * slot_step + column, norm)


@triton.jit(do_not_specialize=["layer_count"])
def copy_filters(
    addresses,
    layer_of,
    layers,
    copies,
    layer_count,
    TYPE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Copy the coefficients of all layers, one after the other. Grid: (filters,).

    Args:
        addresses, layer_of, layers, layer_count, TYPE, BLOCK: see `write_filter_norms`.
        copies: receives the coefficients of all layers.
    """
    index = tl.program_id(0)
    layer = tl.load(layer_of + index)
    row = index - tl.load(layers + layer)
    length = tl.load(layers + layer_count + layer)
    start = tl.load(addresses + layer).to(tl.pointer_type(TYPE)) + row * length
    copy = copies + tl.load(layers + 3 * layer_count + layer) + row * length
    for begin in range(0, length, BLOCK):
        offsets = begin + tl.arange(0, BLOCK)
        is_inside = offsets < length
        tl.store(copy + offsets, tl.load(start + offsets, mask=is_inside), mask=is_inside)


@triton.jit(do_not_specialize=["layer_count", "change_slot", "norm_slot"])
def write_norms_of_changes(
    addresses,
    layer_of,
    layers,
    copies,
    out,
    layer_count,
    change_slot,
    norm_slot,
    TYPE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write the L2 norm of each filter, and that of its difference to its copy. Grid: (filters,).

    Args:
        addresses, layer_of, layers, layer_count, TYPE, BLOCK: see `write_filter_norms`.
        copies: what `copy_filters` has written.
        out: float32, receives the norms.
        change_slot: where the norms of the differences begin in ``out``.
        norm_slot: where the norms of the filters begin.
    """
    index = tl.program_id(0)
    layer = tl.load(layer_of + index)
    row = index - tl.load(layers + layer)
    length = tl.load(layers + layer_count + layer)
    column = tl.load(layers + 2 * layer_count + layer) + row
    start = tl.load(addresses + layer).to(tl.pointer_type(TYPE)) + row * length
    copy = copies + tl.load(layers + 3 * layer_count + layer) + row * length
    of_changes = tl.zeros([BLOCK], tl.float32)
    of_values = tl.zeros([BLOCK], tl.float32)
    for begin in range(0, length, BLOCK):
        offsets = begin + tl.arange(0, BLOCK)
        is_inside = offsets < length
        values = tl.load(start + offsets, mask=is_inside, other=0.0).to(tl.float32)
        change = values - tl.load(copy + offsets, mask=is_inside, other=0.0).to(tl.float32)
        of_changes += change * change
        of_values += values * values
    tl.store(out + change_slot + column, tl.sqrt_rn(tl.sum(of_changes, 0)))
    tl.store(out + norm_slot + column, tl.sqrt_rn(tl.sum(of_values, 0)))

"""Which rows of a split weight a rank has, and statistics of these rows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.tensor import Partial, Replicate, Shard

from revacnn_lightning.telemetry.recording.split_weights import LocalFilters, reduce_local_filters
from revacnn_lightning.telemetry.reductions import filter_l2_norms
from revacnn_lightning.telemetry.split_tensors import local_row_range


def split(rows: int, mesh: tuple[int, ...], at: tuple[int, ...] | None, placements: Any) -> Any:
    """Return what `local_row_range` reads of a DTensor."""
    return SimpleNamespace(
        shape=(rows, 3),
        device_mesh=SimpleNamespace(shape=mesh, get_coordinate=lambda: at),
        placements=placements,
    )


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("rows", [1, 3, 4, 9, 16])
def test_rows_are_those_of_chunk(rows: int, size: int):
    chunks = [chunk.tolist() for chunk in torch.arange(rows).chunk(size)]
    chunks += [[]] * (size - len(chunks))  # these ranks have none
    found = [local_row_range(split(rows, (size,), (at,), [Shard(0)])) for at in range(size)]
    assert [list(each or []) for each in found] == chunks


def test_rows_of_hybrid_sharding_are_those_of_its_inner_mesh():
    found = local_row_range(split(6, (2, 3), (1, 2), [Replicate(), Shard(0)]))
    assert list(found or []) == [4, 5]


@pytest.mark.parametrize(
    ("at", "placement"), [((0,), Shard(1)), ((0,), Partial()), (None, Shard(0))]
)
def test_no_rows_are_known_where_a_rank_has_no_whole_ones(at: Any, placement: Any):
    assert local_row_range(split(6, (2,), at, [placement])) is None


def test_filters_of_other_ranks_are_nan():
    own = LocalFilters(torch.ones(2, 3), 1, 4)
    assert torch.equal(
        own.expand_to_layer(torch.tensor([5.0, 6.0])).nan_to_num(-1), torch.tensor([-1.0, 5, 6, -1])
    )


def test_flat_parts_have_no_known_filters_beside_whole_weights():
    conv = nn.Conv2d(2, 3, 3)
    weight = conv.weight.detach()
    flat, whole = reduce_local_filters(
        filter_l2_norms, [(conv, weight.flatten()[:20]), (conv, weight)]
    )
    assert torch.isnan(flat).all()
    assert len(flat) == 3
    assert torch.allclose(whole, weight.flatten(1).norm(dim=1))

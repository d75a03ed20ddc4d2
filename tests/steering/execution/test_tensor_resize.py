"""Resizing tensors and mapping indices, compared with slow reference implementations."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from revacnn_lightning.steering.execution.tensor_resize import Resize
from revacnn_lightning.steering.planning import index_mapping
from revacnn_lightning.steering.planning.plan import (
    TensorEdit,
    old_indices_and_new_mask,
    split_into_runs,
)

orders = st.lists(st.integers(0, 30), max_size=40)


@given(orders)
def test_runs_represent_the_order(order: list[int]) -> None:
    runs = split_into_runs(order)
    assert [i for a, b in runs for i in range(a, b)] == order
    assert all(b != c for (_, b), (c, _) in pairwise(runs))


@st.composite
def edits(draw: st.DrawFn) -> TensorEdit:
    """Survivors in any order, each at most once; new entries copied from any index."""
    size = draw(st.integers(2, 40))
    kept = draw(st.permutations(range(size)))[: draw(st.integers(1, size))]
    order = [(i, False) for i in kept]
    for source in draw(st.lists(st.integers(0, size - 1), max_size=10)):
        order.insert(draw(st.integers(0, len(order))), (source, True))
    dim = draw(st.integers(0, 2))
    new = [i for i, (_, is_new) in enumerate(order) if is_new]
    return TensorEdit("w", dim, size, split_into_runs([i for i, _ in order]), new)


def tensor_for(edit: TensorEdit) -> torch.Tensor:
    shape = [2, 3, 2]
    shape[edit.dim] = edit.size
    return torch.arange(np.prod(shape), dtype=torch.float64).view(shape)


@given(edits())
def test_apply_equals_index_select(edit: TensorEdit) -> None:
    old = tensor_for(edit)
    order, new = old_indices_and_new_mask(edit)
    slow = torch.stack([old.select(edit.dim, i) for i in order.tolist()], edit.dim)
    assert torch.equal(Resize(edit).apply(old), slow)
    filled = Resize(edit).apply_and_fill(old, -1.0)
    for position, is_new in enumerate(new.tolist()):
        expected = torch.full_like(slow, -1.0) if is_new else slow
        assert torch.equal(filled.select(edit.dim, position), expected.select(edit.dim, position))


@given(edits())
def test_revert_is_the_inverse_of_apply(edit: TensorEdit) -> None:
    old = tensor_for(edit)
    resize = Resize(edit)
    resized = resize.apply_and_fill(old, -1.0)
    assert torch.equal(resize.revert(resized, resize.removed_entries(old)), old)
    trained = resized + 1000  # survivors keep later changes
    again = resize.revert(trained, resize.removed_entries(old))
    order, new = old_indices_and_new_mask(edit)
    for index in range(edit.size):
        at = [p for p, (i, n) in enumerate(zip(order, new, strict=True)) if i == index and not n]
        expected = trained.select(edit.dim, at[0]) if at else old.select(edit.dim, index)
        assert torch.equal(again.select(edit.dim, index), expected)


@given(edits())
def test_an_entry_and_its_copies_sum_to_what_it_was(edit: TensorEdit) -> None:
    resize, old = Resize(edit), tensor_for(edit)
    new = resize.apply_keeping_sums(old, torch.Generator())
    for source in np.unique(resize.order[resize.is_new]):
        at = torch.from_numpy(np.flatnonzero(resize.order == source))
        total = new.index_select(edit.dim, at).double().sum(edit.dim)
        torch.testing.assert_close(total, old.select(edit.dim, source).double())


def test_an_entry_and_one_copy_sum_to_it_exactly_in_every_precision() -> None:
    edit = TensorEdit("w", 1, 3, [(0, 2), (1, 3)], [2])
    for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
        old = torch.randn(64, 3, 5).to(dtype)
        new = Resize(edit).apply_keeping_sums(old, torch.Generator())
        assert torch.equal(new[:, 1] + new[:, 2], old[:, 1])
        shares = (new[:, 1] / old[:, 1]).double()
        assert shares.std() > 0.01  # not proportional


@given(st.integers(1, 6), st.integers(1, 5), st.data())
def test_insert_copies_after_a_flatten(filters: int, block: int, data: st.DataObject) -> None:
    """Each filter has ``block`` adjacent columns; those of its copy come right after them."""
    index, count = data.draw(st.integers(0, filters - 1)), data.draw(st.integers(1, 3))
    columns = np.arange(index * block, (index + 1) * block)
    edit = index_mapping.duplication_edit("w", 1, filters * block, columns, 1, count)
    order, new = old_indices_and_new_mask(edit)
    slow: list[tuple[int, bool]] = []
    for f in range(filters):
        own = [(f * block + i, False) for i in range(block)]
        slow += own + [(i, True) for i, _ in own] * (count if f == index else 0)
    assert list(zip(order.tolist(), new.tolist(), strict=True)) == slow


@settings(max_examples=200)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=12), st.data())
def test_columns_match_arriving_channels(arrived: list[int], data: st.DataObject) -> None:
    """The k-th arrival of a channel gets its k-th old column; copies cycle through them."""
    kept = data.draw(st.lists(st.sampled_from(arrived), unique=True))
    wanted = [(label, False) for label in arrived if label in kept]
    copies = data.draw(st.lists(st.sampled_from(arrived), max_size=4))
    wanted += [(label, True) for label in copies]
    wanted = data.draw(st.permutations(wanted))
    if not wanted:
        return
    columns = {label: [i for i, a in enumerate(arrived) if a == label] for label in arrived}
    used: dict[tuple[int, bool], int] = {}
    slow = []
    for label, new in wanted:
        k = used.get((label, new), 0)
        used[label, new] = k + 1
        slow.append(columns[label][k % len(columns[label])])
    labels, is_new = (np.array(list(each)) for each in zip(*wanted, strict=True))
    fast = index_mapping._match(np.array(arrived), labels, is_new, "w")
    assert fast.tolist() == slow

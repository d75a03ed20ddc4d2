"""Checksums, by which processes notice that their networks differ."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from revacnn_lightning.steering.execution import peers
from revacnn_lightning.steering.execution.peers import checksum

DTYPES = [
    *(torch.bool, torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64),
    torch.complex128,
]


def values(count: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(0)).mul(50).to(dtype)


def sum_by_numpy(tensor: Tensor) -> int:
    """Return what `peers._sum_of` returns, word by word."""
    data = tensor.contiguous().view(torch.uint8).numpy().tobytes()
    whole = len(data) - len(data) % peers.WORD
    words = np.frombuffer(data[:whole], np.int64)
    rest = np.frombuffer(data[whole:], f"i{tensor.element_size()}").astype(np.int64)
    columns = np.zeros(peers.ROW, np.int64)
    np.add.at(columns, np.arange(len(words)) % peers.ROW, words)
    columns[peers.ROW - len(rest) :] += rest
    return int((columns * np.arange(1, peers.ROW + 1) * 7_919).sum())


@pytest.mark.parametrize("count", [0, 1, 5, 2_500])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
def test_the_sum_equals_that_of_numpy(dtype: torch.dtype, count: int):
    tensor = values(count, dtype)
    with np.errstate(over="ignore"):
        assert int(peers._sum_of(tensor)) == sum_by_numpy(tensor)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("offset", [0, 1, 3])
def test_where_a_tensor_lies_does_not_matter(dtype: torch.dtype, offset: int):
    tensor = values(4_099, dtype)
    shifted = torch.cat([tensor[:offset], tensor])[offset:]
    assert int(peers._sum_of(shifted)) == int(peers._sum_of(tensor))
    image = values(2 * 3 * 5 * 7, torch.float32).view(2, 3, 5, 7)
    strided = image.to(memory_format=torch.channels_last)
    assert int(peers._sum_of(strided)) == int(peers._sum_of(image))


@pytest.mark.parametrize("index", [0, 1, 2_041, 2_042, 4_098])
def test_one_changed_bit_of_a_weight_is_noticed(index: int):
    model = nn.Linear(4_099, 1)
    before = checksum(model, [])
    with torch.no_grad():
        model.weight.view(torch.int32)[0, index] ^= 1
    assert checksum(model, []) != before


def test_swapped_entries_and_optimizer_state_are_noticed():
    model = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(1, 3)).sum().backward()
    optimizer.step()
    before = checksum(model, [optimizer])
    with torch.no_grad():
        model.weight[0] = model.weight[0].flip(0)
    assert checksum(model, [optimizer]) != before
    with torch.no_grad():
        model.weight[0] = model.weight[0].flip(0)
    assert checksum(model, [optimizer]) == before
    optimizer.state[model.bias]["exp_avg"][0] += 1e-3
    assert checksum(model, [optimizer]) != before

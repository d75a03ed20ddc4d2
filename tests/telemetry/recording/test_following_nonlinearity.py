from __future__ import annotations

import torch
from torch import nn

from revacnn_lightning.telemetry.recording import following_nonlinearity


def test_owner_is_found_by_identity():
    owners = following_nonlinearity.MapOwners()
    a, b = torch.ones(2), torch.ones(2)
    owners.set_owner(a, "conv")
    assert owners.find_owner(a, b) == "conv"
    assert owners.find_owner(b, a) is None
    assert owners.find_owner("no tensor", b) is None


def test_in_place_modules_keep_the_owner_and_other_writes_do_not():
    owners = following_nonlinearity.MapOwners()
    a = torch.ones(2)
    owners.set_owner(a, "conv")
    returned = nn.ReLU(inplace=True)(a)
    assert owners.find_owner(a, returned) == "conv"
    owners.set_owner(a, "conv")
    a += 1
    assert owners.find_owner(a, torch.ones(2)) is None
    assert owners.find_owner(a, nn.ReLU(inplace=True)(a)) is None


def test_owners_keep_no_tensor_alive():
    owners = following_nonlinearity.MapOwners()
    a = torch.ones(2)
    owners.set_owner(a, "conv")
    address = id(a)
    del a
    impostors = [torch.ones(2) for _ in range(20)]
    assert all(owners.find_owner(t, t) is None for t in impostors if id(t) == address)


def test_module_kinds():
    assert following_nonlinearity.is_normalization(nn.SyncBatchNorm(3))
    assert following_nonlinearity.is_nonlinearity(nn.ReLU6())
    assert not following_nonlinearity.is_nonlinearity(nn.Softmax2d())
    assert not following_nonlinearity.is_normalization(nn.MaxPool2d(2))

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict

import torch
from torch import nn

from revacnn_lightning.telemetry.recording.batch_hooks import BatchHooks


def test_hooks_are_called_from_open_to_close_only():
    module, called = nn.ReLU(), []
    taps = BatchHooks()
    assert taps.set({module: lambda *_: called.append(1)})
    module(torch.ones(1))
    taps.open()
    module(torch.ones(1))
    taps.close()
    module(torch.ones(1))
    assert called == [1]


def test_copies_of_an_open_module_have_the_hooks_of_others_only():
    module = nn.ReLU()
    taps = BatchHooks()
    taps.set({module: print})
    module.register_forward_hook(nn.Identity.forward)  # something that can be pickled
    taps.open()
    assert len(module._forward_hooks) == 2
    table = module._forward_hooks
    for twin in (
        copy.deepcopy(module)._forward_hooks,
        pickle.loads(pickle.dumps(module))._forward_hooks,
        copy.copy(table),
        table.copy(),
    ):
        assert type(twin) is OrderedDict
        assert list(twin.values()) == [nn.Identity.forward]


def test_a_module_that_others_listen_to_is_not_touched():
    free, taken = nn.ReLU(), nn.ReLU()
    taken.register_forward_hook(print)
    tables = free._forward_hooks, taken._forward_hooks
    taps = BatchHooks()
    assert not taps.set({free: print, taken: print})
    assert (free._forward_hooks, taken._forward_hooks) == tables
    assert not taps.are_set


def test_what_others_add_meanwhile_stays_and_can_be_removed():
    module = nn.ReLU()
    original = module._forward_hooks
    taps = BatchHooks()
    taps.set({module: print})
    handle = module.register_forward_hook(print)
    taps.clear()
    assert len(module._forward_hooks) == 1
    handle.remove()
    assert not module._forward_hooks
    other = nn.ReLU()
    taps.set({other: print})
    taps.clear()
    assert type(other._forward_hooks) is type(original) is OrderedDict

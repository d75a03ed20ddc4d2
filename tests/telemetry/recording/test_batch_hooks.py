from __future__ import annotations

import copy
import pickle
from collections import OrderedDict

import torch
from torch import nn

from revacnn_lightning.telemetry.recording.batch_hooks import BatchHooks


def test_hooks_run_only_while_enabled():
    module, called = nn.ReLU(), []
    batch_hooks = BatchHooks()
    assert batch_hooks.install({module: lambda *_: called.append(1)})
    module(torch.ones(1))
    batch_hooks.enable()
    module(torch.ones(1))
    batch_hooks.disable()
    module(torch.ones(1))
    assert called == [1]


def test_copies_contain_only_foreign_hooks():
    module = nn.ReLU()
    batch_hooks = BatchHooks()
    batch_hooks.install({module: print})
    module.register_forward_hook(nn.Identity.forward)  # picklable
    batch_hooks.enable()
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


def test_install_refuses_modules_with_foreign_hooks():
    free, hooked = nn.ReLU(), nn.ReLU()
    hooked.register_forward_hook(print)
    tables = free._forward_hooks, hooked._forward_hooks
    batch_hooks = BatchHooks()
    assert not batch_hooks.install({free: print, hooked: print})
    assert (free._forward_hooks, hooked._forward_hooks) == tables
    assert not batch_hooks.is_installed


def test_foreign_hooks_survive_uninstall():
    module = nn.ReLU()
    original = module._forward_hooks
    batch_hooks = BatchHooks()
    batch_hooks.install({module: print})
    handle = module.register_forward_hook(print)
    batch_hooks.uninstall()
    assert len(module._forward_hooks) == 1
    handle.remove()
    assert not module._forward_hooks
    other = nn.ReLU()
    batch_hooks.install({other: print})
    batch_hooks.uninstall()
    assert type(other._forward_hooks) is type(original) is OrderedDict

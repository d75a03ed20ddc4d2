"""Hooks on chosen modules run during a batch, and no copy of a module contains them."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from revacnn_lightning.telemetry import Recorder
from revacnn_lightning.telemetry.recording.batch_hooks import BatchHooks


class WithOwnState(nn.Linear):
    """Copies and pickles of it contain all of its attributes."""

    def __getstate__(self) -> dict[str, Any]:
        return vars(self).copy()


def through_file(module: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def test_hooks_run_only_while_enabled():
    module, received = nn.ReLU(), []
    batch_hooks = BatchHooks()
    assert batch_hooks.install({module: lambda *call: received.append(call)})
    images = torch.ones(1)
    module(images)
    batch_hooks.enable()
    output = module(images)
    batch_hooks.disable()
    module(images)
    [(called, args, returned)] = received
    assert called is module
    assert args[0] is images
    assert returned is output


def test_a_replaced_hook_returns_with_the_next_batch():
    module, called = nn.ReLU(), []
    batch_hooks = BatchHooks()
    batch_hooks.install({module: lambda *_: called.append("first")})
    batch_hooks.enable()
    batch_hooks.hook_replacer(module)(lambda *_: called.append("other"))
    module(torch.ones(1))
    batch_hooks.disable()
    batch_hooks.enable()
    module(torch.ones(1))
    assert called == ["other", "first"]


@pytest.mark.parametrize(
    "make_copy",
    [copy.copy, copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module)), through_file],
    ids=["copy", "deepcopy", "pickle", "file"],
)
@pytest.mark.parametrize("kind", [nn.Linear, WithOwnState])
def test_a_copy_made_within_a_batch_runs_itself_without_hooks(
    kind: type[nn.Linear], make_copy: Callable[[nn.Module], nn.Module]
):
    if kind is WithOwnState and make_copy is copy.copy:
        pytest.skip("its shallow copy shares all attributes, whatever they are")
    module, called = kind(2, 2), []
    batch_hooks = BatchHooks()
    batch_hooks.install({module: lambda *_: called.append(1)})
    batch_hooks.enable()
    twin = make_copy(module)
    twin._parameters = {"weight": nn.Parameter(torch.zeros(2, 2)), "bias": None}
    assert not twin(torch.ones(1, 2)).any()
    assert not called


def test_a_module_has_no_attribute_of_ours_after_a_batch():
    module = nn.ReLU()
    before = dict(vars(module))
    batch_hooks = BatchHooks()
    batch_hooks.install({module: print})
    batch_hooks.enable()
    assert vars(module) != before
    batch_hooks.disable()
    assert vars(module) == before
    batch_hooks.enable()
    batch_hooks.uninstall()
    assert vars(module) == before


def test_hooks_of_others_run_and_may_replace_the_output():
    module, received = nn.ReLU(), []
    batch_hooks = BatchHooks()
    batch_hooks.install({module: lambda *call: received.append(call[2])})
    batch_hooks.enable()
    handle = module.register_forward_hook(lambda module, args, output: output + 1)
    output = module(torch.ones(1))
    assert output == 2
    assert received[0] is output
    batch_hooks.uninstall()
    assert len(module._forward_hooks) == 1
    handle.remove()
    assert not module._forward_hooks


class OwnCall(nn.ReLU):
    """A module that is called in a way of its own."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **kwargs)


def hooked() -> nn.Module:
    module = nn.ReLU()
    module.register_forward_hook(print)
    return module


def compiled() -> nn.Module:
    module = nn.ReLU()
    module.compile(backend="eager")
    return module


@pytest.mark.parametrize("make", [hooked, compiled, OwnCall])
def test_install_refuses_modules_that_others_observe_or_call(make: Callable[[], nn.Module]):
    free, other = nn.ReLU(), make()
    before = [dict(vars(module)) for module in (free, other)]
    batch_hooks = BatchHooks()
    assert not batch_hooks.install({free: print, other: print})
    batch_hooks.enable()
    assert [dict(vars(module)) for module in (free, other)] == before
    assert not batch_hooks.is_installed


def test_a_module_compiled_within_a_batch_stays_compiled():
    module = nn.ReLU()
    batch_hooks = BatchHooks()
    batch_hooks.install({module: print})
    batch_hooks.enable()
    module.compile(backend="eager")
    call = module._compiled_call_impl
    batch_hooks.uninstall()
    assert module._compiled_call_impl is call


def test_errors_of_a_forward_pass_through():
    class Failing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("of the user")

    module = Failing()
    batch_hooks = BatchHooks()
    batch_hooks.install({module: print})
    batch_hooks.enable()
    with pytest.raises(ValueError, match="of the user"):
        module(torch.ones(1))


def test_replicas_of_data_parallel_do_not_call_the_module_that_they_copy():
    """They share the attributes of a module, on another GPU."""
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    parallel = nn.DataParallel(net)
    recorder = Recorder(net)
    recorder.attach()
    for _ in range(3):
        recorder.begin_batch()
        replica = net[1]._replicate_for_data_parallel()
        own, copied = vars(net[1]), vars(replica)
        assert "_compiled_call_impl" not in own | copied
        parallel(torch.ones(1, 1, 4, 4)).sum().backward()
        recording = recorder.end_batch()
        assert recording is not None
        assert recording.values[recording.names.index("activation")].min() >= 0
    recorder.detach()

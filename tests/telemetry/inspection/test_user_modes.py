"""Modes of the user are suspended, and active again afterwards in the same order."""

from __future__ import annotations

import pytest
import torch
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode_stack

from revacnn_lightning.telemetry.inspection import user_modes
from revacnn_lightning.telemetry.inspection.user_modes import torch_modes_suspended


class Dispatch(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


class Function(TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


def modes() -> list[object]:
    return [*_get_current_dispatch_mode_stack(), *_get_current_function_mode_stack()]


def test_this_release_of_torch_can_suspend_modes() -> None:
    assert user_modes.CAN_SUSPEND


def test_modes_are_suspended_and_restored_in_order_after_an_exception() -> None:
    with Dispatch(), Function(), Dispatch(), Function():
        before = modes()
        inside = []

        def fail() -> None:
            with torch_modes_suspended():
                inside.extend(modes())
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        assert len(before) == 4
        assert inside == []
        assert modes() == before
    assert modes() == []


def test_the_default_device_stays_in_effect() -> None:
    with torch.device("meta"), Function():
        before = modes()
        with torch_modes_suspended():
            assert torch.zeros(1).device.type == "meta"
            assert len(modes()) == 1
        assert modes() == before

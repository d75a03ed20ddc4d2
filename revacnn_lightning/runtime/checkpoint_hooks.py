"""Adds the edits of a model to Lightning's checkpoints, and applies them before weights are loaded.

Lightning passes a checkpoint to callbacks only after it has loaded the weights, which might not
fit, and never if it saves weights only. The module's own `on_load_checkpoint` and
`on_save_checkpoint` are called early and always: they are wrapped on the instance while a trainer
runs it.
"""

from __future__ import annotations

import copy
import logging
import types
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from revacnn_lightning.errors import SteeringError
from revacnn_lightning.runtime.trainer_adapter import (
    loads_checkpoint_after_start,
    other_callbacks_as_copy_holders,
)
from revacnn_lightning.steering.checkpoint import (
    add_edits,
    adopt_journal_of_loaded_weights,
    adopt_structure,
    find_edit_state,
    inserted_layer_names,
    regroup_parameters_as_saved,
    restore_entry_ages,
    saved_parameter_names,
)
from revacnn_lightning.steering.holders.optimizers import unwrapped_optimizers

__all__ = ["CheckpointHooks"]

log = logging.getLogger(__name__)

LOAD, SAVE = "on_load_checkpoint", "on_save_checkpoint"


class CheckpointHooks:
    """The wrapped checkpoint hooks of one module, from `install` to `remove`.

    Args:
        module: the module that a trainer runs.
        trainer: the trainer, whose optimizers are saved.
        copies: the argument ``copies`` of `ReVACNN`: module -> the module that it is a copy of.

    Attributes:
        check_can_save: raises an exception if the module must not be saved at this moment.
    """

    def __init__(
        self, module: nn.Module, trainer: Any, copies: Mapping[str, str | None] | None = None
    ) -> None:
        self.trainer = trainer
        self._copies = copies
        self._module = module
        self._loaded: dict[str, Any] | None = None  # the edits of the checkpoint to resume from
        self._has_started = False
        self._has_loaded = False
        self._handles: list[Any] = []
        self._made_copies: list[tuple[weakref.ref[nn.Module], str]] = []  # and a hook that they got
        self.check_can_save: Callable[[], None] = _do_nothing

    @classmethod
    def installed_on(cls, module: nn.Module) -> CheckpointHooks | None:
        """Return the `CheckpointHooks` that are installed on a module; None if there are none."""
        hook = vars(module).get(LOAD)
        return hook.hooks if isinstance(hook, CheckpointHookWrapper) else None

    def install(self) -> None:
        """Wrap the hooks of the module. Does nothing if they are wrapped already."""
        if self.installed_on(self._module) is None:
            for name, call in ((LOAD, self._load), (SAVE, self._save)):
                vars(self._module)[name] = CheckpointHookWrapper(self, self._module, name, call)

    def remove(self) -> None:
        """Give the module its own hooks back."""
        self.finish_loading()
        self.remove_copied_attributes()
        for name in (LOAD, SAVE):
            hook = vars(self._module).get(name)
            if isinstance(hook, CheckpointHookWrapper) and hook.hooks is self:
                hook.unwrap()

    def note_copied_attribute(self, copied: nn.Module, name: str) -> None:
        """Remember that a copy of the module got the attribute ``name``."""
        self._made_copies.append((weakref.ref(copied), name))

    def remove_copied_attributes(self) -> None:
        """Remove the attributes that copies of the module got; those of their class apply again."""
        for reference, name in self._made_copies:
            copied = reference()
            hook = None if copied is None else vars(copied).get(name)
            if isinstance(hook, types.MethodType) and hook.__self__ is copied:
                del vars(copied)[name]
        self._made_copies.clear()

    # ------------------------------------------------------------------ checkpoints

    def _load(self, original: Callable[[Any], object], checkpoint: dict[str, Any]) -> None:
        if loads_checkpoint_after_start(self.trainer):
            self._adopt_late(checkpoint)
        elif not self._has_started:  # later, a file cannot change what is trained
            holders = other_callbacks_as_copy_holders(self.trainer)
            optimizers = unwrapped_optimizers(self.trainer.optimizers)
            adopt_structure(self._module, checkpoint, optimizers, holders, self._copies)
            self._loaded = find_edit_state(checkpoint)
            if self._loaded is not None:
                _rename_groups_of_finetuning(checkpoint, self._loaded["parameters"])
        original(checkpoint)

    def _adopt_late(self, checkpoint: dict[str, Any]) -> None:
        """Adopt the edits of a checkpoint whose weights are loaded already."""
        if self._has_loaded:  # a file cannot change what is trained
            return
        try:
            adopt_journal_of_loaded_weights(self._module, checkpoint)
        except SteeringError as error:  # the training itself has what it needs
            log.warning("The edits of the checkpoint are not adopted: %s", error)

    def _save(self, original: Callable[[Any], object], checkpoint: dict[str, Any]) -> None:
        self.check_can_save()
        original(checkpoint)
        add_edits(checkpoint, self._module, self.trainer.optimizers)

    # ------------------------------------------------------------------ optimizers

    def begin_loading(self, optimizers: Sequence[Optimizer]) -> None:
        """Order the parameters of fresh optimizers right before their state is loaded.

        Not earlier, because other callbacks may still change the groups in ``on_fit_start``.

        Raises:
            SteeringError: the checkpoint was written with another number of optimizers.
        """
        self._has_started = True
        self.remove_copied_attributes()
        state, self._loaded = self._loaded, None
        if state is None:
            return
        saved, inserted = saved_parameter_names(state, len(optimizers)), inserted_layer_names(state)
        for optimizer, groups in zip(optimizers, saved, strict=False):
            self._order_when_loaded(optimizer, groups, inserted)
        restore_entry_ages(self._module, optimizers, state)

    def _order_when_loaded(
        self, optimizer: Optimizer, groups: list[list[str]], inserted: list[str]
    ) -> None:
        def order(optimizer: Optimizer, _: dict[str, Any]) -> None:
            regroup_parameters_as_saved(optimizer, self._module, groups, inserted)

        self._handles.append(optimizer.register_load_state_dict_pre_hook(order))

    def finish_loading(self) -> None:
        """Remove the hooks of the optimizers: the checkpoint is loaded, or there is none."""
        self._has_loaded = True
        for handle in self._handles:
            handle.remove()
        self._handles.clear()


class CheckpointHookWrapper:
    """A hook on a module's instance. A copy or a pickle of the module gets its own hook instead."""

    def __init__(
        self,
        hooks: CheckpointHooks,
        module: nn.Module,
        name: str,
        call: Callable[[Callable[[Any], object], dict[str, Any]], None],
    ) -> None:
        self.hooks = hooks
        self._module, self._name, self._call = module, name, call
        self._was_on_instance = name in vars(module)
        self._original = getattr(module, name)
        self.__wrapped__ = self._original  # Lightning looks there for what is overridden

    def __call__(self, checkpoint: dict[str, Any]) -> None:
        self._call(self._original, checkpoint)

    def __reduce__(self) -> tuple[Any, ...]:
        # When this is evaluated, the copied module has no instance attributes yet: the result is
        # the method of its class, bound to the copy.
        return getattr, (self._module, self._name)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if self._was_on_instance:
            return copy.deepcopy(self._original, memo)
        copied = copy.deepcopy(self._module, memo)  # the one that is being made
        self.hooks.note_copied_attribute(copied, self._name)
        return getattr(copied, self._name)

    def unwrap(self) -> None:
        """Restore the hook that was there before."""
        if self._was_on_instance:
            vars(self._module)[self._name] = self._original
        else:
            vars(self._module).pop(self._name, None)


def _do_nothing() -> None:
    pass


def _rename_groups_of_finetuning(
    checkpoint: dict[str, Any], parameters: Sequence[Sequence[Sequence[str]]]
) -> None:
    """Update the parameter names that `BaseFinetuning` has stored before an edit.

    Lightning's callback makes the parameter groups from them when it resumes.
    """
    for state in checkpoint.get("callbacks", {}).values():
        stored = state.get("internal_optimizer_metadata") if isinstance(state, dict) else None
        for i, groups in (stored or {}).items():
            if i < len(parameters) and len(groups) == len(parameters[i]):
                for group, names in zip(groups, parameters[i], strict=True):
                    group["params"] = list(names)

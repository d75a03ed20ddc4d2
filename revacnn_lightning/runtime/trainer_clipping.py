"""The gradient clipping of a Lightning Trainer, without importing Lightning.

Lightning reads ``Trainer.gradient_clip_val`` and ``Trainer.gradient_clip_algorithm`` before each
step of an optimizer. This sets them at the start of a batch, as a callback of the user could.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from revacnn_lightning.protocol.gradient_clipping import describe_clipping
from revacnn_lightning.protocol.messages import GradientClipping
from revacnn_lightning.protocol.requests import SetGradientClipping
from revacnn_lightning.runtime.user_hooks import find_caller, overrides

__all__ = ["TrainerClipping"]

log = logging.getLogger(__name__)

MANUAL = (
    "this training uses manual optimization: training_step clips the gradients itself, and the "
    "Trainer clips none"
)
DEEPSPEED = "DeepSpeed clips gradients itself, with the value that the training started with"
FSDP = (
    "with FSDP, each process has only a part of each gradient, so Lightning does not clip by norm; "
    "clip by value"
)
MESHES = (
    "some parameters are split among the processes and others are not, so that the norm of all "
    "gradients together cannot be computed; clip by value"
)

Values = tuple[Any, Any]  # of the two attributes


class TrainerClipping:
    """The `ClippingControl` of a Trainer during a fit.

    Args:
        trainer: the Trainer.
        module: the module that it trains.
        algorithms: Lightning's enumeration of the algorithms.
    """

    def __init__(self, trainer: Any, module: nn.Module, algorithms: Callable[[str], Any]) -> None:
        self._trainer = trainer
        self._module: Any = module
        self._algorithms = algorithms
        self._configured = self._values
        self._chosen: Values | None = None  # set from outside, and still in force
        self._note = ""

    def describe(self) -> GradientClipping:
        refusal, (value, algorithm) = self._refusal(), _plain(self._values)
        return GradientClipping(None if refusal else value, algorithm, self._note, refusal)

    def why_not(self, request: SetGradientClipping) -> str:
        refusal = self._refusal()
        if refusal or not request.value or request.algorithm != "norm":
            return refusal
        if _defining_class(self._trainer.precision_plugin, "clip_grad_by_norm").startswith("FSDP"):
            return FSDP
        parameters = [p for o in self._trainer.optimizers for g in o.param_groups
                      for p in g["params"]]  # fmt: skip
        return MESHES if len({getattr(p, "device_mesh", None) for p in parameters}) > 1 else ""

    def set(self, request: SetGradientClipping) -> Callable[[], object]:
        before = self._values, self._chosen, self._note
        algorithm = self._algorithms(request.algorithm) if request.value else self._configured[1]
        self._values = self._chosen = (float(request.value) if request.value else None, algorithm)
        self._note = ""

        def restore() -> None:
            self._values, self._chosen, self._note = before

        return restore

    def detect_override(self, step: int) -> bool:
        if self._chosen is None or self._values == self._chosen:
            return False
        chosen, present = (describe_clipping(*_plain(v)) for v in (self._chosen, self._values))
        self._chosen = None
        self._note = (
            f"the training sets its own gradient clipping: it replaced {chosen} by {present} "
            f"before batch {step}"
        )
        log.warning("%s", self._note)
        return True

    # ------------------------------------------------------------------ between fits

    def close(self) -> None:
        """Give the Trainer the values with which it was configured, for its next fit."""
        if self._chosen is not None and self._values == self._chosen:
            self._values = self._configured

    def state(self) -> dict[str, Any]:
        """Return what checkpoints keep: nothing unless the clipping was set from outside."""
        if self._chosen is None:
            return {}
        chosen, configured = _plain(self._chosen), _plain(self._configured)
        return {"gradient_clipping": {"chosen": list(chosen), "configured": list(configured)}}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Clip as in the run of a checkpoint, unless the Trainer is configured otherwise."""
        saved = state.get("gradient_clipping")
        if saved is None:
            return
        request = SetGradientClipping(*saved["chosen"])
        in_words, reason = describe_clipping(*saved["chosen"]), self.why_not(request)
        if list(_plain(self._configured)) != saved["configured"]:
            reason = "the Trainer has another gradient_clip_val than in that run"
        if reason:
            log.warning("The gradient clipping of the resumed run (%s) is dropped: %s",
                        in_words, reason)  # fmt: skip
            return
        self.set(request)
        log.warning("The gradient clipping of the resumed run is in force: %s", in_words)

    # ------------------------------------------------------------------ the Trainer

    @property
    def _values(self) -> Values:
        return self._trainer.gradient_clip_val, self._trainer.gradient_clip_algorithm

    @_values.setter
    def _values(self, values: Values) -> None:
        self._trainer.gradient_clip_val, self._trainer.gradient_clip_algorithm = values

    def _refusal(self) -> str:
        """Return why no clipping of this Trainer can be set; "" if some can."""
        trainer, module = self._trainer, self._module
        if not module.automatic_optimization:
            return MANUAL
        plugin = trainer.precision_plugin
        if _defining_class(plugin, "clip_gradients").startswith("DeepSpeed"):
            return DEEPSPEED
        for name in ("configure_gradient_clipping", "clip_gradients"):
            if overrides(module, name):
                return f"{type(module).__name__} overrides {name}; change the clipping there"
        for value in (module, *trainer.callbacks):
            if caller := find_caller(value, "clip_gradients"):
                return (
                    f"{caller} calls clip_gradients, in which Lightning raises an exception if the "
                    "Trainer clips, too"
                )
        is_mixed = _defining_class(plugin, "clip_gradients").startswith("MixedPrecision")
        for optimizer in trainer.optimizers if is_mixed else ():
            if getattr(optimizer, "_step_supports_amp_scaling", False):
                return (
                    f"{type(optimizer).__name__} unscales the gradients in its step, as fused "
                    "optimizers do, so Lightning does not clip them with mixed precision"
                )
        return ""


def _defining_class(value: Any, name: str) -> str:
    """Return the name of the class that defines a method; "" without."""
    return next((kind.__name__ for kind in type(value).__mro__ if name in vars(kind)), "")


def _plain(values: Values) -> tuple[float, str]:
    """Return the values of the two attributes as numbers and text: 0 if nothing is clipped."""
    value, algorithm = values
    return float(value or 0.0), str(getattr(algorithm, "value", algorithm) or "norm")

"""`TrainerClipping`: what Lightning clips with which precision plugin, optimizer and parameters."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning.plugins.precision import (
    DeepSpeedPrecision,
    FSDPPrecision,
    MixedPrecision,
    Precision,
)
from pytorch_lightning.utilities.enums import GradClipAlgorithmType
from torch import nn

from revacnn_lightning import SetGradientClipping
from revacnn_lightning.errors import EditFailedError, EditRefusedError
from revacnn_lightning.protocol.messages import GradientClipping
from revacnn_lightning.runtime.batch import Progress
from revacnn_lightning.runtime.controls import RunController
from revacnn_lightning.runtime.gradient_clipping import FixedClipping
from revacnn_lightning.runtime.trainer_clipping import TrainerClipping
from tests.small import TwoConvs


def trainer_of(
    plugin: Any = None, optimizers: Any = None, value: Any = None, algorithm: Any = None
) -> Any:
    """Return the part of a Trainer that is read."""
    parameters = [nn.Parameter(torch.ones(2))]
    return SimpleNamespace(
        precision_plugin=Precision() if plugin is None else plugin,
        optimizers=[torch.optim.SGD(parameters, 0.1)] if optimizers is None else optimizers,
        callbacks=[],
        gradient_clip_val=value,
        gradient_clip_algorithm=algorithm,
    )


def clipping_of(trainer: Any) -> TrainerClipping:
    return TrainerClipping(trainer, TwoConvs(), GradClipAlgorithmType)


NORM, VALUE = SetGradientClipping(1.0), SetGradientClipping(1.0, "value")


def test_fsdp_clips_by_value_only() -> None:
    plugin = FSDPPrecision("32-true")
    with pytest.raises(Exception, match="norm"):  # what Lightning does
        plugin.clip_gradients(torch.optim.SGD(TwoConvs().parameters(), 0.1), 1.0)
    clipping = clipping_of(trainer_of(plugin))
    assert "clip by value" in clipping.why_not(NORM)
    assert clipping.why_not(VALUE) == clipping.why_not(SetGradientClipping(None)) == ""
    assert clipping.describe() == GradientClipping(0.0, "norm")


def test_deepspeed_clips_as_it_was_started() -> None:
    clipping = clipping_of(trainer_of(DeepSpeedPrecision("32-true")))
    assert all("DeepSpeed" in clipping.why_not(each) for each in (NORM, VALUE))
    assert clipping.describe().describe() == "unknown"


@pytest.mark.parametrize(("is_fused", "is_mixed"), [(True, True), (True, False), (False, True)])
def test_fused_optimizers_are_not_clipped_with_mixed_precision(
    is_fused: bool, is_mixed: bool
) -> None:
    plugin = MixedPrecision("bf16-mixed", "cpu") if is_mixed else Precision()
    optimizer = torch.optim.Adam([nn.Parameter(torch.ones(2))], fused=is_fused)
    reason = clipping_of(trainer_of(plugin, [optimizer])).why_not(VALUE)
    assert bool(reason) == (is_fused and is_mixed)


def test_the_norm_of_parameters_on_different_meshes_is_not_computed() -> None:
    class OnMesh(nn.Parameter):
        device_mesh = ("tp",)

    def clipping(*parameters: nn.Parameter) -> TrainerClipping:
        return clipping_of(trainer_of(optimizers=[torch.optim.SGD(parameters, 0.1)]))

    split, whole = OnMesh(torch.ones(2)), nn.Parameter(torch.ones(2))
    assert "clip by value" in clipping(split, whole).why_not(NORM)
    assert clipping(split, whole).why_not(VALUE) == ""
    assert clipping(split).why_not(NORM) == ""


def test_the_values_are_those_that_lightning_itself_sets() -> None:
    trainer = trainer_of()
    clipping_of(trainer).set(SetGradientClipping(1, "value"))
    assert trainer.gradient_clip_algorithm is GradClipAlgorithmType.VALUE
    assert isinstance(trainer.gradient_clip_val, float)


def controller(trainer: Any, ranks: Any = None) -> RunController:
    controls = SimpleNamespace(optimizers=[], schedulers=[], clipping=clipping_of(trainer))
    return RunController("run", controls, ranks)  # type: ignore[arg-type]


def test_what_fails_in_another_process_is_taken_back() -> None:
    def set_value(command: Any, restore: Any) -> None:
        restore()
        raise EditFailedError("rank 1: it cannot")

    trainer = trainer_of(value=0.5)
    failing = controller(trainer, SimpleNamespace(set_value=set_value))
    with pytest.raises(EditFailedError):
        failing.execute(NORM, Progress(1))
    assert (trainer.gradient_clip_val, trainer.gradient_clip_algorithm) == (0.5, None)
    assert not failing.detect_overrides(2, first_of_epoch=True)  # nothing was set
    assert failing._controls.clipping.state() == {}  # type: ignore[attr-defined]


def test_an_unknown_algorithm_is_refused() -> None:
    """From inside the process, where no decoder checks a request."""
    with pytest.raises(EditRefusedError, match="'max'"):
        controller(trainer_of()).execute(SetGradientClipping(1.0, "max"), Progress(1))  # type: ignore[arg-type]


def test_code_of_the_user_that_decides_itself_is_never_changed() -> None:
    fixed = FixedClipping("a loop")
    assert (fixed.describe().describe(), fixed.detect_override(1)) == ("unknown", False)
    with pytest.raises(EditRefusedError, match="a loop"):
        fixed.set(NORM)


@pytest.mark.parametrize(
    ("clipping", "words"),
    [
        (GradientClipping(), "none"),
        (GradientClipping(1.0), "norm 1"),
        (GradientClipping(0.5, "value"), "value 0.5"),
        (GradientClipping(None), "unknown"),
    ],
)
def test_clipping_in_words(clipping: GradientClipping, words: str) -> None:
    assert clipping.describe() == words

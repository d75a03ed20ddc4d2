"""Reading a Trainer."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.precision import HalfPrecision, Precision
from torch import Tensor

from revacnn_lightning import EditRefusedError
from revacnn_lightning.runtime.image_predictions import LabelAndClassNames
from revacnn_lightning.runtime.trainer_adapter import (
    loss_scale,
    scalar_metrics,
    validation_data,
)
from tests.small import TwoConvs, fit


class RandomImages(torch.utils.data.Dataset):
    """Three images, different ones on each access."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Tensor:
        return torch.rand(3, 4, 4)


class Texts(RandomImages):
    def __getitem__(self, index: int) -> str:
        return "no image"


def trainer(data: torch.utils.data.Dataset, precision: Precision | None = None) -> SimpleNamespace:
    return SimpleNamespace(
        val_dataloaders=torch.utils.data.DataLoader(data),
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
        precision_plugin=Precision() if precision is None else precision,
    )


def test_a_random_validation_image_does_not_change_the_random_state():
    before = torch.get_rng_state()
    assert validation_data(trainer(RandomImages())).image(1).shape == (3, 4, 4)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_validation_image_has_the_type_of_the_images_of_a_batch():
    image = validation_data(trainer(RandomImages(), HalfPrecision("bf16-true"))).image(1)
    assert image.dtype == torch.bfloat16


def test_missing_validation_images_are_refused_with_the_reason():
    with pytest.raises(EditRefusedError, match="no validation images"):
        validation_data(SimpleNamespace(val_dataloaders=None)).image(0)
    with pytest.raises(EditRefusedError, match="no validation image 3; choose one of 0 to 2"):
        validation_data(trainer(RandomImages())).image(3)
    with pytest.raises(EditRefusedError, match="item 0 of the validation data holds no image"):
        validation_data(trainer(Texts())).image(0)


@pytest.mark.parametrize("shape", [(2, 50), (1, 4, 8, 8), (20,)])
def test_a_validation_signal_was_refused_because_it_is_no_image(shape):
    class Signals(RandomImages):
        def __getitem__(self, index: int) -> tuple[Tensor, int]:
            return torch.rand(shape), index

    assert validation_data(trainer(Signals())).image(2).shape == shape


def test_a_training_was_said_to_have_no_validation_images_before_its_first_validation():
    waiting = SimpleNamespace(val_dataloaders=None, enable_validation=True)
    with pytest.raises(EditRefusedError, match="right before the first validation"):
        validation_data(waiting).image(0)


def test_the_class_of_a_validation_image_is_read_and_a_failing_dataset_has_none():
    class Named(RandomImages):
        classes = ("cat", "dog")

        def __getitem__(self, index: int) -> tuple[Tensor, int]:
            return torch.rand(3, 4, 4), index

    before = torch.get_rng_state()
    assert validation_data(trainer(Named())).truth(1) == LabelAndClassNames(1, ("cat", "dog"))
    assert torch.equal(torch.get_rng_state(), before)
    assert validation_data(trainer(RandomImages())).truth(1) == LabelAndClassNames()
    assert validation_data(SimpleNamespace(val_dataloaders=None)).truth(0) == LabelAndClassNames()


def test_the_loss_scale_is_the_tensor_of_the_scaler_or_one():
    def run(scaler: object) -> SimpleNamespace:
        return SimpleNamespace(precision_plugin=SimpleNamespace(scaler=scaler))

    assert loss_scale(run(None)) == 1.0
    assert loss_scale(run(torch.amp.GradScaler("cpu", enabled=False))) == 1.0
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**9)
    assert loss_scale(run(scaler)) == 2.0**9  # it has no tensor before its first use
    scaler.scale(torch.ones(()))
    assert loss_scale(run(scaler)) is scaler._scale


def test_only_scalar_metrics_are_kept():
    logged = {"loss": torch.tensor(0.5), "curve": torch.ones(3), "count": torch.tensor(2)}
    read = scalar_metrics(SimpleNamespace(callback_metrics=logged))
    assert read == {"loss": 0.5, "count": 2.0}


def test_reading_metrics_changed_those_that_remain_after_an_exception():
    class Fails(pl.Callback):
        def __init__(self, is_read: bool) -> None:
            self.is_read = is_read

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            self.trainer = trainer
            if self.is_read:
                assert scalar_metrics(trainer)["train_loss"] == outputs["loss"]
            if batch_idx == 2:
                raise RuntimeError("out of memory")

    remaining = []
    for is_read in (False, True):
        failing = Fails(is_read)
        with pytest.raises(RuntimeError, match="out of memory"):
            fit(TwoConvs(), [failing], record_all=False)
        remaining.append(failing.trainer.callback_metrics)
    assert remaining[0] == remaining[1]

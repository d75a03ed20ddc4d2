"""What the callback asks a trainer about the run."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.runtime.trainer_adapter import (
    edit_refusal,
    inspection_refusal,
    logged_numbers,
    loss_scale,
    validation_image,
)


class Drawn(torch.utils.data.Dataset):
    """Three images that are others each time."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Tensor:
        return torch.rand(3, 4, 4)


class Words(Drawn):
    def __getitem__(self, index: int) -> str:
        return "no image"


def trainer(data: torch.utils.data.Dataset) -> SimpleNamespace:
    return SimpleNamespace(
        val_dataloaders=torch.utils.data.DataLoader(data),
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
    )


def test_a_validation_image_that_is_drawn_at_random_leaves_the_training_s_generator_alone():
    before = torch.get_rng_state()
    assert validation_image(trainer(Drawn()), 1).shape == (3, 4, 4)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_validation_image_that_is_none_is_refused_with_the_reason():
    with pytest.raises(EditRefusedError, match="no validation images"):
        validation_image(SimpleNamespace(val_dataloaders=None), 0)
    with pytest.raises(EditRefusedError, match="no validation image 3; there are 3"):
        validation_image(trainer(Drawn()), 3)
    with pytest.raises(EditRefusedError, match="item 0 of the validation data is not an image"):
        validation_image(trainer(Words()), 0)


@pytest.mark.parametrize("reason", [edit_refusal, inspection_refusal])
def test_more_than_one_process_is_refused_with_that_reason(reason):
    assert reason(SimpleNamespace(world_size=1)) == ""
    assert "2 processes" in reason(SimpleNamespace(world_size=2))


def test_the_loss_scale_is_one_without_a_scaler_and_else_the_scaler_s_own_tensor():
    def run(scaler: object) -> SimpleNamespace:
        return SimpleNamespace(precision_plugin=SimpleNamespace(scaler=scaler))

    assert loss_scale(run(None)) == 1.0
    assert loss_scale(run(torch.amp.GradScaler("cpu", enabled=False))) == 1.0
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**9)
    assert loss_scale(run(scaler)) == 2.0**9  # before its first use it has no tensor
    scaler.scale(torch.ones(()))
    assert loss_scale(run(scaler)) is scaler._scale


def test_only_numbers_are_taken_of_what_was_logged():
    logged = {"loss": torch.tensor(0.5), "curve": torch.ones(3), "count": torch.tensor(2)}
    assert logged_numbers(logged) == {"loss": 0.5, "count": 2.0}

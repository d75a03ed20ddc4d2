"""Which layers of a step of several networks read images of the batch, and what is generated."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from revacnn_lightning.protocol.requests import InspectImage
from revacnn_lightning.runtime.batch import BatchContext, Progress, TrainingBatch
from revacnn_lightning.runtime.image_pass import ImagePassCollector
from revacnn_lightning.runtime.input_images import DataAndViewerImages
from revacnn_lightning.runtime.recorded_step import RecordedStep
from revacnn_lightning.runtime.step_images import StepImageFlow, trace_layers_reading_images
from revacnn_lightning.telemetry import Recorder
from revacnn_lightning.telemetry.inspection.side_effects import side_effect_free
from tests.runtime.test_step_recorder import record

IMAGES, NOISE = torch.randn(6, 1, 6, 6), torch.randn(6, 8)


class Gan(nn.Module):
    """A generator of 6×6 images and a discriminator. Its forward needs noise."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.generator = nn.Sequential(
            nn.Linear(8, 36), nn.Unflatten(1, (4, 3, 3)), nn.ConvTranspose2d(4, 1, 2, 2), nn.Tanh()
        )
        self.discriminator = nn.Sequential(
            nn.Conv2d(1, 5, 3), nn.LeakyReLU(), nn.Flatten(), nn.Linear(80, 1)
        )

    def forward(self, noise: Tensor) -> Tensor:
        return self.generator(noise)


def loss_of(scores: Tensor, truth: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(scores, torch.full_like(scores, truth))


def one_after_the_other(model: Gan) -> Tensor:
    fake = model.generator(NOISE)
    return loss_of(model.discriminator(2 * IMAGES - 1), 1) + loss_of(model.discriminator(fake), 0)


def concatenated(model: Gan) -> Tensor:
    scores = model.discriminator(torch.cat([IMAGES, model.generator(NOISE)]))
    real, fake = scores.chunk(2)
    return loss_of(real, 1) + loss_of(fake, 0)


def seen(model: nn.Module, step: RecordedStep, names: list[str]) -> StepImageFlow | None:
    layers = {name: model.get_submodule(name) for name in names}
    with side_effect_free(model, training=False):
        return trace_layers_reading_images(step, model, layers, IMAGES.shape[1:])


LAYERS = ["generator.0", "generator.2", "discriminator.0", "discriminator.3"]


@pytest.mark.parametrize("run", [one_after_the_other, concatenated])
def test_a_discriminator_reads_the_images_of_the_batch_and_those_of_the_generator(
    run: Callable[[Gan], Tensor],
) -> None:
    model = Gan()
    found = seen(model, record(model, lambda: run(model)), LAYERS)
    assert found is not None
    assert found.flow.input_readers == ["discriminator.0"]
    assert found.flow.output_sources == {"discriminator.3"}
    passed = [(one.name, one.sources) for one in found.flow.non_layer_calls]
    assert len(passed) == len(set(passed))
    assert found.generated_image is not None
    torch.testing.assert_close(found.generated_image, model.generator(NOISE)[0])


def test_a_step_of_one_network_generates_no_image() -> None:
    model = nn.Sequential(nn.Conv2d(1, 5, 3), nn.Flatten(), nn.Linear(80, 2))
    found = seen(model, record(model, lambda: model(IMAGES).square().mean()), ["0", "2"])
    assert found is not None
    assert found.flow.input_readers == ["0"]
    assert found.generated_image is None


def test_where_no_layer_reads_images_nothing_is_shown() -> None:
    model = Gan()
    assert seen(model, record(model, lambda: model.generator(NOISE).mean()), LAYERS) is None


def test_a_module_that_does_not_run_on_images_showed_no_reader_of_the_batch() -> None:
    model = Gan()
    step = record(model, lambda: one_after_the_other(model))
    images = DataAndViewerImages()
    collector = ImagePassCollector(
        Recorder(model), model, images, model,
        find_image_flow=lambda *shown: trace_layers_reading_images(step, model, *shown),
    )  # fmt: skip
    collector.select(InspectImage())
    batch = TrainingBatch(Progress(3), get_input=lambda: IMAGES[0])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    (sent,) = collector.collect(BatchContext("run", 0, batch))
    assert sent.readers == ["discriminator.0"]
    assert sent.generated is not None
    assert sent.generated.shape == sent.image.shape == (1, 6, 6)
    assert sent.prediction is not None
    assert "several networks" in sent.prediction.note
    assert sent.modules
    # Those between the noise and the generator's layers stood between the image and its readers.
    assert [one.name for one in sent.modules if not one.after] == []
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())

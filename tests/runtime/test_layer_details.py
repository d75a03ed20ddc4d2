"""The details of opened layers in real trainings."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from revacnn_lightning import (
    AddFilters,
    ControlRun,
    EditRefusedError,
    RemoveFilters,
    Run,
    SetHyperparameter,
)
from revacnn_lightning.protocol.inspections import ImagePrediction, LayerDetail
from revacnn_lightning.protocol.requests import InspectLayer
from revacnn_lightning.runtime.layer_details import encode_image_as_float16
from tests.runtime.live_run import collect_until, train_with
from tests.small import TwoConvs, batches


def details(run: Run, request: InspectLayer, count: int = 1) -> list[LayerDetail]:
    """Return the next details of a layer, requested as a viewer does."""
    run.command(request)
    return collect_until(lambda: [m for m in run.poll() if isinstance(m, LayerDetail)], count)


def test_a_detail_holds_images_features_and_the_input_image(tmp_path):
    def client(run: Run) -> dict:
        seen = {"detail": details(run, InspectLayer("conv2"))[-1]}
        run.command(ControlRun("stop"))
        return seen

    seen, _ = train_with(client, tmp_path)
    detail = seen["detail"]
    assert detail.layer == "conv2"
    assert detail.coefficients.features.shape == (3, 4 * 9)
    assert detail.coefficients.images.shape == (3, 3, 3)
    assert detail.gradients.features.shape == (3, 4 * 9)
    assert detail.activations.images.shape == (3, 4, 4)
    assert detail.activations.features.shape == (3, 16)
    assert detail.activation_gradients.images.shape == (3, 4, 4)
    assert detail.image.shape == (1, 6, 6)
    assert detail.image_index is None
    assert np.abs(detail.coefficients.features).max() == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize(
    ("shape", "sent"),
    [
        ((2, 1024), (1, 2, 256)),
        ((1, 44_100), (1, 1, 255)),
        ((600, 3), (1, 200, 3)),
        ((20,), (1, 1, 20)),
        ((3, 1, 900), (3, 1, 256)),
        ((1, 5, 2, 4000), (1, 1, 256)),
        ((3, 300, 200), (3, 256, 171)),
        ((3, 0, 8), (0,)),
    ],
)
def test_a_long_and_thin_input_ended_the_monitoring(shape, sent):
    """A signal of a few channels was scaled to zero rows."""
    image = encode_image_as_float16(torch.randn(shape))
    assert image.shape == sent
    assert image.size == 0 or np.abs(image).max() == pytest.approx(1, rel=1e-3)


def test_a_long_signal_keeps_its_oscillation_and_its_channels():
    wave = torch.sin(torch.arange(1024) * 0.7)
    image = encode_image_as_float16(torch.stack([wave, torch.zeros(1024)]))
    assert np.abs(image[0, 0]).mean() > 0.5
    assert not image[0, 1].any()


def test_an_input_of_numbers_was_said_to_be_missing(tmp_path):
    class Table(TwoConvs):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2 = nn.Conv1d(1, 3, 3), nn.Conv1d(3, 4, 3)
            self.head = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.conv2(self.conv1(x[:, None])).mean(2))

    def client(run: Run) -> dict:
        seen = {"detail": details(run, InspectLayer("conv2"))[-1]}
        run.command(ControlRun("stop"))
        return seen

    rows = TensorDataset(torch.randn(8, 20, dtype=torch.float64), torch.zeros(8, dtype=torch.int64))
    seen, _ = train_with(client, tmp_path, Table().double(), data=DataLoader(rows, batch_size=4))
    assert seen["detail"].image.shape == (1, 1, 20)


def test_details_are_sent_immediately_while_the_run_is_paused(tmp_path):
    """A paused run trains no batch to wait for."""

    def client(run: Run) -> dict:
        seen = {"before": details(run, InspectLayer("conv2"))[-1]}
        run.command(ControlRun("pause"))
        run.poll()
        seen["slices"] = details(run, InspectLayer("conv2", kernel_slice="mean"))[-1]
        seen["image"] = details(run, InspectLayer("conv2", image_index=3))[-1]
        seen["opened"] = details(run, InspectLayer("conv1"))[-1]
        run.command(ControlRun("stop"))
        return seen

    seen, _ = train_with(client, tmp_path, validate=True)
    slices, image, opened = (seen[name] for name in ("slices", "image", "opened"))
    assert slices.kernel_slice == "mean"
    assert slices.image_index is None
    assert slices.activations.images.shape == slices.activation_gradients.images.shape == (3, 4, 4)
    assert image.image_index == 3
    expected = batches(2).dataset[3][0]
    np.testing.assert_allclose(image.image, expected / expected.abs().max(), atol=1e-3)
    assert image.activations.images.shape == (3, 4, 4)
    assert opened.layer == "conv1"
    assert opened.image.shape == (1, 6, 6)
    assert len(opened.activations.images) == 4
    assert slices.step == image.step == opened.step


def stop_with(run: Run, detail: LayerDetail) -> dict:
    """Stop the run; return its last detail."""
    run.command(ControlRun("stop"))
    return {"detail": detail}


def test_a_layer_edited_while_paused_is_sent_with_its_new_width(tmp_path):
    def client(run: Run) -> dict:
        details(run, InspectLayer("conv2"))
        run.command(ControlRun("pause"))
        run.apply(RemoveFilters("conv2", [0]))
        run.poll()
        return stop_with(run, details(run, InspectLayer("conv2"))[-1])

    seen, _ = train_with(client, tmp_path)
    detail = seen["detail"]
    assert len(detail.coefficients.images) == len(detail.coefficients.features) == 2
    assert {len(part) for part in (detail.gradients.features, detail.gradients.images)} <= {0, 2}
    assert len(detail.activations.images) == 2


@pytest.mark.parametrize("is_paused", [False, True])
def test_a_failing_forward_costs_only_the_maps(tmp_path, monkeypatch, is_paused):
    from revacnn_lightning.telemetry.inspection import layer_detail

    def fails(*_: object) -> dict:
        raise RuntimeError("the forward failed")

    monkeypatch.setattr(layer_detail, "compute_activation_maps", fails)

    def client(run: Run) -> dict:
        if is_paused:
            run.command(ControlRun("pause"))
            run.poll()
        return stop_with(run, details(run, InspectLayer("conv2", image_index=1))[-1])

    seen, _ = train_with(client, tmp_path, validate=True)
    detail = seen["detail"]
    assert len(detail.activations.images) == 0
    assert len(detail.coefficients.images) == len(detail.coefficients.features) == 3
    assert len(detail.gradients.features) in ({0, 3} if is_paused else {3})


def test_the_maps_of_a_validation_image_equal_those_of_a_forward(tmp_path):
    def client(run: Run) -> dict:
        run.command(ControlRun("pause"))
        run.command(InspectLayer("conv1", image_index=3))
        run.command(ControlRun("step"))
        found = collect_until(lambda: [m for m in run.poll() if isinstance(m, LayerDetail)], 1)
        return stop_with(run, found[-1])

    seen, trainer = train_with(client, tmp_path, validate=True)
    detail, model = seen["detail"], trainer.lightning_module
    image = batches(2).dataset[3][0]
    assert detail.image_index == 3
    np.testing.assert_allclose(detail.image, image / image.abs().max(), atol=1e-3)
    # The model has trained one batch since: the maps differ by one small step.
    with torch.no_grad():
        maps = model.relu1(model.conv1(image[None]))[0]
    np.testing.assert_allclose(detail.activations.images, maps / maps.max(), atol=0.05)


def test_images_can_show_the_mean_kernel_slice(tmp_path):
    def client(run: Run) -> dict:
        strongest = details(run, InspectLayer("conv2"))[-1]
        run.command(SetHyperparameter(0, 0, "lr", 0.0))  # the weights stay as they are
        run.command(InspectLayer("conv2", kernel_slice="mean"))
        means = collect_until(lambda: [m for m in run.poll() if is_mean(m)], 1)
        run.command(ControlRun("stop"))
        return {"strongest": strongest, "mean": means[-1]}

    def is_mean(message: object) -> bool:
        return isinstance(message, LayerDetail) and message.kernel_slice == "mean"

    seen, trainer = train_with(client, tmp_path)
    assert seen["strongest"].kernel_slice == "strongest"
    assert seen["mean"].coefficients.images.shape == (3, 3, 3)
    assert seen["mean"].gradients.images.shape == (3, 3, 3)
    means = trainer.lightning_module.conv2.weight.detach().mean(1)
    np.testing.assert_allclose(
        seen["mean"].coefficients.images, means / means.abs().max(), atol=1e-3
    )


def test_a_layer_edited_while_open_continues_with_its_new_width(tmp_path):
    def client(run: Run) -> dict:
        before = details(run, InspectLayer("conv1"))[-1]
        version = run.apply(RemoveFilters("conv1", [0])).version
        run.command(InspectLayer("conv1"))
        after = collect_until(
            lambda: [m for m in run.poll() if isinstance(m, LayerDetail) and m.version >= version],
            1,
        )[-1]
        run.command(ControlRun("stop"))
        return {"before": before, "after": after}

    seen, _ = train_with(client, tmp_path)
    assert len(seen["before"].coefficients.features) == 4
    assert len(seen["after"].coefficients.features) == 3
    assert len(seen["after"].activations.images) == 3


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (InspectLayer("conv9"), "no watched layer conv9"),
        (InspectLayer("linear"), "no watched layer linear"),
        (InspectLayer("conv1", updates_per_second=0), "updates_per_second"),
        (InspectLayer("conv1", updates_per_second=math.nan), "updates_per_second"),
        (InspectLayer("conv1", image_index=-1), "has no image -1"),
        (InspectLayer("conv1", image_index=10**9), "no validation image 1000000000"),
    ],
)
def test_invalid_requests_are_refused_with_the_reason(
    request_: InspectLayer, reason: str, tmp_path
):
    def client(run: Run) -> dict:
        try:
            run.command(request_)
        except EditRefusedError as error:
            return {"reason": str(error)}
        finally:
            run.command(ControlRun("stop"))
        return {"reason": "it was not refused"}

    seen, _ = train_with(client, tmp_path, validate=True)
    assert reason in seen["reason"]


def test_the_prediction_for_the_chosen_image_is_compared_before_and_after_an_edit(tmp_path):
    def client(run: Run) -> dict:
        run.command(ControlRun("pause"))
        run.poll()
        request = InspectLayer("conv1", image_index=3)
        chosen = details(run, request)[-1]
        run.apply(RemoveFilters("conv1", [0, 1]))
        removed = details(run, request)[-1]
        run.apply(AddFilters("conv1", 2))
        added = details(run, request)[-1]
        of_batch = details(run, InspectLayer("conv1"))[-1]
        run.command(ControlRun("stop"))
        return {"chosen": chosen, "removed": removed, "added": added, "of_batch": of_batch}

    seen, _ = train_with(client, tmp_path, validate=True)
    chosen, removed, added = seen["chosen"], seen["removed"], seen["added"]
    label = int(batches(2).dataset[3][1])
    assert chosen.prediction.truth.index == label
    assert sum(one.probability for one in chosen.prediction.classes) == pytest.approx(1, abs=1e-5)
    assert chosen.before_edit is chosen.after_edit is None
    assert probabilities(removed.before_edit) == pytest.approx(probabilities(chosen.prediction))
    assert probabilities(removed.after_edit) != pytest.approx(probabilities(removed.before_edit))
    assert removed.before_edit.version + 1 == removed.after_edit.version == removed.version
    # New filters do not change the output.
    assert probabilities(added.after_edit) == pytest.approx(probabilities(added.before_edit))
    assert seen["of_batch"].prediction is seen["of_batch"].before_edit is None


def probabilities(prediction: ImagePrediction) -> list[float]:
    return [one.probability for one in sorted(prediction.classes, key=lambda one: one.index)]


def test_histograms_are_sent_of_an_open_layer(tmp_path):
    def client(run: Run) -> dict:
        return stop_with(run, details(run, InspectLayer("conv2"))[-1])

    seen, _ = train_with(client, tmp_path)
    detail = seen["detail"]
    assert detail.weight_histogram.counts.sum() == 3 * 4 * 9
    assert detail.gradient_histogram.counts.sum() == 3 * 4 * 9
    assert 0 < detail.weight_histogram.limit < 2

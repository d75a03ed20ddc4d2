"""Trainings on a GPU: the same statistics, exact edits, and nothing that waits for the GPU."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.steering_models import SMALL, make_seeded, randomize_norms, train_step
from revacnn_lightning import AddFilters, Freeze, InsertLayer, RemoveFilters, Undo
from revacnn_lightning.steering import Editor, ForwardProbe
from revacnn_lightning.telemetry import STATISTICS, Recorder
from revacnn_lightning.telemetry.recording import fused_group, grouped_filter_norms
from revacnn_lightning.telemetry.recording.fused_group import FusedGroup

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "fused Adam": lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
    "capturable AdamW": lambda p: torch.optim.AdamW(p, lr=1e-3, capturable=True),
    "fused SGD": lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9, fused=True),
    "foreach RMSprop": lambda p: torch.optim.RMSprop(p, lr=1e-3, foreach=True),
}
EDITS = [
    AddFilters("layer1.0.conv1", 2),
    RemoveFilters("layer2.0.conv1", [1, 5]),
    RemoveFilters("conv1", [0]),
    InsertLayer("layer1.0.conv1"),
    Freeze("conv1", [3]),
]


@pytest.fixture(autouse=True)
def _full_precision() -> Iterator[None]:
    """Compute in float32 proper, by kernels whose results are the same each time."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic = False, True
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic = before


def images_on(device: str) -> Tensor:
    return torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(1)).to(device)


def resnet() -> nn.Module:
    return randomize_norms(make_seeded(SMALL["resnet"], 0), images_on("cpu"))


def record(model: nn.Module, batches: int) -> list[Any]:
    """Return the recordings of batches without an optimizer step."""
    images = images_on(str(next(model.parameters()).device))
    recorder = Recorder(model, statistics=STATISTICS)
    recorder.attach()
    found = []
    for batch in range(batches):
        model.zero_grad()
        recorder.begin_batch()
        output = model(images * (1 + batch))
        (output.square().mean() + output[:, 0].sum()).backward()
        found += [recorder.end_batch()]
    found += recorder.flush()
    recorder.detach()
    return [each for each in found if each is not None]


def test_statistics_are_those_of_the_cpu() -> None:
    model = resnet()
    # In evaluation mode, rounding is not amplified by the statistics of small batches.
    on_cpu = record(copy.deepcopy(model).eval(), batches=3)
    on_gpu = record(copy.deepcopy(model).eval().cuda(), batches=3)
    assert len(on_gpu) == len(on_cpu) == 3
    for ours, reference in zip(on_gpu, on_cpu, strict=True):
        assert ours.names == reference.names
        for i, name in enumerate(reference.names):
            # Rounding decides whether a value near 0 is above it.
            firing = 0.01 if name == "firing" else 0.0
            scale = np.nan_to_num(np.abs(reference.values[i])).max()
            np.testing.assert_allclose(
                ours.values[i],
                reference.values[i],
                rtol=1e-2,
                atol=1e-3 * scale + firing,
                err_msg=name,
            )


def test_recording_does_not_wait_for_the_gpu() -> None:
    model, images = resnet().cuda(), images_on("cuda")
    recorder = Recorder(model, statistics=STATISTICS)
    recorder.attach()
    try:
        for batch in range(6):
            model.zero_grad()
            if batch >= 2:  # the first ones trace and allocate
                torch.cuda.set_sync_debug_mode("error")
            recorder.begin_batch()
            model(images).square().mean().backward()
            recorder.end_batch()
    finally:
        torch.cuda.set_sync_debug_mode("default")
        recorder.detach()


STEPS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "momentum": lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9),
    "Adam": lambda p: torch.optim.Adam(p, lr=1e-3),
}


def recorded_steps(make_optimizer: Any, memory_format: torch.memory_format) -> list[Any]:
    """Return the recordings of three optimizer steps."""
    model = resnet().cuda().to(memory_format=memory_format)
    images, labels = images_on("cuda"), torch.arange(8).cuda()
    optimizer, recorder = make_optimizer(model.parameters()), Recorder(model, statistics=STATISTICS)
    recorder.attach()
    found = []
    for _ in range(3):
        recorder.begin_batch()
        train_step(model, optimizer, images, labels)
        found.append(recorder.end_batch())
    found += recorder.flush()
    recorder.detach()
    return [each for each in found if each is not None]


@pytest.mark.skipif(fused_group.load_filter_kernels() is None, reason="needs Triton")
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("step", STEPS)
def test_the_kernel_of_all_layers_reduces_what_the_operations_do(
    step: str, memory_format: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grouped_filter_norms, "MIN_FUSED", 1)
    fused = recorded_steps(STEPS[step], memory_format)
    assert not FusedGroup.has_failed
    monkeypatch.setattr(grouped_filter_norms, "is_fusible", lambda _: False)
    separate = recorded_steps(STEPS[step], memory_format)
    assert len(fused) == len(separate) == 3
    names = fused[0].names
    # Later batches differ by the rounding of the training itself.
    for name in ("gradient", "optimizer_gradient", "weight_norm", "update_ratio"):
        row = names.index(name)
        np.testing.assert_allclose(
            fused[0].values[row], separate[0].values[row], rtol=1e-5, err_msg=name
        )


def test_no_gradient_kernel_runs_per_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """One kernel sums the gradients of all layers, wherever they have been allocated."""
    monkeypatch.setattr(grouped_filter_norms, "MIN_FUSED", 1)
    model, images = resnet().cuda(), images_on("cuda")
    recorder = Recorder(model, statistics=("gradient",))
    recorder.attach()
    kernels = fused_group.load_filter_kernels()
    for _ in range(4):
        model.zero_grad()
        recorder.begin_batch()
        loss = model(images).square().mean()
        with torch.profiler.profile(activities=list(torch.profiler.supported_activities())) as run:
            loss.backward()
            torch.cuda.synchronize()
        recorder.end_batch()
    recorder.detach()
    ours = [event for event in run.events() if event.name == "write_filter_norms"]
    assert len(ours) == (kernels is not None)


def state_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return copies of all parameters, buffers and tensors of the optimizer's state."""
    names = {id(p): name for name, p in model.named_parameters()}
    state = {name: value.detach().clone() for name, value in model.state_dict().items()}
    for parameter, values in optimizer.state.items():
        for key, value in values.items():
            if isinstance(value, Tensor):
                state[f"{names[id(parameter)]} {key}"] = value.clone()
    return state


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: type(edit).__name__)
def test_an_edit_on_the_gpu_is_undone_exactly(name: str, edit: Any) -> None:
    model, images, labels = resnet().cuda(), images_on("cuda"), torch.arange(8).cuda()
    optimizer = OPTIMIZERS[name](model.parameters())
    editor, probe = Editor(model, [optimizer]), ForwardProbe([partial(model, images[:2])])
    for _ in range(2):
        train_step(model, optimizer, images, labels)
    before = state_of(model, optimizer)
    editor.apply(edit, probe)
    assert all(value.is_cuda for value in model.state_dict().values())
    editor.apply(Undo(), probe)
    after = state_of(model, optimizer)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    editor.apply(edit, probe)
    train_step(model, optimizer, images, labels)
    assert all(value.isfinite().all() for value in model.state_dict().values())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_filters_added_on_the_gpu_keep_the_output_and_the_others(name: str) -> None:
    model, images, labels = resnet().cuda(), images_on("cuda"), torch.arange(8).cuda()
    optimizer = OPTIMIZERS[name](model.parameters())
    editor, probe = Editor(model, [optimizer]), ForwardProbe([partial(model, images[:2])])
    train_step(model, optimizer, images, labels)
    before = state_of(model, optimizer)
    expected = model.eval()(images)
    model.train()
    editor.apply(AddFilters("layer1.0.conv1", 2), probe)
    torch.testing.assert_close(model.eval()(images), expected, rtol=1e-5, atol=1e-5)
    after = state_of(model, optimizer)
    for key, old in before.items():
        if key.startswith("layer1.0.conv1.weight") and old.ndim:
            assert torch.equal(after[key][: len(old)], old)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_statistics_under_autocast_are_those_of_full_precision(dtype: torch.dtype) -> None:
    model = resnet().cuda().eval()
    full = record(model, batches=2)
    with torch.autocast("cuda", dtype):
        mixed = record(model, batches=2)
    row = full[1].names.index("activation")
    scale = np.abs(full[1].values[row]).max()
    np.testing.assert_allclose(mixed[1].values[row], full[1].values[row], atol=0.05 * scale)


def test_pictures_and_preferred_images_are_made_where_the_model_is():
    from revacnn_lightning.protocol.pictures import picture_requests
    from revacnn_lightning.protocol.requests import PaintImage, Patch
    from revacnn_lightning.runtime.batch import TrainingBatch
    from revacnn_lightning.runtime.image_predictions import LabelAndClassNames
    from revacnn_lightning.runtime.input_images import DataAndViewerImages
    from revacnn_lightning.telemetry.inspection.attribution import trace_activation
    from revacnn_lightning.telemetry.inspection.image_ascent import (
        ImageAscent,
        PixelStatistics,
    )

    pixels = images_on("cuda")
    images = DataAndViewerImages(
        get_image=lambda index: pixels[index],
        get_batch=lambda: TrainingBatch(get_images=lambda: pixels),
    )
    for request in picture_requests(-1, np.zeros((40, 40, 3), np.uint8)):
        images.select(request)
    images.select(PaintImage(-2, 3, [Patch(0, 0, 1, 0.5)]))
    images.remember_shown_input(pixels[0], LabelAndClassNames())
    images.select(PaintImage(-3))
    assert all(images.image(index).is_cuda for index in (-1, -2, -3))

    model = resnet().cuda()
    conv: Any = model.get_submodule("layer2.0.conv1")
    traced = trace_activation(model, model, conv, pixels[0])
    assert traced is not None
    statistics = PixelStatistics.of(pixels, pixels.device)
    ascent = ImageAscent(model, model, traced, 1, pixels[0], statistics)
    assert ascent.advance(8)
    assert ascent.image().isfinite().all()

"""The statistics of every kind of layer, against autograd written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from revacnn_lightning.telemetry import STATISTICS, Recorder
from revacnn_lightning.telemetry.layer_selection import LayerSelection
from revacnn_lightning.telemetry.unit_layers import filter_count, is_transposed
from tests.layer_kinds import KINDS, Kind
from tests.telemetry.adapter import of_layer

RELATIVE = 1e-6
LAYERS = [(kind, layer) for kind, each in KINDS.items() for layer in (*each.layers, "fc")]


def written_out(output: Tensor, layer: nn.Module) -> Tensor:
    """Return an output as (B, C, positions), one index at a time."""
    if not isinstance(layer, nn.Linear):
        return output.reshape(len(output), filter_count(layer), -1)
    rows = output.reshape(len(output), -1, layer.out_features)
    return torch.stack([rows[..., c] for c in range(layer.out_features)], 1)


def coefficients(weight: Tensor, layer: nn.Module, index: int) -> Tensor:
    """Return the coefficients of one filter."""
    if not is_transposed(layer):
        return weight[index]
    width = layer.out_channels // layer.groups
    inputs = layer.in_channels // layer.groups
    group = index // width
    return weight[group * inputs : (group + 1) * inputs, index % width]


class Watched:
    """A network of one kind whose maps, gradients and weights the test keeps itself."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.model = kind.build()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.maps: dict[str, list[Tensor]] = {}
        for name, module in self.model.named_modules():
            if name:
                module.register_forward_hook(lambda *a, name=name: self._keep(name, a[-1]))
        self.recorder = Recorder(self.model, statistics=STATISTICS, selection=LayerSelection("all"))
        self.recorder.attach()

    def _keep(self, name: str, output: Tensor) -> None:
        if output.requires_grad:
            output.retain_grad()
            self.maps.setdefault(name, []).append(output)

    def loss(self, x: Tensor) -> Tensor:
        output = self.model(x)
        return (output * torch.linspace(1, 2, output.numel()).view_as(output)).square().mean()

    def train(self, x: Tensor, *, grad_scale: float = 1.0, loss_scale: float = 1.0, step=True):
        """Train one batch and return its recording."""
        self.maps.clear()
        self.recorder.begin_batch(loss_scale=loss_scale)
        (self.loss(x) * grad_scale * loss_scale).backward()
        self.gradients = {n: p.grad.clone() for n, p in self.model.named_parameters()}
        self.before = {n: p.detach().clone() for n, p in self.model.named_parameters()}
        if step:
            self.optimizer.step()
            self.optimizer.zero_grad()
        recording = self.recorder.end_batch(grad_scale=grad_scale)
        assert recording is not None
        return recording

    def expected(self, layer: str, scale: float = 1.0) -> dict[str, np.ndarray]:
        """Return the statistics of the last batch."""
        module = self.model.get_submodule(layer)
        source = self.recorder.activation_sources[layer] or layer
        maps = torch.cat([written_out(each.detach(), module) for each in self.maps[source]])
        gradient = torch.cat([written_out(each.grad, module) for each in self.maps[source]]) / scale
        of_images = gradient.sum(2)
        weight, after = self.before[f"{layer}.weight"], module.weight.detach()
        rows = range(filter_count(module))

        def of_filters(reduce, tensor: Tensor) -> np.ndarray:
            return np.array([reduce(coefficients(tensor, module, i)).item() for i in rows])

        norm = of_filters(torch.linalg.vector_norm, after)
        mean_gradient = of_filters(lambda w: w.abs().mean(), self.gradients[f"{layer}.weight"])
        signed = maps.abs() if source == layer else maps
        return {
            "gradient": mean_gradient / scale,
            "activation": (signed.sum((0, 2)) / len(maps)).numpy(),
            "weight_norm": norm,
            "update_ratio": of_filters(torch.linalg.vector_norm, after - weight) / norm,
            "optimizer_gradient": mean_gradient,
            "activation_gradient": gradient.abs().mean((0, 2)).numpy(),
            "firing": (maps > 0).double().mean((0, 2)).numpy(),
            "signal_to_noise": (of_images.mean(0).abs() / of_images.std(0)).numpy(),
        }

    def check(self, recording, layer: str, *names: str, scale: float = 1.0) -> None:
        expected = self.expected(layer, scale)
        for name in names or STATISTICS:
            np.testing.assert_allclose(
                of_layer(recording, name, layer), expected[name], rtol=RELATIVE, atol=1e-7,
                err_msg=name,
            )  # fmt: skip


@pytest.fixture
def watched(request):
    made = Watched(KINDS[request.param])
    yield made
    made.recorder.detach()


every_kind = pytest.mark.parametrize("watched", KINDS, indirect=True)


@every_kind
def test_statistics_equal_autograd_written_out(watched: Watched) -> None:
    for batch in range(3):  # the first is the discovery batch
        recording = watched.train(watched.kind.batch(batch))
        assert set(recording.layers) == {*watched.kind.layers, "fc"}
        for layer in recording.layers:
            watched.check(recording, layer)


@every_kind
def test_accumulated_gradients_are_those_of_one_batch(watched: Watched) -> None:
    for batch in range(4):
        ends_window = batch % 2 == 1
        before = {n: p.grad for n, p in watched.model.named_parameters()}
        before = {n: None if g is None else g.clone() for n, g in before.items()}
        recording = watched.train(watched.kind.batch(batch), grad_scale=0.5, step=ends_window)
        for layer in recording.layers:
            name = f"{layer}.weight"
            own = watched.gradients[name] - (0 if before[name] is None else before[name])
            module = watched.model.get_submodule(layer)
            expected = [
                coefficients(own, module, i).abs().mean().item() / 0.5
                for i in range(filter_count(module))
            ]
            np.testing.assert_allclose(
                of_layer(recording, "gradient", layer), expected, rtol=RELATIVE
            )
            watched.check(recording, layer, "activation_gradient", "signal_to_noise", scale=0.5)


@every_kind
def test_loss_scale_of_mixed_precision_is_divided_out(watched: Watched) -> None:
    for batch in range(2):
        recording = watched.train(watched.kind.batch(batch), loss_scale=1024.0)
        for layer in recording.layers:
            watched.check(
                recording, layer, "gradient", "activation", "activation_gradient", scale=1024.0
            )


@pytest.mark.parametrize("kind", KINDS)
def test_autocast_maps_are_summed_in_single_precision(kind: str) -> None:
    """The maps are bfloat16; their sums are those of these maps."""
    watched = Watched(KINDS[kind])
    watched.model.float()
    for batch in range(2):
        watched.maps.clear()
        watched.recorder.begin_batch()
        with torch.autocast("cpu", torch.bfloat16):
            loss = watched.loss(KINDS[kind].batch(batch).float())
        loss.backward()
        recording = watched.recorder.end_batch()
    assert recording is not None
    for layer in recording.layers:
        module = watched.model.get_submodule(layer)
        source = watched.recorder.activation_sources[layer] or layer
        (output,) = watched.maps[source]
        maps = written_out(output.detach().double(), module)
        total = (maps.abs() if source == layer else maps).sum((0, 2)) / len(maps)
        np.testing.assert_allclose(
            of_layer(recording, "activation", layer), total.numpy(), rtol=1e-5
        )
    watched.recorder.detach()


class Shared(nn.Module):
    """A layer that runs twice."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.shared = layer
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.shared(self.relu(self.shared(x)))).flatten(1)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv1d(3, 3, 3, padding=1), (4, 3, 9)),
        (nn.Conv3d(2, 2, 3, padding=1), (4, 2, 3, 4, 5)),
        (nn.ConvTranspose1d(4, 4, 3, padding=1, groups=2), (4, 4, 9)),
        (nn.Linear(5, 5), (4, 5)),
        (nn.Linear(5, 5), (4, 3, 5)),
        (nn.Linear(5, 5), (4, 2, 3, 5)),
        (nn.Linear(5, 5), (4, 2, 2, 3, 5)),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, nn.Module) else str(each),
)
def test_both_calls_of_a_shared_layer_count_as_images(layer, shape) -> None:
    kind = Kind(lambda: Shared(layer), shape, ("shared",))  # type: ignore[arg-type]
    watched = Watched(kind)
    for batch in range(2):
        recording = watched.train(kind.batch(batch))
        watched.check(recording, "shared")
    watched.recorder.detach()


@pytest.mark.parametrize(("kind", "size"), [(kind, 0) for kind in KINDS] + [("MLP", 1)])
def test_an_empty_or_single_image_batch_has_unknown_statistics(kind: str, size: int) -> None:
    watched = Watched(KINDS[kind])
    watched.model.eval()  # a batch norm refuses a single value
    recording = watched.train(KINDS[kind].batch(size=4))
    x = KINDS[kind].batch(size=size)
    watched.recorder.begin_batch()
    output = watched.model(x)
    output.sum().backward()
    recording = watched.recorder.end_batch()
    assert recording is not None
    layer = KINDS[kind].layers[0]
    assert np.isnan(of_layer(recording, "signal_to_noise", layer)).all()
    assert np.isnan(of_layer(recording, "activation", layer)).all() == (size == 0)
    watched.recorder.detach()


def test_an_output_of_another_shape_than_the_layer_returns_is_ignored() -> None:
    class Odd(nn.Conv1d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)[..., None, None]

    model = nn.Sequential(Odd(2, 3, 3), nn.Flatten())
    recorder = Recorder(model, statistics=STATISTICS)
    recorder.attach()
    for _ in range(2):
        recorder.begin_batch()
        model(torch.randn(2, 2, 8)).square().mean().backward()
        recording = recorder.end_batch()
    recorder.detach()
    assert recording is not None
    assert np.isfinite(of_layer(recording, "gradient", "0")).all()
    assert np.isnan(of_layer(recording, "activation", "0")).all()


def test_the_projection_of_an_attention_is_no_compiled_region(caplog) -> None:
    attention = nn.MultiheadAttention(8, 2, batch_first=True)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.attention, self.fc = nn.Linear(4, 8), attention, nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            return self.fc(self.attention(x, x, x)[0].mean(1))

    model = Net()
    recorder = Recorder(model, selection=LayerSelection("all"))
    recorder.attach()
    for _ in range(2):
        recorder.begin_batch()
        model(torch.randn(3, 5, 4)).square().mean().backward()
        recording = recorder.end_batch()
    recorder.detach()
    assert recording is not None
    assert recorder.observed == {"first": True, "attention.out_proj": False, "fc": True}
    assert "compiled" not in caplog.text
    assert np.isfinite(of_layer(recording, "gradient", "attention.out_proj")).all()
    assert np.isnan(of_layer(recording, "activation", "attention.out_proj")).all()

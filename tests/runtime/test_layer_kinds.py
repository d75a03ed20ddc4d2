"""What viewers get of every kind of layer, in real trainings."""

from __future__ import annotations

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from revacnn_lightning import AddFilters, ControlRun, ReVACNN, Run
from revacnn_lightning.protocol.inspections import FilterInspection, LayerDetail
from revacnn_lightning.protocol.requests import InspectFilter, InspectLayer
from tests.layer_kinds import KINDS, Kind
from tests.runtime.live_run import collect_until, train_with
from tests.small import fit

# Kind -> shapes of the maps and of the filters of its first layer.
SHAPES = {
    "1D": ((6, 1, 12), (6, 1, 5)),
    "3D": ((6, 6, 6), (6, 3, 3)),
    "MLP": ((10, 1, 1), (10, 4, 4, 3)),
    "sequences": ((6, 1, 7), (6, 1, 4)),
    "channels-last": ((6, 6, 6), (6, 3, 3, 3)),
    "flattened": ((6, 6, 6), (6, 3, 3, 3)),
}


class Training(pl.LightningModule):
    """Trains a network of one kind on random data."""

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self.net = kind.build()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return torch.nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        """Do nothing."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def loader(samples: Tensor, batch_size: int = 4) -> DataLoader:
    labels = torch.arange(len(samples)) % 5
    return DataLoader(TensorDataset(samples, labels), batch_size=batch_size)


def detail_of(run: Run, layer: str) -> LayerDetail:
    """Select a layer and return its detail. Those of a layer selected before may still arrive."""
    run.command(InspectLayer(layer))

    def poll() -> list:
        return [m for m in run.poll() if isinstance(m, LayerDetail) and m.layer == layer]

    return collect_until(poll, 1)[-1]


def inspection_of(run: Run, layer: str, filter: int) -> FilterInspection:
    """Select a filter and return its inspection."""
    run.command(InspectFilter(layer, filter))

    def poll() -> list:
        found = [m for m in run.poll() if isinstance(m, FilterInspection)]
        return [m for m in found if (m.layer, m.filter) == (layer, filter)]

    return collect_until(poll, 1)[-1]


def look(run: Run, kind: Kind) -> dict:
    """Return the details and inspections of all layers, and the reply to an edit."""
    found: dict = {"structure": run.structure}
    for layer in (layer.name for layer in run.structure.layers):
        found[layer] = detail_of(run, layer)
        found[layer, 1] = inspection_of(run, layer, 1)
    found["applied"] = run.apply(AddFilters(f"net.{kind.layers[0]}"))
    return found


@pytest.mark.parametrize("name", KINDS)
def test_no_view_of_a_layer_is_missing_without_a_reason(name: str, tmp_path) -> None:
    kind = KINDS[name]
    data = loader(torch.cat([kind.batch(seed) for seed in range(4)]))
    found, _ = train_with(lambda run: look(run, kind), tmp_path, Training(kind), data=data)
    widths = {layer.name: layer.out_channels for layer in found["structure"].layers}
    shown = ("conv", "last") if name == "channels-last" else kind.layers  # not between convs
    assert list(widths) == [f"net.{layer}" for layer in shown]
    for layer in widths:
        detail, inspection = found[layer], found[layer, 1]
        for view in (detail.coefficients, detail.gradients, detail.activations):
            assert len(view.images) == len(view.features) == widths[layer]
            assert view.images.ndim in (3, 4)
        assert len(detail.activation_gradients.images) == widths[layer]
        assert detail.image.ndim == 3
        assert (detail.depth is None) == (name != "3D")
        assert np.isfinite(detail.coefficients.images.astype(float)).all()
        assert inspection.attribution_refusal or len(inspection.deconvolution)
        assert inspection.top_images_note or inspection.response is not None
    first = found[f"net.{kind.layers[0]}"]
    assert (first.activations.images.shape, first.coefficients.images.shape) == SHAPES[name]
    if name in ("1D", "3D"):
        inspection = found[f"net.{kind.layers[0]}", 1]
        assert (inspection.attribution_refusal, inspection.top_images_note) == ("", "")
        assert (inspection.volume is None) == (name == "1D")
    assert found["applied"].plan.output_effect == "output unchanged"


def test_the_slice_of_a_volume_is_chosen_also_while_paused(tmp_path) -> None:
    kind = KINDS["3D"]

    def client(run: Run) -> dict:
        detail_of(run, "net.first")
        poll = lambda: [m for m in run.poll() if isinstance(m, LayerDetail)]  # noqa: E731
        run.command(ControlRun("pause"))
        run.poll()
        found = {}
        for depth in (0.0, 1.0):
            run.command(InspectLayer("net.first", depth=depth))
            found[depth] = collect_until(poll, 1)[-1]
        run.command(ControlRun("stop"))
        return found

    data = loader(kind.batch(0))
    found, _ = train_with(client, tmp_path, Training(kind), data=data)
    assert {depth: detail.depth for depth, detail in found.items()} == {0.0: 0.0, 1.0: 1.0}
    for view in ("coefficients", "activations"):
        first, last = (getattr(found[depth], view).images for depth in (0.0, 1.0))
        assert first.shape == last.shape
        assert not np.array_equal(first, last)


@pytest.mark.parametrize("channels", [1, 2, 4, 13])
@pytest.mark.parametrize("size", [1, 6])
def test_images_of_any_number_of_channels_are_shown(channels: int, size: int, tmp_path) -> None:
    class Pixels(Training):
        def __init__(self) -> None:
            super().__init__(kind)
            self.net = torch.nn.Sequential(
                torch.nn.Conv2d(channels, 4, 1), torch.nn.ReLU(), torch.nn.Flatten(),
                torch.nn.Linear(4 * size**2, 6), torch.nn.ReLU(), torch.nn.Linear(6, 5),
            )  # fmt: skip

    kind = Kind(torch.nn.Identity, (4, channels, size, size), ("0", "3"))

    def client(run: Run) -> dict:
        found = {}
        for layer in ("net.0", "net.3"):
            found[layer] = detail_of(run, layer)
            found[layer, 0] = inspection_of(run, layer, 0)
        return found

    data = loader(kind.batch(0).float())
    found, _ = train_with(client, tmp_path, Pixels(), data=data)
    assert found["net.0"].image.shape == (channels, size, size)
    assert found["net.0"].activations.images.shape == (4, size, size)
    assert found["net.3"].activations.images.shape == (6, 1, 1)
    assert len(found["net.3"].coefficients.images) == 6
    for layer in ("net.0", "net.3"):
        assert found[layer, 0].image_size == (size, size)
        assert found[layer, 0].response is not None


def test_an_empty_batch_does_not_end_monitoring(tmp_path, caplog) -> None:
    kind = KINDS["MLP"]

    class Empty(Training):
        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            self.net.eval()
            return self(batch[0][: 0 if batch_idx % 2 else None]).sum()

    data = loader(torch.cat([kind.batch(seed) for seed in range(4)]))
    fit(Empty(kind), [ReVACNN(max_overhead=None)], data=data, default_root_dir=tmp_path)
    assert "Internal error" not in caplog.text

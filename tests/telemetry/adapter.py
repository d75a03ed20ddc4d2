"""A minimal Lightning callback for the recorder, and a minimal module to train."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from revacnn_lightning.telemetry import Recorder, Recording


class Record(pl.Callback):
    """Keeps every recording."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.recordings: list[Recording] = []
        self.recorder: Recorder | None = None

    def on_train_start(self, trainer, pl_module):
        self.recorder = Recorder(pl_module, **self.options)
        self.recorder.attach()

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        scale = 1.0 if scaler is None else scaler._scale
        if scale is None:  # the scaler creates its tensor on first use
            scale = scaler.get_scale()
        self.recorder.begin_batch(loss_scale=scale)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        accumulated = trainer.accumulate_grad_batches if pl_module.automatic_optimization else 1
        recording = self.recorder.end_batch(grad_scale=1 / accumulated, metadata=batch_idx)
        assert recording is not None
        self.recordings.append(recording)

    def on_train_end(self, trainer, pl_module):
        self.recorder.detach()

    def on_exception(self, trainer, pl_module, exception):
        if self.recorder is not None:
            self.recorder.detach()

    def value(self, batch: int, name: str, layer: str = "net.0") -> np.ndarray:
        """Return one statistic of the filters of a layer."""
        return of_layer(self.recordings[batch], name, layer)


def of_layer(recording: Recording, name: str, layer: str) -> np.ndarray:
    """Return one statistic of the filters of a layer."""
    position = recording.layers.index(layer)
    start = sum(recording.widths[:position])
    row = recording.values[recording.names.index(name)]
    return row[start : start + recording.widths[position]]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 5, 3, groups=1),
        nn.Flatten(),
        nn.Linear(5 * 16, 2),
    )


BATCHES = torch.randn(6, 7, 3, 8, 8, generator=torch.Generator().manual_seed(1))


class Module(pl.LightningModule):
    """Trains `network` on `BATCHES`, at a learning rate that leaves the weights unchanged."""

    def __init__(self, net: nn.Module | None = None, lr: float = 1e-12) -> None:
        super().__init__()
        self.net = network() if net is None else net
        self.lr = lr

    def training_step(self, batch, batch_idx):
        return loss_of(self.net, batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)


def loss_of(net: nn.Module, batch: Tensor) -> Tensor:
    output = net(batch).float()
    return (output * torch.linspace(1, 2, output.numel()).view_as(output)).mean()


def loader(batches: Tensor = BATCHES):
    return torch.utils.data.DataLoader(batches, batch_size=None)


def fit(module: pl.LightningModule, callback: Record | None = None, **options: Any) -> Record:
    callback = callback or Record()
    validation = options.pop("validation", None)
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[callback],
        **{"num_sanity_val_steps": 0, **options},
    )
    trainer.fit(module, loader(), validation)
    return callback

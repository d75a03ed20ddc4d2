"""The recorder in real Lightning trainings: the scale of gradients, and the extent of a batch."""

from __future__ import annotations

import copy
import logging

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from tests.telemetry import reference
from tests.telemetry.adapter import BATCHES, Module, Record, fit, loader, loss_of, network
from tests.telemetry.recording.test_recorder import our_hooks

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*The number of training batches"),
    pytest.mark.filterwarnings("ignore:.*Trying to infer the `batch_size`"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec"),
    pytest.mark.filterwarnings("ignore:.*not in your `val_dataloader`"),
]

EVERYTHING = (
    "gradient",
    "activation",
    "weight_norm",
    "update_ratio",
    "optimizer_gradient",
    "activation_gradient",
    "firing",
    "signal_to_noise",
)


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.WARNING, "pytorch_lightning")


def expected_gradient(batch: int, net: nn.Module | None = None, layer: int = 0) -> np.ndarray:
    """Return mean |∂L/∂w| of a batch, computed alone in full precision."""
    net = copy.deepcopy(network() if net is None else net)
    loss_of(net, BATCHES[batch]).backward()
    return reference.mean_absolute_coefficient(net[layer].weight.grad, net[layer])


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize(
    ("precision", "tolerance"), [("32-true", 1e-4), ("bf16-mixed", 0.06), ("16-mixed", 0.01)]
)
def test_gradient_scale_under_precision_and_accumulation(
    precision, tolerance, accumulate, monkeypatch
):
    if precision == "16-mixed":
        emulate_16_mixed_on_the_cpu(monkeypatch)
    recorded = fit(Module(), precision=precision, accumulate_grad_batches=accumulate)
    assert len(recorded.recordings) == len(BATCHES)
    for batch in range(len(BATCHES)):
        for layer in (0, 3):
            np.testing.assert_allclose(
                recorded.value(batch, "gradient", f"net.{layer}"),
                expected_gradient(batch, layer=layer),
                rtol=tolerance,
                err_msg=f"batch {batch}, layer {layer}",
            )
    assert not any(r.nonfinite for r in recorded.recordings)


def emulate_16_mixed_on_the_cpu(monkeypatch):
    """Enable 16-mixed on the CPU, which Lightning refuses although torch supports it since 2.3."""
    from pytorch_lightning.plugins import MixedPrecision
    from pytorch_lightning.trainer.connectors import accelerator_connector

    def precision(self):
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)
        return MixedPrecision("16-mixed", "cpu", scaler)

    monkeypatch.setattr(
        accelerator_connector._AcceleratorConnector, "_check_and_init_precision", precision
    )


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler")
@pytest.mark.parametrize("wrong", [torch.inf, torch.nan])
def test_nonfinite_gradients_under_mixed_precision(wrong, monkeypatch):
    emulate_16_mixed_on_the_cpu(monkeypatch)

    class Overflowing(Module):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            return loss * wrong if batch_idx == 2 else loss

    recorded = fit(Overflowing(lr=1e-3), precision="16-mixed")
    assert [r.nonfinite for r in recorded.recordings] == [i == 2 for i in range(len(BATCHES))]
    assert not np.isfinite(recorded.value(2, "gradient")).all()
    # The scaler halves its scale within batch 2 and skips the step: the weights are unchanged.
    assert np.isfinite(recorded.value(3, "gradient")).all()
    np.testing.assert_array_equal(
        recorded.value(2, "weight_norm"), recorded.value(1, "weight_norm")
    )
    np.testing.assert_array_equal(
        recorded.value(2, "update_ratio"), recorded.value(1, "update_ratio")
    )


def test_clipping_affects_optimizer_gradient_only():
    limit = 1e-3
    callback = Record(statistics=EVERYTHING)
    recorded = fit(Module(), callback, gradient_clip_val=limit)
    net = network()
    loss_of(net, BATCHES[0]).backward()
    nn.utils.clip_grad_norm_(net.parameters(), limit)
    np.testing.assert_allclose(recorded.value(0, "gradient"), expected_gradient(0), rtol=1e-4)
    np.testing.assert_allclose(
        recorded.value(0, "optimizer_gradient"),
        reference.mean_absolute_coefficient(net[0].weight.grad, net[0]),
        rtol=1e-4,
    )
    assert (recorded.value(0, "optimizer_gradient") < recorded.value(0, "gradient") / 2).all()


def test_optimizer_gradient_is_accumulated():
    recorded = fit(Module(), Record(statistics=EVERYTHING), accumulate_grad_batches=3)
    net = network()
    for batch in BATCHES[:3]:
        (loss_of(net, batch) / 3).backward()
    expected = reference.mean_absolute_coefficient(net[0].weight.grad, net[0])
    assert np.isnan(recorded.value(1, "optimizer_gradient")).all()
    for batch in (2, 3, 4):  # those of the last step
        np.testing.assert_allclose(recorded.value(batch, "optimizer_gradient"), expected, rtol=1e-4)


OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, 0.05),
    "momentum": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=0.1),
    "nesterov": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, nesterov=True),
    "AdamW": lambda p: torch.optim.AdamW(p, 0.01),
    "maximize": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, dampening=0.5, maximize=True),
    "LBFGS": lambda p: torch.optim.LBFGS(p, 0.1, max_iter=3),
}


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_update_ratio(name, accumulate):
    class Observed(Module):
        def configure_optimizers(self):
            return OPTIMIZERS[name](self.parameters())

        def on_train_batch_start(self, batch, batch_idx):
            self.before = copy.deepcopy(self.net)

        def on_train_batch_end(self, outputs, batch, batch_idx):
            change = reference.norm(self.net[0].weight - self.before[0].weight, self.net[0])
            ratios.append(change / reference.norm(self.net[0].weight, self.net[0]))

    ratios: list[np.ndarray] = []
    recorded = fit(Observed(), accumulate_grad_batches=accumulate)
    for batch in range(accumulate - 1, len(BATCHES), accumulate):
        np.testing.assert_allclose(
            recorded.value(batch, "update_ratio"), ratios[batch], rtol=1e-3, err_msg=str(batch)
        )


def test_validation_and_sanity_checks_do_not_count():
    class Validated(Module):
        def validation_step(self, batch, batch_idx):
            loss_of(self.net, batch)

    quiet = fit(Module())
    validated = fit(
        Validated(), validation=loader(3 * BATCHES), num_sanity_val_steps=2, val_check_interval=2
    )
    for one, other in zip(quiet.recordings, validated.recordings, strict=True):
        np.testing.assert_allclose(one.values, other.values, rtol=1e-5)


def test_manual_optimization_with_two_optimizers():
    class Adversaries(Module):
        """Trains two networks in each batch, each with its own optimizer."""

        automatic_optimization = False

        def __init__(self):
            super().__init__()
            self.other = network()
            self.other[0].weight.data *= 2

        def configure_optimizers(self):
            return [
                torch.optim.SGD(self.net.parameters(), 1e-12),
                torch.optim.Adam(self.other.parameters(), 1e-12),
            ]

        def training_step(self, batch, batch_idx):
            for optimizer, net in zip(self.optimizers(), (self.net, self.other), strict=True):
                optimizer.zero_grad()
                self.manual_backward(loss_of(net, batch))
                optimizer.step()
                optimizer.zero_grad()

    module = Adversaries()
    other = copy.deepcopy(module.other)
    recorded = fit(module)
    for batch in (0, 1, 5):
        np.testing.assert_allclose(
            recorded.value(batch, "gradient", "net.0"), expected_gradient(batch), rtol=1e-4
        )
        np.testing.assert_allclose(
            recorded.value(batch, "gradient", "other.0"), expected_gradient(batch, other), rtol=1e-4
        )
        assert (recorded.value(batch, "update_ratio", "net.0") >= 0).all()


def test_two_backward_passes_are_one_gradient():
    class TwoLosses(Module):
        automatic_optimization = False

        def training_step(self, batch, batch_idx):
            optimizer = self.optimizers()
            optimizer.zero_grad()
            loss = loss_of(self.net, batch)
            self.manual_backward(0.25 * loss, retain_graph=True)
            self.manual_backward(-1.25 * loss)
            optimizer.step()

    recorded = fit(TwoLosses())
    for batch in (0, 3):
        np.testing.assert_allclose(
            recorded.value(batch, "gradient"), expected_gradient(batch), rtol=1e-3
        )


@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpointing_counts_once(reentrant):
    class Checkpointed(nn.Sequential):
        def forward(self, x):
            x = x.clone().requires_grad_()  # reentrant checkpointing needs an input with a gradient
            x = checkpoint(
                lambda x: self[3](self[2](self[1](self[0](x)))), x, use_reentrant=reentrant
            )
            return self[5](self[4](x))

    plain = fit(Module(), Record(statistics=EVERYTHING))
    saved = fit(Module(Checkpointed(*network())), Record(statistics=EVERYTHING))
    for batch in range(len(BATCHES)):
        np.testing.assert_allclose(
            saved.recordings[batch].values, plain.recordings[batch].values, rtol=1e-3, atol=1e-7
        )


def test_channels_last():
    plain = fit(Module(), Record(statistics=EVERYTHING))
    last = fit(
        Module(network().to(memory_format=torch.channels_last)), Record(statistics=EVERYTHING)
    )
    for one, other in zip(plain.recordings, last.recordings, strict=True):
        np.testing.assert_allclose(one.values, other.values, rtol=1e-3, atol=1e-7)


def test_lazy_modules():
    torch.manual_seed(0)
    net = nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU(), nn.LazyConv2d(3, 3), nn.Flatten())

    class Lazy(Module):
        def configure_optimizers(self):
            return None  # lazy parameters cannot be optimized yet

        def on_train_batch_start(self, batch, batch_idx):
            self.zero_grad()

    with pytest.warns(UserWarning, match="configure_optimizers"):
        recorded = fit(Lazy(net))
    for batch in (0, 2):
        np.testing.assert_allclose(
            recorded.value(batch, "gradient"), expected_gradient(batch, net), rtol=1e-4
        )
        assert np.isfinite(recorded.value(batch, "weight_norm")).all()


def test_model_created_on_the_meta_device():
    with torch.device("meta"):
        net = network()

    class Meta(Module):
        def configure_model(self):
            if self.net[0].weight.is_meta:
                self.net.to_empty(device="cpu")
                self.net.load_state_dict(network().state_dict())

    recorded = fit(Meta(net))
    np.testing.assert_allclose(recorded.value(1, "gradient"), expected_gradient(1), rtol=1e-4)


def test_model_materialized_after_attach():
    from revacnn_lightning.telemetry import Recorder
    from tests.telemetry.adapter import of_layer

    with torch.device("meta"):
        net = network()
    recorder = Recorder(net)
    recorder.attach()
    net.to_empty(device="cpu")
    net.load_state_dict(network().state_dict())
    recorder.begin_batch()
    loss_of(net, BATCHES[0]).backward()
    recording = recorder.end_batch()
    recorder.detach()
    np.testing.assert_allclose(
        of_layer(recording, "gradient", "0"), expected_gradient(0), rtol=1e-4
    )


def test_hooks_are_removed_after_an_exception_in_training():
    class Failing(Module):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            if batch_idx == 1:
                raise RuntimeError("expected failure")
            return loss

    module = Failing()
    with pytest.raises(RuntimeError, match="expected failure"):
        fit(module)
    assert our_hooks(module) == [{}, {}, [], [], []]


def test_telemetry_does_not_import_lightning():
    import subprocess
    import sys

    code = "import sys, revacnn_lightning.telemetry as t; print('pytorch_lightning' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    assert pl is not None

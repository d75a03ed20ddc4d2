"""The callback in real Lightning trainings."""

from __future__ import annotations

import logging
import stat
import threading
import time
from pathlib import Path
from typing import Any

import lightning.pytorch
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from revacnn_lightning import (
    AddFilters,
    Applied,
    ConnectionFileError,
    ControlRun,
    EditRefusedError,
    Freeze,
    InsertLayer,
    RemoveFilters,
    RequestTimeoutError,
    ReVACNN,
    SetHyperparameter,
    Snapshot,
    Status,
    Structure,
    attach,
)
from revacnn_lightning.protocol import connection_file
from revacnn_lightning.protocol.messages import Message
from revacnn_lightning.protocol.sockets import Subscriber
from revacnn_lightning.runtime.request_queue import PendingRequest
from revacnn_lightning.telemetry import Recorder
from tests.small import At, TwoConvs, batches, fit
from tests.viewer.processes import wait_for


class UpdateListener(pl.Callback):
    """Attaches to the run from another thread, as another process would, and keeps all messages."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._stop = threading.Event()
        self._attached = threading.Event()

    def on_fit_start(self, trainer, pl_module) -> None:
        self._thread = threading.Thread(target=self._poll_until_stopped)
        self._thread.start()

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if batch_idx == 2:  # the structure is known after the first batch
            session, deadline = _revacnn(trainer)._session, time.monotonic() + 240
            # The structure may arrive before the run has received the greeting of the client.
            while not (self._attached.is_set() and session.needs_probe):
                assert time.monotonic() < deadline, "the client did not attach within 240 s"
                time.sleep(0.01)
                session.receive_requests()

    def on_train_end(self, trainer, pl_module) -> None:
        self._finish()

    def on_exception(self, trainer, pl_module, exception) -> None:
        self._finish()

    def _finish(self) -> None:
        known = -1
        while len(self.messages) > known:  # until nothing more arrives
            known = len(self.messages)
            time.sleep(0.3)
        self._stop.set()
        self._thread.join()

    def _poll_until_stopped(self) -> None:
        with attach(timeout=240) as run:
            self._attached.set()
            while not self._stop.is_set():
                self.messages += run.poll()
                time.sleep(0.005)
            self.messages += run.poll()

    def of(self, kind: type) -> list:
        return [message for message in self.messages if isinstance(message, kind)]


def _revacnn(trainer: pl.Trainer) -> ReVACNN:
    return next(callback for callback in trainer.callbacks if isinstance(callback, ReVACNN))


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def zero_new_filters(module: TwoConvs, old: int) -> None:
    with torch.no_grad():
        module.conv1.weight[old:] = 0
        module.conv1.bias[old:] = 0


# ---------------------------------------------------------------------- edits


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("optimizer", ["sgd-momentum", "adamw"])
def test_adding_a_zero_filter_leaves_the_run_unchanged(optimizer: str, accumulate: int):
    options = {"count": 24, "accumulate_grad_batches": accumulate}
    plain = TwoConvs(optimizer)
    fit(plain, **options)

    edited = TwoConvs(optimizer)
    revacnn = ReVACNN()
    submit = At(5, lambda *_: requests.append(revacnn.steer(AddFilters("conv1"))))
    # Batch 6 shows how training uses the network. The edit happens at the next start of an
    # accumulation window, before this callback.
    start = 7 if accumulate == 1 else 9
    zero = At(start, lambda _, module: zero_new_filters(module, old=4))
    requests: list = []
    fit(edited, [revacnn, submit, zero], **options)

    assert isinstance(requests[0].result(), Applied)
    assert requests[0].result().step == start
    assert edited.conv1.out_channels == edited.conv2.in_channels == 5
    expected = weights(plain)
    got = weights(edited)
    for name in expected:
        survivors = got[name]
        if name.startswith("conv1"):
            survivors = survivors[:4]
        elif name == "conv2.weight":
            survivors = survivors[:, :4]
        torch.testing.assert_close(survivors, expected[name], rtol=1e-12, atol=1e-14)
    assert not got["conv1.weight"][4:].any()


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("optimizer", ["sgd-momentum", "adamw"])
def test_removing_a_zero_filter_leaves_the_run_unchanged(optimizer: str, accumulate: int):
    def model_with_a_dead_filter() -> TwoConvs:
        model = TwoConvs(optimizer)
        with torch.no_grad():
            model.conv1.weight[2] = 0
            model.conv1.bias[2] = 0
            model.conv2.weight[:, 2] = 0
        return model

    options = {"count": 24, "accumulate_grad_batches": accumulate}
    plain = model_with_a_dead_filter()
    fit(plain, **options)
    edited = model_with_a_dead_filter()
    revacnn = ReVACNN()
    requests: list = []
    submit = At(5, lambda *_: requests.append(revacnn.steer(RemoveFilters("conv1", [2]))))
    fit(edited, [revacnn, submit], **options)

    assert requests[0].result().step == (7 if accumulate == 1 else 9)
    kept = [0, 1, 3]
    expected = weights(plain)
    expected["conv1.weight"] = expected["conv1.weight"][kept]
    expected["conv1.bias"] = expected["conv1.bias"][kept]
    expected["conv2.weight"] = expected["conv2.weight"][:, kept]
    for name, value in weights(edited).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-12, atol=1e-14)


def test_an_edit_waits_for_the_next_accumulation_window():
    revacnn = ReVACNN()
    requests: list = []
    submit = At(1, lambda *_: requests.append(revacnn.steer(AddFilters("conv1"))))
    fit(TwoConvs(), [revacnn, submit], accumulate_grad_batches=4)
    assert requests[0].result().step == 4


def test_an_edit_submitted_during_validation_waits_for_the_next_training_batch():
    requests: list = []

    class SubmitInValidation(pl.Callback):
        def on_validation_batch_start(self, trainer, *_) -> None:
            if not trainer.sanity_checking and not requests:
                requests.append(revacnn.steer(AddFilters("conv1")))
                with pytest.raises(RequestTimeoutError):
                    requests[0].result()

    revacnn = ReVACNN()
    fit(TwoConvs(), [revacnn, SubmitInValidation()], validate=True, val_check_interval=6)
    assert requests[0].result().step == 7  # batch 6 shows how training uses the network


def test_plans_and_commands_are_handled_during_validation_without_side_effects(tmp_path):
    plain, monitored = TwoConvs(), TwoConvs()
    options = {"validate": True, "val_check_interval": 6, "default_root_dir": tmp_path}
    fit(plain, **options)
    revacnn = ReVACNN()
    requests: dict[str, PendingRequest] = {}
    handled: list[set[str]] = []

    class SubmitInValidation(pl.Callback):
        def on_validation_batch_start(self, trainer, *_) -> None:
            if trainer.sanity_checking:
                requests.setdefault("too early", revacnn.steer(AddFilters("conv1"), dry_run=True))
            elif "plan" not in requests:
                requests["plan"] = revacnn.steer(AddFilters("conv1"), dry_run=True)
                requests["refused"] = revacnn.steer(RemoveFilters("conv1", [9]), dry_run=True)
                requests["rate"] = revacnn.steer(SetHyperparameter(0, 0, "lr", 1e-3))
                requests["checkpoint"] = revacnn.steer(ControlRun("checkpoint"))

        def on_validation_end(self, trainer, *_) -> None:
            handled.append({name for name, one in requests.items() if one.reply is not None})

    fit(monitored, [SubmitInValidation(), revacnn], **options)
    assert handled[0] == set()  # before the first batch, whose forward shows the channels
    assert handled[1] == {"too early", "plan", "refused", "rate"}
    assert handled[2] == {*handled[1], "checkpoint"}
    assert "conv1" in requests["plan"].result().plan.title
    with pytest.raises(EditRefusedError, match="9"):
        requests["refused"].result()
    assert "Saved" in requests["checkpoint"].result().detail
    for name, value in weights(monitored).items():
        assert torch.equal(value, weights(plain)[name])


def test_the_optimizer_and_its_groups_keep_their_identity():
    seen: list[object] = []
    revacnn = ReVACNN()

    def note(trainer: pl.Trainer, _: object) -> None:
        seen.append([trainer.optimizers[0], id(trainer.optimizers[0].param_groups[0])])

    submit = At(2, lambda *_: revacnn.steer(AddFilters("conv1")))
    fit(TwoConvs(), [revacnn, At(1, note), submit, At(6, note)])
    assert seen[0][0] is seen[1][0]
    assert seen[0][1] == seen[1][1]


def test_an_edit_is_refused_when_nothing_trains():
    with pytest.raises(EditRefusedError, match="no training is running"):
        ReVACNN().steer(AddFilters("conv1"))


def test_a_pending_edit_is_refused_when_training_ends():
    revacnn = ReVACNN()
    requests: list = []
    submit = At(11, lambda *_: requests.append(revacnn.steer(AddFilters("conv1"))))
    fit(TwoConvs(), [revacnn, submit])
    with pytest.raises(EditRefusedError, match="has ended"):
        requests[0].result()


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (RemoveFilters("conv1", [0, 1, 2, 3]), "conv1"),
        (RemoveFilters("conv1", [4]), "4"),
        (RemoveFilters("conv1", [-1]), "-1"),
        (RemoveFilters("conv1", []), "conv1"),
        (RemoveFilters("conv9", [0]), "conv9"),
        (RemoveFilters("linear", [0]), "linear"),
        (AddFilters("conv1", 0), "0"),
        (AddFilters("conv1", 10**9), "1000000000"),
        (AddFilters("conv1", "two"), "Expected `int`, got `str`"),
        (InsertLayer("conv2", kind="conv"), "'residual', 'dirac'"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_invalid_requests_are_refused_with_a_reason_and_change_nothing(edit, reason: str):
    plain = TwoConvs()
    fit(plain)
    steered = TwoConvs()
    revacnn = ReVACNN()
    requests: list = []
    fit(steered, [revacnn, At(3, lambda *_: requests.append(revacnn.steer(edit)))])
    with pytest.raises(EditRefusedError, match=reason):
        requests[0].result()
    for name, value in weights(plain).items():
        assert torch.equal(weights(steered)[name], value)


# ---------------------------------------------------------------------- what is published


def test_exactly_the_training_batches_are_published():
    observer = UpdateListener()
    fit(TwoConvs(), [ReVACNN(), observer], count=80, validate=True)
    snapshots = observer.of(Snapshot)
    steps = [snapshot.step for snapshot in snapshots]
    assert steps == list(range(steps[0], 80))
    assert len(steps) >= 20  # the subscription of a busy machine takes effect late
    for snapshot in snapshots:
        assert snapshot.batches_per_epoch == 80
        assert snapshot.values.shape == (len(snapshot.statistics), 4 + 3)
        assert {"gradient", "activation"} <= set(snapshot.statistics)
        assert np.isfinite(snapshot.values[:2]).all()  # gradient and activation, always
        assert snapshot.sampling_intervals[:2] == [1, 1]
        assert snapshot.loss is not None
        assert snapshot.learning_rates == [1e-3]


def test_the_statistics_match_their_definition():
    """Compared with autograd and a plain forward before each step."""
    expected: dict[int, dict[str, torch.Tensor]] = {}

    class Reference(pl.Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx) -> None:
            images, labels = batch
            first = module.relu1(module.conv1(images))
            second = module.relu2(module.conv2(first))
            loss = nn.functional.cross_entropy(module.linear(second.flatten(1)), labels)
            grads = torch.autograd.grad(loss, [module.conv1.weight, module.conv2.weight])
            expected[batch_idx] = {
                "gradient": torch.cat([grad.abs().mean((1, 2, 3)) for grad in grads]),
                "activation": torch.cat([a.sum((2, 3)).mean(0) for a in (first, second)]),
                "loss": loss.detach(),
            }

    observer = UpdateListener()
    # The reference comes first, so that its forwards are not part of the recorded batch.
    fit(TwoConvs(), [Reference(), ReVACNN(), observer], count=12, accumulate_grad_batches=3)
    snapshots = observer.of(Snapshot)
    assert len(snapshots) >= 9
    for snapshot in snapshots:
        reference = expected[snapshot.step]
        for name in ("gradient", "activation"):
            row = snapshot.values[snapshot.statistics.index(name)]
            np.testing.assert_allclose(row, reference[name].detach().numpy(), rtol=1e-5)
        assert snapshot.loss == pytest.approx(float(reference["loss"]), rel=1e-6)


def test_the_structure_names_every_conv_and_is_updated_by_an_edit():
    observer = UpdateListener()
    revacnn = ReVACNN()
    submit = At(6, lambda *_: revacnn.steer(RemoveFilters("conv1", [1])))
    fit(TwoConvs(), [revacnn, observer, submit], count=20)
    before, *_, after = observer.of(Structure)
    assert [layer.name for layer in before.layers] == ["conv1", "conv2"]
    assert [layer.activation_source for layer in before.layers] == ["relu1", "relu2"]
    assert before.layers[0].filter_ids == [0, 1, 2, 3]
    assert after.version > before.version
    assert after.layers[0].filter_ids == [0, 2, 3]
    assert [layer.activation_source for layer in after.layers] == ["relu1", "relu2"]
    assert after.layers[1].in_channels == 3
    assert after.parameter_count < before.parameter_count
    widths = {s.version: s.values.shape[1] for s in observer.of(Snapshot)}
    assert widths[before.version] == 7
    assert widths[after.version] == 6


def test_the_edges_and_the_end_of_the_run_are_published():
    observer = UpdateListener()
    fit(TwoConvs(), [ReVACNN(), observer], count=20)
    assert observer.of(Structure)[-1].edges == [(0, 1)]
    assert [status.state for status in observer.of(Status)][-1] == "finished"


# ---------------------------------------------------------------------- side effects


def hooks_on(module: nn.Module) -> list[str]:
    """Return all hooks on a model."""
    found = []
    for name, child in module.named_modules():
        for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks"):
            found += [f"{name}.{kind}"] if getattr(child, kind) else []
    for name, parameter in module.named_parameters():
        found += [f"{name} hook"] if parameter._backward_hooks else []
        found += [f"{name} post"] if parameter._post_accumulate_grad_hooks else []
    return found


def test_nothing_is_left_on_the_model_after_training():
    plain, model = TwoConvs(), TwoConvs()
    fit(plain)
    fit(model, [ReVACNN()])
    assert hooks_on(model) == []
    assert set(vars(model)) == set(vars(plain))


@pytest.mark.parametrize("error", [ValueError("out of data"), KeyboardInterrupt()])
def test_nothing_is_left_after_an_exception(error: BaseException, runtime_dir: Path):
    def fail(*_: object) -> None:
        raise error

    model = TwoConvs()
    with pytest.raises((ValueError, SystemExit)):
        fit(model, [ReVACNN(), At(3, fail)])
    assert hooks_on(model) == []
    assert list(runtime_dir.iterdir()) == []


def test_batches_are_recorded_only_while_a_viewer_is_attached(
    monkeypatch: pytest.MonkeyPatch,
):
    """Except the first batch, which shows the order of the layers, and those of the history."""
    recorded: list[int] = []
    begin_batch = Recorder.begin_batch

    def note(recorder: Recorder, **options: Any) -> None:
        recorded.append(batch[0])
        begin_batch(recorder, **options)

    monkeypatch.setattr(Recorder, "begin_batch", note)
    batch = [0]
    received: list[int] = []
    revacnn = ReVACNN(keep_history=False)

    class Viewer(pl.Callback):
        """Attaches before batch 4 and detaches before batch 8."""

        def on_train_batch_start(self, trainer, pl_module, _, batch_idx) -> None:
            batch[0] = batch_idx
            publisher = revacnn._session.server.publisher
            if batch_idx == 4:
                connection = revacnn._session.connection
                self.subscriber = Subscriber(
                    connection.telemetry_endpoint, connection.server_key, connection.keys
                )
                wait_for(publisher.has_subscribers)
            if batch_idx == 8:
                revacnn._session._batches.publish_pending()  # fast batches wait for the next ones
                wait_for(lambda: self._poll() and received[-1] == 7)
                self.subscriber.close()
                wait_for(lambda: not publisher.has_subscribers())
            if batch_idx == 9:
                for layer in revacnn._session.recorder._layers:
                    assert layer.weights.grad is None  # they would occupy memory

        def _poll(self) -> bool:
            steps = [one.step for one in self.subscriber.poll() if isinstance(one, Snapshot)]
            received.extend(steps)
            return bool(received)

    fit(TwoConvs(), [Viewer(), revacnn], record_all=False)
    assert recorded == [0, 4, 5, 6, 7]
    assert received == [4, 5, 6, 7]


@pytest.mark.parametrize(
    ("error", "detail"),
    [(ValueError("out of data"), "ValueError: out of data"), (AssertionError(), "AssertionError")],
    ids=["with a message", "without one"],
)
def test_a_crash_is_published(error: Exception, detail: str):
    def fail(*_: object) -> None:
        raise error

    observer = UpdateListener()
    with pytest.raises(type(error)):
        fit(TwoConvs(), [ReVACNN(), observer, At(6, fail)])
    last = observer.of(Status)[-1]
    assert (last.state, last.detail) == ("failed", detail)


def test_an_internal_error_is_logged_and_training_continues(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    plain = TwoConvs()
    fit(plain)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    revacnn = ReVACNN()
    monitored = TwoConvs()
    sabotage = At(3, lambda *_: monkeypatch.setattr(revacnn._session.recorder, "end_batch", fail))
    with caplog.at_level(logging.WARNING):
        fit(monitored, [revacnn, sabotage])
    assert "training continues" in caplog.text
    assert hooks_on(monitored) == []
    for name, value in weights(plain).items():
        assert torch.equal(weights(monitored)[name], value)


def test_an_error_while_closing_leaves_no_hooks_and_no_file(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, runtime_dir: Path
):
    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    revacnn, model = ReVACNN(), TwoConvs()
    sabotage = At(3, lambda *_: monkeypatch.setattr(revacnn._session.recorder, "flush", fail))
    with caplog.at_level(logging.WARNING):
        fit(model, [revacnn, sabotage])
    assert "did not close cleanly" in caplog.text
    assert hooks_on(model) == []
    assert list(runtime_dir.iterdir()) == []


def test_monitoring_does_not_change_training():
    plain, monitored = TwoConvs(), TwoConvs()
    fit(plain)
    fit(monitored, [ReVACNN(), UpdateListener()])
    for name, value in weights(plain).items():
        assert torch.equal(weights(monitored)[name], value)


def test_the_connection_file_is_private_and_removed_after_the_run(tmp_path: Path):
    path = tmp_path / "run.json"
    modes: list[int] = []
    note = At(3, lambda *_: modes.append(stat.S_IMODE(path.stat().st_mode)))
    fit(TwoConvs(), [ReVACNN(connection_file=path), note])
    assert modes == [0o600]
    assert not path.exists()
    with pytest.raises(ConnectionFileError):
        attach()


def test_one_callback_serves_successive_fits():
    revacnn = ReVACNN()
    model = TwoConvs()
    fit(model, [revacnn])
    fit(model, [revacnn])
    assert revacnn._continuation.step == 24
    assert hooks_on(model) == []


def test_validate_test_and_predict_do_not_start_a_run(runtime_dir: Path):
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        callbacks=[ReVACNN()],
    )
    trainer.validate(TwoConvs(), batches(2), verbose=False)
    assert not runtime_dir.exists()


def test_the_trainer_of_lightning_pytorch_accepts_the_same_callback():
    requests: list = []

    class Submit(lightning.pytorch.Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx) -> None:
            if batch_idx == 3:
                requests.append(revacnn.steer(AddFilters("net.0")))

    class Module(lightning.pytorch.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(
                nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2)
            ).double()

        def training_step(self, batch, batch_idx):
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters())

    revacnn = ReVACNN()
    module = Module()
    trainer = lightning.pytorch.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[revacnn, Submit()],
    )
    trainer.fit(module, batches(8))
    assert isinstance(requests[0].result(), Applied)
    assert module.net[0].out_channels == 5
    assert module.net[3].in_features == 5 * 16


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"telemetry_port": 70_000}, "port 70000"),
        ({"request_port": -1}, "port -1"),
        ({"statistics": ["gradients"]}, "gradients"),
        ({"max_overhead": 3}, "0.03 means 3 %"),
        ({"name": " "}, "one line of 1 to 80"),
        ({"name": "two\nlines"}, "one line of 1 to 80"),
        ({"name": "x" * 81}, "a shorter one"),
    ],
)
def test_invalid_arguments_raise_value_error(options: dict, complaint: str):
    with pytest.raises(ValueError, match=complaint):
        ReVACNN(**options)


def test_viewers_find_a_run_by_its_name(tmp_path: Path):
    path, titles = tmp_path / "run.json", []
    for name in ("wide stem", None):
        note = At(2, lambda *_: titles.append(connection_file.read(path).title))
        fit(TwoConvs(), [ReVACNN(connection_file=path, name=name), note])
    assert titles[0] == "wide stem"
    assert titles[1].startswith("TwoConvs · ")


def test_a_port_in_use_does_not_stop_training(caplog: pytest.LogCaptureFixture):
    import socket

    with socket.socket() as taken, caplog.at_level(logging.WARNING):
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        trainer = fit(TwoConvs(), [ReVACNN(telemetry_port=taken.getsockname()[1])])
    assert trainer.global_step == 12
    assert "cannot listen on" in caplog.text


class NothingToWatch(TwoConvs):
    """Its only layer with weights makes the output."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = self.conv2 = nn.Identity()
        self.linear = nn.Linear(36, 2)
        self.double()


def test_a_model_without_hidden_layers_ended_monitoring(caplog: pytest.LogCaptureFixture):
    listener = UpdateListener()
    with caplog.at_level(logging.INFO):
        fit(NothingToWatch(), [ReVACNN(), listener])
    assert "no convolution and no hidden linear layer" in caplog.text
    assert "Internal error" not in caplog.text
    assert listener.of(Structure)[-1].layers == []
    assert listener.of(Snapshot)[-1].loss is not None
    assert "train_loss" in listener.of(Snapshot)[-1].metrics
    assert listener.of(Status)[-1].state == "finished"


class Perceptron(TwoConvs):
    """A hidden linear layer on the flattened image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = self.conv2 = nn.Identity()
        del self.linear  # the last layer is the output
        self.hidden, self.linear = nn.Linear(36, 5), nn.Linear(5, 2)
        self.double()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.linear(self.relu1(self.hidden(images.flatten(1))))


@pytest.mark.parametrize(
    ("layers", "names"),
    [(None, ["hidden"]), ("all", ["hidden", "linear"]), (["lin*"], ["linear"]), ("conv", [])],
)
def test_the_choice_of_layers_is_shown(layers, names: list[str]):
    listener = UpdateListener()
    fit(Perceptron(), [ReVACNN(layers=layers), listener])
    structure = listener.of(Structure)[-1]
    assert [layer.name for layer in structure.layers] == names
    for layer in structure.layers:
        assert (layer.module_type, layer.kernel_size, layer.stride) == ("Linear", (), ())
    assert structure.edges == ([(0, 1)] if len(names) == 2 else [])
    if "linear" in names:
        assert "output" in structure.layers[-1].edit_refusal


@pytest.mark.parametrize("layers", ["linear", [], 3, [3], "*"])
def test_a_choice_of_layers_that_is_none_is_an_error(layers):
    with pytest.raises(ValueError, match="layers must be"):
        ReVACNN(layers=layers)


def test_an_unknown_pattern_in_layers_is_an_error_before_the_training():
    with pytest.raises(
        ValueError, match=r"layers=\['conv9'\]: no module .* choose of hidden, linear"
    ):
        fit(Perceptron(), [ReVACNN(layers=["hidden", "conv9"])])


def test_a_layer_that_is_watched_by_its_name_but_not_traced_is_refused_by_name():
    class Unused(Perceptron):
        def __init__(self) -> None:
            super().__init__()
            self.spare = nn.Linear(4, 3).double()

    listener = UpdateListener()
    fit(Unused(), [ReVACNN(layers=["hidden", "spare"]), listener])
    hidden, spare = sorted(listener.of(Structure)[-1].layers, key=lambda layer: layer.name)
    assert hidden.edit_refusal == ""
    assert "spare was not run by any forward" in spare.edit_refusal


class ReplacesLayers(TwoConvs):
    """Its code replaces conv1 after the third batch, and removes it after the sixth."""

    def on_train_batch_end(self, outputs, batch, batch_idx):
        if batch_idx == 3:
            self.conv1 = nn.Conv2d(1, 4, 1).double()
        elif batch_idx == 6:
            self.conv1 = nn.Upsample(scale_factor=1)
            self.conv2 = nn.Conv2d(1, 4, 3).double()


def test_layers_that_the_models_code_replaces_are_adopted(caplog: pytest.LogCaptureFixture):
    revacnn, listener, model = ReVACNN(), UpdateListener(), ReplacesLayers()
    replies: list[PendingRequest] = []

    def steer(body: Any) -> Any:
        return lambda trainer, module: replies.append(revacnn.steer(body))

    actions = [
        At(2, steer(Freeze("conv1", [0]))),
        At(3, steer(AddFilters("conv2"))),
        At(5, steer(AddFilters("conv1"))),
        At(8, steer(AddFilters("conv1"))),
        At(9, steer(RemoveFilters("conv2", [0]))),
    ]
    fit(model, [revacnn, listener, *actions])  # an edit is handled before the next batch
    assert "Internal error" not in caplog.text
    results = [type(pending.reply).__name__ for pending in replies]
    assert results == ["Applied", "Applied", "Applied", "Refused", "Applied"], replies
    assert (model.conv2.out_channels, model.linear.in_features) == (3, 3 * 16)
    names = [[layer.name for layer in one.layers] for one in listener.of(Structure)]
    assert names[0] == ["conv1", "conv2"]
    assert names[-1] == ["conv2"]
    ids = {layer.name: layer for layer in listener.of(Structure)[-1].layers}["conv2"].filter_ids
    assert ids == [5, 6, 7]  # of another conv than the filters 0 to 3

"""`monitor`: a training loop without a Trainer is monitored, edited and controlled."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from revacnn_lightning import (
    AddFilters,
    ControlRun,
    EditRefusedError,
    InsertLayer,
    LoopRun,
    RemoveFilters,
    SetGradientClipping,
    SetHyperparameter,
    SteeringError,
    Undo,
    attach,
    load_edited,
    monitor,
)
from revacnn_lightning.protocol.messages import Applied
from revacnn_lightning.runtime import loop_monitor


@pytest.fixture(autouse=True)
def _files_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 3, 3),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Flatten(),
        nn.Linear(12, 2),
    )


def data(count: int = 4) -> DataLoader:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(count * 4, 1, 6, 6, generator=generator)
    return DataLoader(TensorDataset(images, torch.arange(count * 4) % 2), 4, shuffle=True)


def make_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=0.01)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Any) -> Tensor:
    images, labels = batch
    loss = nn.functional.cross_entropy(model(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


class Training:
    """A hand-written loop; ``at`` calls functions of the run before batches."""

    def __init__(self, **options: Any) -> None:
        self.model = network()
        self.optimizer = make_optimizer(self.model)
        self.run = monitor(self.model, [self.optimizer], **options)
        self.losses: list[float] = []

    def train(
        self, epochs: int = 2, at: dict[int, Callable[[LoopRun], object]] | None = None
    ) -> dict[int, Any]:
        """Return what the functions have returned."""
        results = {}
        with self.run as run:
            for _ in run.epochs(epochs):
                for batch in run.batches(data()):
                    loss = step(self.model, run.optimizers[0], batch)
                    run.log(loss=loss, twice=2 * loss.detach())
                    self.losses.append(loss.item())
                    if at and run.step + 1 in at:  # before the next batch
                        results[run.step + 1] = at[run.step + 1](run)
        return results


# ---------------------------------------------------------------------- looking


def plain_training() -> tuple[nn.Module, Tensor]:
    model = network()
    optimizer = make_optimizer(model)
    for _ in range(2):
        for batch in data():
            step(model, optimizer, batch)
    return model, torch.get_rng_state()


def test_looking_leaves_weights_and_random_states_bit_identical():
    expected, random_state = plain_training()
    training = Training(keep_batches=8, validation=data())

    def look(run: LoopRun) -> Any:
        return run.steer(RemoveFilters("0", [1]), dry_run=True)

    replies = training.train(at={2: look, 5: look})
    assert all(reply.result().plan.title for reply in replies.values())
    assert torch.equal(torch.get_rng_state(), random_state)
    for mine, other in zip(training.model.parameters(), expected.parameters(), strict=True):
        assert torch.equal(mine, other)
    assert not any(m._forward_hooks or m._backward_hooks for m in training.model.modules())


def watch(file: Path) -> dict[str, Any]:
    """Attach as a script does, receive a few batches, and stop the run."""
    with attach(file) as run:
        seen = []
        for batch in run.batches():
            seen.append(batch)
            if len(seen) == 12:
                break
        status = run.status
        run.request(ControlRun("stop"))
        return {"batches": seen, "status": status, "structure": run.structure}


def test_a_client_sees_statistics_losses_metrics_and_epochs():
    training = Training(name="by hand")
    gradients: dict[int, Tensor] = {}
    with ThreadPoolExecutor(1) as executor, training.run as run:
        client = executor.submit(watch, run.connection_file)
        for _ in run.epochs(100_000):
            for batch in run.batches(data()):
                loss = step(training.model, training.optimizer, batch)
                run.log(loss=loss, rate=0.5)
                training.losses.append(loss.item())
                weight: Any = training.model[0].weight
                gradients[run.step] = weight.grad.abs().mean((1, 2, 3))
        seen = client.result()
    assert [layer.name for layer in seen["structure"].layers] == ["0", "3"]
    assert len(training.losses) < 400_000  # the request has ended both loops
    for batch in seen["batches"]:
        assert batch.loss == pytest.approx(training.losses[batch.step])
        assert batch.epoch == batch.step // 4
        np.testing.assert_allclose(batch["0"]["gradient"], gradients[batch.step], rtol=1e-4)
    assert seen["batches"][-1].metrics == {"rate": 0.5}


# ---------------------------------------------------------------------- edits and controls


def test_edits_happen_between_batches_and_keep_the_optimizer():
    training = Training()
    averages = training.optimizer.state

    def edit(run: LoopRun) -> Any:
        return [run.steer(AddFilters("0", 2)), run.steer(SetHyperparameter(0, 0, "lr", 0.05))]

    replies = training.train(at={3: edit, 5: lambda run: run.steer(Undo())})
    assert replies[3][0].result().step == 4  # batch 3 has shown how training uses the network
    assert replies[5].result().step == 5
    assert training.model[0].out_channels == 4  # undone
    assert training.optimizer.state is averages
    assert averages[training.model[0].weight]["exp_avg"].shape == (4, 1, 3, 3)
    assert training.optimizer.param_groups[0]["lr"] == 0.05
    assert np.isfinite(training.losses).all()


def test_a_loop_clips_its_gradients_itself():
    """A request to clip them is refused, and the page says why it cannot be set."""
    training = Training()

    def clip(run: LoopRun) -> Any:
        return [
            run.steer(SetGradientClipping(1.0)),
            run.steer(SetGradientClipping(1.0), dry_run=True),
        ]

    replies = training.train(at={2: clip})
    for pending in replies[2]:
        with pytest.raises(
            EditRefusedError, match="its own code decides how gradients are clipped"
        ):
            pending.result()
    assert np.isfinite(training.losses).all()


def test_the_loss_of_an_edit_is_predicted_from_the_logged_loss():
    training = Training()

    def plan(run: LoopRun) -> Any:
        return run.steer(RemoveFilters("0", [1]), dry_run=True)

    replies = training.train(at={2: plan, 4: plan})
    price = replies[4].result().plan.price
    assert price is not None
    assert price.images > 0


def test_a_replaced_optimizer_is_edited():
    training = Training()

    def replace(run: LoopRun) -> None:
        run.optimizers = torch.optim.SGD(training.model.parameters(), lr=0.1, momentum=0.9)

    training.train(at={3: replace, 5: lambda run: run.steer(AddFilters("0"))})
    [optimizer] = training.run.optimizers
    assert type(optimizer) is torch.optim.SGD
    weight = training.model[0].weight
    assert weight.shape[0] == optimizer.state[weight]["momentum_buffer"].shape[0] == 5


def test_an_average_that_the_loop_updates_is_edited_along():
    model = network()
    optimizer = make_optimizer(model)
    average = torch.optim.swa_utils.AveragedModel(model)
    with monitor(model, optimizer, state={"average": average}) as run:
        for batch in run.batches(data(6)):
            step(model, optimizer, batch)
            average.update_parameters(model)
            if run.step == 2:
                reply = run.steer(AddFilters("0"))
    assert reply.result().step == 4
    assert average.module[0].out_channels == model[0].out_channels == 5


def test_a_paused_run_steps_and_stops():
    training = Training()
    replies: list[Any] = []

    def pause(run: LoopRun) -> None:
        for action in ("pause", "step", "step", "stop"):
            replies.append(run.steer(ControlRun(action)))

    training.train(epochs=100, at={2: pause})
    assert all(reply.result() for reply in replies)
    assert training.run.should_stop
    assert len(training.losses) <= 4
    [file] = Path("revacnn").glob("*.ckpt")
    assert file.name in replies[-1].result().detail


def test_edits_wait_for_an_accumulation_window():
    training = Training(accumulate_grad_batches=4)
    replies = training.train(at={2: lambda run: run.steer(AddFilters("0"))})
    assert replies[2].result().step == 4


def test_a_break_ends_a_batch_that_was_trained():
    training = Training()
    with training.run as run:
        for batch in run.batches(data()):
            run.log(loss=step(training.model, training.optimizer, batch))
            if run.step == 1:
                break
        assert run.step == 2
        for _ in run.batches(data()):
            break  # before it has trained the batch
        assert (run.step, run.epoch) == (2, 1)


def test_a_run_that_is_paused_in_a_validation_can_be_edited():
    """No batch had trained since the first viewer: the run did not know how it uses the network."""
    training = Training()
    has_paused = threading.Event()

    def client() -> Applied:
        with attach(timeout=60) as run:
            try:
                run.command(ControlRun("pause"))
                has_paused.set()
                return run.apply(AddFilters("0"))
            finally:
                has_paused.set()
                run.request(ControlRun("stop"))

    with training.run as run, ThreadPoolExecutor(1) as executor:
        for batch in run.batches(data()):
            run.log(loss=step(training.model, training.optimizer, batch))
        applied = executor.submit(client)
        while not has_paused.wait(0.01):
            run.respond()
        for batch in run.batches(data(1_000)):
            run.log(loss=step(training.model, training.optimizer, batch))
            if run.should_stop:
                break
        assert applied.result().step == 5  # after the batch that has shown it


def test_no_batch_trains_when_a_viewer_attaches_to_a_paused_run():
    training = Training()

    def client() -> str:
        with attach(timeout=60) as run:
            try:
                with pytest.raises(EditRefusedError, match="only after the next batch") as refused:
                    run.plan(AddFilters("0"))
                return str(refused.value)
            finally:
                run.request(ControlRun("stop"))

    with ThreadPoolExecutor(1) as executor:

        def pause(run: LoopRun) -> Future[str]:
            run.steer(ControlRun("pause"))
            return executor.submit(client)

        refusal = training.train(epochs=1_000, at={2: pause})[2]
        assert "train one" in refusal.result()
    assert len(training.losses) == 3  # the last one after the client has stopped the run


def test_requests_are_handled_in_a_validation():
    training = Training()
    with training.run as run:
        for batch in run.batches(data()):
            run.log(loss=step(training.model, training.optimizer, batch))
        reply = run.steer(SetHyperparameter(0, 0, "lr", 0.3))
        run.respond()
        assert reply.result().detail == "lr 0.01 → 0.3"


# ---------------------------------------------------------------------- checkpoints


def test_a_resumed_loop_is_bit_identical_edits_included():
    edit = {2: lambda run: run.steer(InsertLayer("3", "dirac"))}
    training = Training()
    scheduler = torch.optim.lr_scheduler.StepLR(training.optimizer, 1)
    training.run = monitor(training.model, training.optimizer, state={"scheduler": scheduler})
    training.train(at={**edit, 4: lambda run: run.steer(AddFilters("3"))})
    scheduler.step()
    training.run.save_checkpoint("run.ckpt")

    model = network(seed=1)
    optimizer = make_optimizer(model)
    other = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    with monitor(model, optimizer, state={"scheduler": other}, resume_from="run.ckpt") as run:
        assert (run.step, run.epoch) == (8, 1)
        assert other.last_epoch == scheduler.last_epoch
        batch = next(iter(data()))
        for one, steps in ((training.model, training.optimizer), (model, optimizer)):
            torch.manual_seed(2)
            step(one, steps, batch)
        undone = run.steer(Undo())
        for _ in range(2):  # the first shows how training uses the network
            with run.batch(batch):
                run.log(loss=step(model, optimizer, batch))
    assert undone.result().step == 9
    assert model[3].out_channels == 3
    loaded = load_edited(network, "run.ckpt")
    assert [name for name, _ in loaded.named_modules()] == [n for n, _ in model.named_modules()]


def test_the_state_of_a_resumed_loop_is_that_of_the_checkpoint():
    training = Training()
    training.train(at={2: lambda run: run.steer(InsertLayer("3", "dirac"))})
    training.run.save_checkpoint("run.ckpt")
    resumed = Training(resume_from="run.ckpt")
    with resumed.run:
        pass
    for mine, other in zip(
        resumed.model.state_dict().values(), training.model.state_dict().values(), strict=True
    ):
        assert torch.equal(mine, other)
    states = [t.optimizer.state_dict()["state"] for t in (resumed, training)]
    for index, state in states[1].items():
        assert torch.equal(states[0][index]["exp_avg"], state["exp_avg"])


def test_a_foreign_checkpoint_is_refused_with_the_reason():
    torch.save({"model": 1}, "other.ckpt")
    with pytest.raises(SteeringError, match="it lacks state_dict"):
        monitor(network(), make_optimizer(network()), resume_from="other.ckpt").__enter__()


# ---------------------------------------------------------------------- wrong use


def test_wrong_arguments_are_named():
    model = network()
    with pytest.raises(TypeError, match=r"model must be an nn\.Module, not a str"):
        monitor("model", [])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"optimizers must be .* not a Linear"):
        monitor(model, [nn.Linear(1, 1)])
    with pytest.raises(ValueError, match="accumulate_grad_batches must be at least 1, not 0"):
        monitor(model, make_optimizer(model), accumulate_grad_batches=0)
    with pytest.raises(ValueError, match="unknown statistics"):
        monitor(model, make_optimizer(model), statistics=["magic"])


def test_a_batch_outside_of_the_run_or_in_another_one_is_an_error():
    training = Training()
    with pytest.raises(RuntimeError, match="the run is not open; use `with"):
        next(training.run.batches(data()))
    with pytest.raises(EditRefusedError, match="inside the with statement"):
        training.run.steer(Undo())
    with training.run as run, run.batch(None), pytest.raises(RuntimeError, match="not ended"):
        next(run.batches(data()))
    with pytest.raises(RuntimeError, match="call monitor again"):
        run.__enter__()


@pytest.mark.parametrize(("value", "found"), [(torch.ones(3), r"shape \(3,\)"), ("high", "str")])
def test_what_is_logged_must_be_a_number(value: Any, found: str):
    with pytest.raises(TypeError, match=f"accuracy must be a single number, and is .*{found}"):
        Training().run.log(accuracy=value)


# ---------------------------------------------------------------------- errors


def test_an_error_in_this_package_ends_monitoring_and_not_the_training(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    training = Training()

    def fail(*args: object, **options: object) -> None:
        raise RuntimeError("a bug")

    def break_it(run: LoopRun) -> Any:
        monkeypatch.setattr(loop_monitor.Session, "end_batch", fail)
        return run.steer(AddFilters("0"))

    replies = training.train(at={2: break_it, 4: lambda run: run.steer(Undo())})
    assert len(training.losses) == 8
    assert "monitoring stopped, training continues" in caplog.text
    with pytest.raises(EditRefusedError):
        replies[2].result()
    with pytest.raises(EditRefusedError, match="0 can"):
        replies[4].result()


def test_an_error_in_the_loop_ends_the_run_with_its_text(caplog: pytest.LogCaptureFixture):
    training = Training()

    def fail(run: LoopRun) -> None:
        raise ValueError("out of data")

    states: list[tuple[str, str]] = []
    close = training.run._monitor.close
    training.run._monitor.close = lambda *args, **options: (states.append(args), close(*args))
    with pytest.raises(ValueError, match="out of data"):
        training.train(at={3: fail})
    assert states == [("failed", "ValueError: out of data")]
    assert training.run.connection_file is None


@pytest.fixture
def _two_processes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in (("is_initialized", True), ("get_world_size", 2)):
        monkeypatch.setattr(loop_monitor.dist, name, lambda value=value: value)


@pytest.mark.usefixtures("_two_processes")
def test_of_several_processes_the_first_shows_the_run_and_refuses_changes(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(loop_monitor.dist, "get_rank", lambda: 0)
    training = Training()
    bodies = (AddFilters("0"), ControlRun("pause"), SetHyperparameter(0, 0, "lr", 0.5))
    replies = training.train(at={3: lambda run: [run.steer(body) for body in bodies]})
    for reply in replies[3]:
        with pytest.raises(EditRefusedError, match="several processes"):
            reply.result()


@pytest.mark.usefixtures("_two_processes")
def test_of_several_processes_the_others_only_train(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loop_monitor.dist, "get_rank", lambda: 1)
    expected, _ = plain_training()
    training = Training()
    files = training.train(at={3: lambda run: run.connection_file})
    assert files == {3: None}
    assert torch.equal(training.model[0].weight, expected[0].weight)


# ---------------------------------------------------------------------- mixed precision


def test_the_loss_scale_is_that_of_the_gradient_scaler():
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**9)
    scaler.scale(torch.ones(()))
    model = network()
    run = monitor(model, make_optimizer(model), state={"scaler": scaler})
    assert run._state.loss_scale is scaler._scale

"""Gradient clipping that is set during real trainings, compared bit by bit."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from revacnn_lightning import DiscardTrial, Freeze, ReVACNN, Run, SetGradientClipping, TryEdits
from revacnn_lightning.protocol.messages import Done, Planned, Refused, Status
from revacnn_lightning.runtime.session import Session
from tests.runtime.live_run import collect_until, train_with
from tests.small import At, TwoConvs, fit

TIGHT = 0.05  # far below the norm of the gradients
NORM, VALUE, OFF = (
    SetGradientClipping(TIGHT),
    SetGradientClipping(1e-3, "value"),
    SetGradientClipping(None),
)


class Steered:
    """A training in which requests are made before some batches."""

    def __init__(
        self,
        script: dict[int, Any],
        model: TwoConvs | None = None,
        callbacks: Sequence[pl.Callback] = (),
        *,
        dry_run: bool = False,
        **options: Any,
    ) -> None:
        self.revacnn = ReVACNN()
        self.model = TwoConvs("sgd-momentum") if model is None else model
        self.pending: list[Any] = []
        self.statuses: list[Status] = []

        def submit(body: Any, *_: Any) -> None:
            self.pending.append(self.revacnn.steer(body, dry_run=dry_run))

        steps = [At(step, functools.partial(submit, body)) for step, body in script.items()]
        self.values: list[tuple[Any, Any]] = []  # of the Trainer, at the end of each batch
        self.trainer = fit(
            self.model, [*steps, self.revacnn, *callbacks, After(self._observe)],
            record_all=False, **options,
        )  # fmt: skip

    def _observe(self, trainer: pl.Trainer) -> None:
        self.values.append((trainer.gradient_clip_val, trainer.gradient_clip_algorithm))
        assert self.revacnn._session is not None
        self.statuses.append(self.revacnn._session._status._build_status())

    @property
    def replies(self) -> list[Any]:
        return [each.reply for each in self.pending]

    @property
    def reason(self) -> str:
        [reply] = self.replies
        assert isinstance(reply, Refused), reply
        return reply.reason


class After(pl.Callback):
    def __init__(self, observe: Callable[[pl.Trainer], None]) -> None:
        self.observe = observe

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.observe(trainer)


def by_hand(
    script: dict[int, tuple[Any, Any]], model: TwoConvs | None = None, **options: Any
) -> TwoConvs:
    """Train without ReVACNN: the user's own callback sets the attributes of the Trainer."""

    def assign(values: tuple[Any, Any], trainer: pl.Trainer, _: Any) -> None:
        trainer.gradient_clip_val, trainer.gradient_clip_algorithm = values

    model = TwoConvs("sgd-momentum") if model is None else model
    steps = [At(step, functools.partial(assign, values)) for step, values in script.items()]
    fit(model, steps, record_all=False, **options)
    return model


def differing(one: torch.nn.Module, other: torch.nn.Module) -> list[str]:
    """Return the names of the tensors that are not equal, bit by bit."""
    others = other.state_dict()
    return [
        name for name, value in one.state_dict().items() if not torch.equal(value, others[name])
    ]


@pytest.mark.parametrize(
    "options",
    [{}, {"accumulate_grad_batches": 3}, {"gradient_clip_val": 0.5}, {"precision": "bf16-mixed"}],
    ids=["plain", "accumulated", "configured", "bf16"],
)
@pytest.mark.parametrize("request_", [NORM, VALUE], ids=["norm", "value"])
def test_clipping_is_that_of_a_callback_of_the_user(
    request_: SetGradientClipping, options: dict[str, Any]
) -> None:
    steered = Steered({4: request_}, **options)
    [reply] = steered.replies
    assert (type(reply), reply.step) == (Done, 4)
    values = (request_.value, request_.algorithm)
    assert differing(steered.model, by_hand({4: values}, **options)) == []
    assert differing(steered.model, by_hand({}, **options)) != []  # it has an effect
    # Between two batches of one step, there is nothing to clip.
    is_same_step = "accumulate_grad_batches" in options
    assert (differing(steered.model, by_hand({5: values}, **options)) == []) == is_same_step


def test_clipping_that_is_switched_off_again_leaves_later_steps_as_they_were() -> None:
    steered = Steered({3: NORM, 7: OFF})
    assert [reply.detail for reply in steered.replies] == [
        "gradient clipping none → norm 0.05",
        "gradient clipping norm 0.05 → none",
    ]
    assert differing(steered.model, by_hand({3: (TIGHT, "norm"), 7: (None, None)})) == []


def test_clipping_that_is_set_and_switched_off_before_the_same_batch_has_no_effect() -> None:
    revacnn, model, pending = ReVACNN(), TwoConvs("sgd-momentum"), []

    def both(*_: Any) -> None:
        pending.extend([revacnn.steer(NORM), revacnn.steer(OFF)])

    fit(model, [At(3, both), revacnn], record_all=False)
    assert [each.reply.step for each in pending] == [3, 3]
    assert differing(model, by_hand({})) == []


@pytest.mark.parametrize("off", [OFF, SetGradientClipping(0.0, "value")])
def test_a_configured_clipping_can_be_switched_off(off: SetGradientClipping) -> None:
    steered = Steered({5: off}, gradient_clip_val=TIGHT)
    assert differing(steered.model, by_hand({5: (None, None)}, gradient_clip_val=TIGHT)) == []
    assert differing(steered.model, by_hand({}, gradient_clip_val=TIGHT)) != []


def test_a_plan_says_what_is_clipped_and_changes_nothing() -> None:
    steered = Steered({4: VALUE}, dry_run=True, gradient_clip_val=0.5)
    [reply] = steered.replies
    assert isinstance(reply, Planned)
    assert reply.plan.title == "Clip the gradient at value 0.001"
    assert reply.plan.notes == ["at present: norm 0.5"]
    assert set(steered.values) == {(0.5, None)}
    assert differing(steered.model, by_hand({}, gradient_clip_val=0.5)) == []


def test_the_status_says_how_gradients_are_clipped() -> None:
    def words(steered: Steered) -> list[str]:
        found = [each.gradient_clipping for each in steered.statuses]
        return [one.describe() for one in found if one is not None]

    assert words(Steered({3: VALUE, 6: OFF})) == ["none"] * 3 + ["value 0.001"] * 3 + ["none"] * 6
    options = {"gradient_clip_val": 2, "gradient_clip_algorithm": "value"}
    assert words(Steered({}, **options)) == ["value 2"] * 12


def test_the_next_fit_of_the_trainer_is_clipped_as_it_was_configured() -> None:
    for configured in (None, 0.5):
        steered = Steered({3: VALUE}, gradient_clip_val=configured)
        assert steered.values[-1] == (1e-3, "value")
        after = (steered.trainer.gradient_clip_val, steered.trainer.gradient_clip_algorithm)
        assert after == (configured, None)


class Overriding(pl.Callback):
    """Sets its own clipping before a batch, after ReVACNN."""

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == 6:
            trainer.gradient_clip_val = 0.7


def test_a_training_that_sets_its_own_clipping_is_noticed() -> None:
    steered = Steered({3: NORM}, callbacks=[Overriding()])
    notes = [status.gradient_clipping.note for status in steered.statuses]  # type: ignore[union-attr]
    assert notes[:7] == [""] * 7
    assert "replaced norm 0.05 by norm 0.7 before batch 7" in notes[7]
    assert steered.trainer.gradient_clip_val == 0.7  # its own, so it stays after the fit


# ---------------------------------------------------------------------- refusals


class Manual(TwoConvs):
    def __init__(self) -> None:
        super().__init__("sgd-momentum")
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        return loss


class OwnClipping(TwoConvs):
    def configure_gradient_clipping(self, *args: Any, **kwargs: Any) -> None:
        """Clip nothing."""


class CallsClipping(TwoConvs):
    def on_before_optimizer_step(self, optimizer: Any) -> None:
        self.clip_gradients(optimizer, gradient_clip_val=0.3, gradient_clip_algorithm="value")


class ClippingCallback(pl.Callback):
    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        (lambda: pl_module.clip_gradients(optimizer, 0.3))()


class Fused(TwoConvs):
    def configure_optimizers(self) -> torch.optim.Optimizer:
        self.float()
        return torch.optim.AdamW(self.parameters(), lr=1e-3, fused=True)

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.float())


@pytest.mark.parametrize(
    ("make_model", "callbacks", "options", "reason"),
    [
        (Manual, [], {}, "manual optimization"),
        (OwnClipping, [], {}, "OwnClipping overrides configure_gradient_clipping"),
        (CallsClipping, [], {}, "CallsClipping.on_before_optimizer_step calls clip_gradients"),
        (TwoConvs, [ClippingCallback()], {}, "ClippingCallback.on_before_optimizer_step calls"),
        (Fused, [], {"precision": "bf16-mixed"}, "AdamW unscales the gradients in its step"),
    ],
    ids=["manual", "override", "call", "callback", "fused"],
)
def test_clipping_without_effect_is_refused_by_name(
    make_model: Callable[[], TwoConvs], callbacks: list[Any], options: Any, reason: str
) -> None:
    model = make_model()
    start = {name: value.clone() for name, value in model.state_dict().items()}
    steered = Steered({4: NORM}, model, callbacks, **options)
    assert reason in steered.reason
    assert set(steered.values) == {(None, None)}
    assert steered.trainer.global_step == 12  # the training goes on
    shown = steered.statuses[-1].gradient_clipping
    assert shown is not None
    assert (reason in shown.refusal, shown.describe()) == (True, "unknown")
    assert any(not torch.equal(value, start[name]) for name, value in model.state_dict().items())


def test_what_is_refused_would_have_ended_the_training() -> None:
    """Lightning raises: what the refusals prevent."""
    with pytest.raises(RuntimeError, match="does not allow for gradient clipping"):
        by_hand({4: (TIGHT, "norm")}, Fused(), precision="bf16-mixed")
    with pytest.raises(Exception, match="Please use only one of them"):
        by_hand({4: (TIGHT, "norm")}, CallsClipping())


def test_a_fused_optimizer_is_clipped_in_full_precision() -> None:
    steered = Steered({4: NORM}, Fused())
    assert differing(steered.model, by_hand({4: (TIGHT, "norm")}, Fused())) == []
    assert isinstance(steered.replies[0], Done)


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (SetGradientClipping(-1.0), "at least 0"),
        (SetGradientClipping(math.inf), "finite number"),
        (SetGradientClipping(math.nan), "finite number"),
    ],
)
def test_a_bad_limit_is_refused(request_: SetGradientClipping, reason: str) -> None:
    steered = Steered({4: request_})
    assert reason in steered.reason
    assert differing(steered.model, by_hand({})) == []


def test_clipping_waits_until_a_trial_is_decided() -> None:
    """The compared networks are clipped as the training was; see `test_trials_in_lightning`."""
    replies: list[Any] = []
    revacnn = ReVACNN()

    def on_undecided(session: Session) -> None:
        publish = session.trial._on_change

        def on_change() -> None:
            publish()
            if session.trial.is_undecided:
                replies.extend([revacnn.steer(NORM), revacnn.steer(DiscardTrial())])

        session.trial._on_change = on_change

    def start(*_: Any) -> None:
        assert revacnn._session is not None
        on_undecided(revacnn._session)
        revacnn.steer(TryEdits([Freeze("conv1", [0])], 2))

    model = TwoConvs("sgd-momentum")
    fit(model, [At(3, start), revacnn], record_all=False)
    refused, discarded = (each.reply for each in replies)
    assert isinstance(refused, Refused)
    assert "trial of edits is under way" in refused.reason
    assert isinstance(discarded, Done)
    assert differing(model, by_hand({})) == []


# ---------------------------------------------------------------------- resuming


class Saving(pl.Callback):
    """Saves a checkpoint after the first epoch."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.current_epoch == 0:
            trainer.save_checkpoint(self.path)


def test_a_resumed_run_is_clipped_as_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "run.ckpt"
    whole = Steered({3: NORM}, callbacks=[Saving(path)], max_epochs=2)
    resumed = Steered({}, resume=path, max_epochs=2)
    assert resumed.values == [(TIGHT, "norm")] * 12
    assert differing(resumed.model, whole.model) == []
    # The Trainer's own argument counts if it differs from that of the first run.
    other = Steered({}, resume=path, max_epochs=2, gradient_clip_val=0.7)
    assert set(other.values) == {(0.7, None)}
    # What cannot be clipped is not.
    fresh = Steered({}, OwnClipping("sgd-momentum"), resume=path, max_epochs=2)
    assert set(fresh.values) == {(None, None)}


@pytest.mark.parametrize("script", [{}, {3: NORM, 4: OFF}], ids=["never set", "switched off"])
def test_a_checkpoint_holds_only_a_clipping_that_was_set(
    script: dict[int, Any], tmp_path: Path
) -> None:
    path = tmp_path / "run.ckpt"
    Steered(script, callbacks=[Saving(path)], gradient_clip_val=0.9, max_epochs=2)
    state = torch.load(path, weights_only=True)["callbacks"]["ReVACNN"]
    assert ("gradient_clipping" in state) == bool(script)
    resumed = Steered({}, resume=path, gradient_clip_val=0.9, max_epochs=2)
    assert resumed.values[0] == ((None, None) if script else (0.9, None))


# ---------------------------------------------------------------------- from another process


def test_a_client_sets_the_clipping_and_reads_it(tmp_path: Path) -> None:
    def client(run: Run) -> dict[str, Any]:
        collect_until(run.poll, 5)
        seen: dict[str, Any] = {"result": run.set_gradient_clipping(0.25)}
        seen["status"] = run.wait_for(
            lambda run: run.status and run.status.gradient_clipping.value == 0.25 and run.status,
            timeout=60,
        ).gradient_clipping
        run.stop()
        return seen

    seen, trainer = train_with(client, tmp_path)
    assert seen["result"] == "gradient clipping none → norm 0.25"
    assert seen["status"].describe() == "norm 0.25"
    assert trainer.gradient_clip_val is None  # after the fit

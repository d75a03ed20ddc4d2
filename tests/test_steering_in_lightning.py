"""Edits in trainings of all kinds that Lightning supports: they work or are refused with a reason.

Those that work do not change the function (a dead filter is removed, a filter with zero outgoing
weights is added), so the run is compared with the unedited one.
"""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from revacnn_lightning import AddFilters, Applied, EditRefusedError, RemoveFilters, ReVACNN
from revacnn_lightning.runtime.request_handler import RequestHandler
from tests.small import At, TwoConvs, fit

DEAD = 2


class WithDeadFilter(TwoConvs):
    """Filter 2 of conv1 is zero and stays zero."""

    def __init__(self, optimizer: str = "adamw") -> None:
        super().__init__(optimizer)
        with torch.no_grad():
            self.conv1.weight[DEAD] = 0
            self.conv1.bias[DEAD] = 0
            self.conv2.weight[:, DEAD] = 0

    def forward(self, images):
        return super().forward(images.to(self.conv1.weight.dtype))


class Single(WithDeadFilter):
    """In float32, which mixed precision casts; it does not cast float64."""

    def __init__(self) -> None:
        super().__init__()
        self.float()


class Scheduled(WithDeadFilter):
    def configure_optimizers(self):
        optimizer = super().configure_optimizers()
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=30)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class Manual(WithDeadFilter):
    """Manual optimization with two optimizers; the first trains the convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        images, labels = batch
        loss = nn.functional.cross_entropy(self(images), labels)
        optimizers = self.optimizers()
        for optimizer in optimizers:
            optimizer.zero_grad()
        self.manual_backward(loss)
        for optimizer in optimizers:
            optimizer.step()

    def configure_optimizers(self):
        convs = [*self.conv1.parameters(), *self.conv2.parameters()]
        return [torch.optim.Adam(convs, lr=1e-3), torch.optim.SGD(self.linear.parameters(), 0.1)]


class ManualWithoutForward(Manual):
    """Its forward requires more than the images."""

    def forward(self, images, *, scale):
        return super().forward(images) * scale

    def training_step(self, batch, batch_idx):
        for optimizer in self.optimizers():
            optimizer.step()


def run_with(edit, model: pl.LightningModule, at: int = 6, **options) -> object:
    """Train ``model`` with an edit before batch ``at``; return the reply."""
    revacnn = options.pop("revacnn", None) or ReVACNN()
    requests: list = []
    submit = At(at, lambda *_: requests.append(revacnn.steer(edit)))
    fit(model, [submit, revacnn], count=18, **options)
    return requests[0].result()


def assert_survivors_equal(plain: TwoConvs, edited: TwoConvs, tolerance: float) -> None:
    kept = [index for index in range(4) if index != DEAD]
    expected = {name: value.clone() for name, value in plain.state_dict().items()}
    expected["conv1.weight"] = expected["conv1.weight"][kept]
    expected["conv1.bias"] = expected["conv1.bias"][kept]
    expected["conv2.weight"] = expected["conv2.weight"][:, kept]
    for name, value in edited.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("make", "options", "tolerance"),
    [
        (WithDeadFilter, {"accumulate_grad_batches": 3}, 1e-12),
        (WithDeadFilter, {"gradient_clip_val": 0.05}, 1e-12),
        (WithDeadFilter, {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"}, 1e-12),
        (WithDeadFilter, {"gradient_clip_val": 0.05, "accumulate_grad_batches": 2}, 1e-12),
        (Scheduled, {}, 1e-12),
        (Manual, {}, 1e-12),
        # bfloat16 rounds to eight bits of mantissa.
        (Single, {"precision": "bf16-mixed"}, 1e-2),
        (WithDeadFilter, {"precision": "64-true"}, 1e-12),
    ],
    ids=["accumulate", "clip", "clip by value", "clip+accumulate", "schedule", "manual", "bf16",
         "64"],
)  # fmt: skip
def test_removing_a_dead_filter_leaves_the_run_unchanged(make, options: dict, tolerance: float):
    plain, edited = make(), make()
    fit(plain, count=18, **options)
    done = run_with(RemoveFilters("conv1", [DEAD]), edited, **options)
    assert isinstance(done, Applied)
    assert edited.conv1.out_channels == 3
    assert_survivors_equal(plain, edited, tolerance)


@pytest.mark.filterwarnings("ignore:.*not supported on CPU")
@pytest.mark.parametrize("precision", ["16-mixed", "bf16-mixed", "bf16-true", "32-true"])
def test_growing_keeps_the_output_in_every_precision(precision: str):
    done = run_with(AddFilters("conv1", 2), Single(), precision=precision)
    assert done.output_change is not None
    assert done.output_change <= 1e-2  # of bfloat16; exact in the others


def test_the_schedule_goes_on_with_the_same_optimizer():
    model = Scheduled()
    rates: list[float] = []
    note = pl.callbacks.LambdaCallback(
        on_train_batch_end=lambda trainer, *_: rates.append(
            trainer.optimizers[0].param_groups[0]["lr"]
        )
    )
    revacnn = ReVACNN()
    submit = At(6, lambda *_: revacnn.steer(AddFilters("conv1")))
    fit(model, [submit, revacnn, note], count=18)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        torch.optim.SGD([torch.zeros(1)], 0.1), max_lr=1e-2, total_steps=30
    )
    expected = []
    for _ in range(18):
        schedule.optimizer.step()
        schedule.step()
        expected.append(schedule.get_last_lr()[0])
    assert rates == pytest.approx(expected)


def test_manual_optimization_without_a_forward_is_refused():
    model = ManualWithoutForward()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(EditRefusedError, match="pass the option forward="):
        run_with(AddFilters("conv1"), model)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_manual_optimization_with_a_user_forward_works():
    model = ManualWithoutForward()
    revacnn = ReVACNN(forward=lambda module, batch: module(batch[0], scale=2.0))
    run_with(AddFilters("conv1"), model, revacnn=revacnn)
    assert model.conv1.out_channels == 5


def test_an_edit_does_not_change_the_random_state():
    """Dropout masks, shuffles and augmentations equal those of the unedited run."""

    class WithDropout(WithDeadFilter):
        def forward(self, images):
            hidden = self.relu2(self.conv2(self.relu1(self.conv1(images))))
            return self.linear(nn.functional.dropout(hidden.flatten(1), 0.5, self.training))

    plain, edited = WithDropout(), WithDropout()
    pl.seed_everything(3, verbose=False)
    fit(plain, count=18)
    pl.seed_everything(3, verbose=False)
    run_with(RemoveFilters("conv1", [DEAD]), edited)
    assert_survivors_equal(plain, edited, 1e-12)


def test_verification_does_not_update_batch_norm_statistics():
    class WithNorm(WithDeadFilter):
        def __init__(self) -> None:
            super().__init__()
            # Without bias: its gradient before the norm is rounding noise that Adam amplifies.
            self.conv2.bias = None
            self.norm = nn.BatchNorm2d(3).double()

        def forward(self, images):
            hidden = self.relu2(self.norm(self.conv2(self.relu1(self.conv1(images)))))
            return self.linear(hidden.flatten(1))

    plain, edited = WithNorm(), WithNorm()
    fit(plain, count=18)
    run_with(RemoveFilters("conv1", [DEAD]), edited)
    assert int(edited.norm.num_batches_tracked) == 18
    assert_survivors_equal(plain, edited, 1e-12)


class Detector(TwoConvs):
    """Receives a list of images and a list of targets."""

    def forward(self, images):
        return super().forward(torch.stack(list(images)))

    def training_step(self, batch, batch_idx):
        images, targets = batch
        assert len(images) == len(targets)
        labels = torch.stack([target["labels"][0] for target in targets])
        return nn.functional.cross_entropy(self(images), labels)


@pytest.mark.parametrize("forward", [None, lambda module, batch: module(batch[0])])
def test_a_batch_of_lists_could_not_be_edited(forward):
    batch = (
        [torch.randn(1, 6, 6, dtype=torch.float64) for _ in range(4)],
        [{"labels": torch.tensor([i % 2])} for i in range(4)],
    )
    replies = []
    revacnn = ReVACNN(forward=forward)
    edit = At(3, lambda trainer, module: replies.append(revacnn.steer(AddFilters("conv1"))))
    model = Detector()
    train(model, [batch] * 8, edit, revacnn)
    assert isinstance(replies[0].reply, Applied), replies[0].reply
    assert model.conv1.out_channels == 5


def train(model: pl.LightningModule, batches: list, *callbacks: pl.Callback) -> None:
    """Train on these batches as they are."""
    loader = torch.utils.data.DataLoader(batches, batch_size=None)
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=list(callbacks),
        limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(model, loader, loader)


def test_an_edit_that_arrived_during_its_plan_waited_for_another_batch(monkeypatch):
    revacnn, steps, edits = ReVACNN(), [], []
    handle = RequestHandler.handle

    def handle_slowly(self, request, batch):
        reply = handle(self, request, batch)
        steps.append(batch.step)
        if request.dry_run:
            edits.append(revacnn.steer(request.body))
        return reply

    monkeypatch.setattr(RequestHandler, "handle", handle_slowly)
    plan = At(2, lambda *_: revacnn.steer(AddFilters("conv1"), dry_run=True))
    fit(TwoConvs(), [plan, revacnn])
    (edit,) = edits
    assert len(steps) == 2
    assert steps[0] == steps[1] == edit.result().step

"""After many plain batches, a hook on one weight is enough, and the values stay the same.

Each training is plain until the batch `CHANGE`, which does something else. A twin that is not
monitored does the same, and autograd computes its gradients without hooks and without ``.grad``.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from revacnn_lightning.telemetry.recording.backward_passes import ProcessBackwardPassCounter
from revacnn_lightning.telemetry.recording.single_hook_policy import MIN_WEIGHTS, PROOF
from tests.telemetry import reference
from tests.telemetry.adapter import of_layer

CHANGE = PROOF + 4  # the batch that is not like those before
CONVS = MIN_WEIGHTS + 1
FIRST, LAST = 0, CONVS - 1  # gradients arrive first at the last conv, the lead
IMAGES = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(3))


class Net(nn.Module):
    """A chain of convs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convs = nn.ModuleList(
            nn.Conv2d(4 if index else 3, 4, 3, padding=1) for index in range(CONVS)
        )
        self.is_reversed = False
        self.skipped: int | None = None
        self.checkpoints: dict[str, Any] | None = None

    def forward(self, x: Tensor, until: int = LAST) -> Tensor:
        first, *others = list(enumerate(self.convs))[: until + 1]
        for index, conv in [first, *(reversed(others) if self.is_reversed else others)]:
            if index != self.skipped and self.checkpoints is not None and x.requires_grad:
                x = checkpoint(conv, x, **self.checkpoints).tanh()
            elif index != self.skipped:
                x = conv(x).tanh()
        return x


class Twin:
    """Trains a network, and knows its gradients: several between two ``zero_grad`` are one."""

    def __init__(self) -> None:
        self.net = Net()
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=1e-6, momentum=0.9)
        self.gradients: list[dict[int, Tensor]] = [{}]

    def loss(self, factor: float = 1.0, until: int = LAST) -> Tensor:
        output = self.net(IMAGES * factor, until)
        return (output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum()

    def backward(self, loss: Tensor, **options: Any) -> None:
        trained = {i: conv for i, conv in enumerate(self.net.convs) if conv.weight.requires_grad}
        weights = [conv.weight for conv in trained.values()]
        found = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)
        for index, gradient in zip(trained, found, strict=True):
            if gradient is not None:
                self.gradients[-1][index] = self.gradients[-1].get(index, 0) + gradient
        loss.backward(**options)

    def zero_grad(self, **options: Any) -> None:
        self.gradients.append({})
        self.optimizer.zero_grad(**options)

    def expected(self, index: int) -> np.ndarray:
        """Return the statistic of a conv."""
        conv = self.net.convs[index]
        known = [each[index] for each in self.gradients if index in each]
        return sum((reference.mean_absolute_coefficient(g, conv) for g in known), np.zeros(4))


class Training(Twin):
    """The same with a recorder, and without the expected values."""

    def __init__(self, recorder_of: Any) -> None:
        super().__init__()
        self.recorder = recorder_of(self.net, ("gradient", "activation"))

    def backward(self, loss: Tensor, **options: Any) -> None:
        loss.backward(**options)

    @property
    def hooked(self) -> int:
        """How many weights have a hook."""
        return sum(conv.weight._backward_hooks is not None for conv in self.net.convs)


Step = Callable[[Any], None]


def plain(run: Twin) -> None:
    run.zero_grad()
    run.backward(run.loss())
    run.optimizer.step()


def with_step(*parts: Step) -> Step:
    """Return a step of these parts: the first one follows ``zero_grad``."""

    def step(run: Twin) -> None:
        run.zero_grad()
        for part in parts:
            part(run)
        run.optimizer.step()

    return step


def full(run: Twin) -> None:
    run.backward(run.loss())


def doubled(run: Twin) -> None:
    run.backward(run.loss(2.0))


def half(run: Twin) -> None:
    """Run a backward pass that the lead has no part in."""
    run.backward(run.loss(1.0, LAST // 2))


def reset(run: Twin) -> None:
    run.zero_grad()


def zero_in_place(run: Twin) -> None:
    run.zero_grad(set_to_none=False)


def clip(run: Twin) -> None:
    run.gradients.append({})  # what is added to a clipped gradient is another one
    nn.utils.clip_grad_norm_(run.net.parameters(), 1e-3)


def twice_through_a_graph(run: Twin) -> None:
    loss = run.loss()
    run.backward(loss, retain_graph=True)
    run.backward(loss)


def gradient_penalty(run: Twin) -> None:
    images = IMAGES.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(run.net(images).sum(), images, create_graph=True)
    run.backward(gradient.square().sum() + run.loss())


def gradients_of_images(run: Twin) -> None:
    images = IMAGES.clone().requires_grad_(True)
    torch.autograd.grad(run.net(images).sum(), images)


def accumulate(run: Twin) -> None:
    run.backward(run.loss())  # without zero_grad
    run.optimizer.step()


def failing_backward(run: Twin) -> None:
    """Run a backward pass that fails in its middle, and discard what has arrived."""

    def fail(gradient: Tensor) -> None:
        raise MemoryError

    handle = run.net.convs[LAST // 2].weight.register_hook(fail)
    with contextlib.suppress(MemoryError):
        run.loss().backward()
    handle.remove()
    run.optimizer.zero_grad()


def freeze(index: int) -> Step:
    def step(run: Twin) -> None:
        run.net.convs[index].weight.requires_grad_(False)

    return step


def skip(index: int) -> Step:
    def step(run: Twin) -> None:
        run.net.skipped = index

    return step


def turn_around(run: Twin) -> None:
    """Let the gradient of the lead arrive after those of its followers."""
    run.net.is_reversed = True


def checkpointed(**options: Any) -> Step:
    def step(run: Twin) -> None:
        run.net.checkpoints = options

    return step


def step_in_backward(run: Twin) -> None:
    """Let each weight be stepped and reset as soon as its gradient has arrived."""
    for parameter in run.net.parameters():
        if parameter._post_accumulate_grad_hooks:
            continue

        def step(weight: Tensor) -> None:
            weight.data.sub_(weight.grad, alpha=1e-3)
            weight.grad = None

        parameter.register_post_accumulate_grad_hook(step)


with_error = with_step(failing_backward, full)
with_steps = with_step(step_in_backward, full)
RIGHT, LOST, EITHER = "right", "lost", "either"

# What happens instead of a plain step, and whether the gradients are still known in that batch.
CHANGES: dict[str, tuple[Step, str]] = {
    "nothing": (plain, RIGHT),
    "no backward pass": (with_step(), RIGHT),
    "two backward passes": (with_step(full, doubled), RIGHT),
    "zero_grad between": (with_step(full, reset, doubled), RIGHT),
    "zeros between": (with_step(full, zero_in_place, doubled), EITHER),
    "clipped between": (with_step(full, clip, doubled), EITHER),
    "clipped after": (with_step(full, clip), RIGHT),
    "retained graph": (with_step(twice_through_a_graph), RIGHT),
    "a pass of some layers before": (with_step(half, full), LOST),
    "a pass of some layers, reset": (with_step(half, reset, full), LOST),
    "a pass of some layers, reset, two": (with_step(half, reset, full, doubled), LOST),
    "another order": (with_step(turn_around, full), LOST),
    "another order, then two": (with_step(turn_around, full, doubled), LOST),
    "another order in the second pass": (with_step(full, reset, turn_around, doubled), LOST),
    "a pass of some layers after": (with_step(full, half), LOST),
    "a pass of some layers only": (with_step(half), LOST),
    "gradient penalty": (with_step(gradient_penalty), EITHER),
    "gradients of the images": (with_step(full, gradients_of_images), EITHER),
    "accumulation": (accumulate, EITHER),
    "an error, then another try": (with_error, LOST),
    "first frozen": (with_step(freeze(FIRST), full), RIGHT),
    "lead frozen": (with_step(freeze(LAST), full), LOST),
    "first skipped": (with_step(skip(1), full), EITHER),
    "lead skipped": (with_step(skip(LAST), full), LOST),
    "checkpoints": (with_step(checkpointed(use_reentrant=False), full), RIGHT),
    "steps in the backward pass": (with_steps, EITHER),
}


def check(training: Training, twin: Twin, step: Step, outcome: str = RIGHT) -> None:
    """Let both do a step, and compare the gradients."""
    twin.gradients = [{}]
    step(twin)
    training.recorder.begin_batch()
    step(training)
    recording = training.recorder.end_batch()
    assert not recording.nonfinite
    values = [of_layer(recording, "gradient", f"convs.{i}") for i in range(CONVS)]
    is_lost = np.isnan(values).any()
    assert outcome == EITHER or is_lost == (outcome == LOST)
    for index, found in enumerate(values):
        if not np.isnan(found).any():
            np.testing.assert_allclose(found, twin.expected(index), rtol=1e-5, atol=1e-6)


def trained_plainly(recorder_of: Any) -> tuple[Training, Twin]:
    """Return a training with a hook on one weight only, and its twin."""
    training, twin = Training(recorder_of), Twin()
    for _ in range(CHANGE):
        check(training, twin, plain)
    assert training.hooked == 1
    return training, twin


@pytest.mark.parametrize("change", CHANGES)
def test_gradients_are_right_or_absent(change: str, recorder_of: Any) -> None:
    training, twin = trained_plainly(recorder_of)
    step, outcome = CHANGES[change]
    check(training, twin, step, outcome)
    for _ in range(3):  # with a hook on each weight
        check(training, twin, step, EITHER if step in (with_error, with_steps) else RIGHT)
    for _ in range(3):
        check(training, twin, plain)


def test_nested_backward_passes_are_not_those_of_a_plain_training(recorder_of: Any) -> None:
    training = Training(recorder_of)
    for batch in range(CHANGE + 3):
        if batch == CHANGE:
            training.net.checkpoints = {"use_reentrant": True}
        training.recorder.begin_batch()
        plain(training)
        recording = training.recorder.end_batch()
        for index, conv in enumerate(training.net.convs):
            found = of_layer(recording, "gradient", f"convs.{index}")
            expected = reference.mean_absolute_coefficient(conv.weight.grad, conv)
            if batch != CHANGE or not np.isnan(found).any():
                np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert training.hooked == CONVS


def test_a_hook_returns_to_one_weight_only_where_no_gradient_was_lost(recorder_of: Any) -> None:
    training = Training(recorder_of)
    found = []
    for step in (with_step(full, doubled), with_step(half, full)):
        for batch in range(3 * CHANGE):
            training.recorder.begin_batch()
            (step if batch == CHANGE else plain)(training)
            training.recorder.end_batch()
            found.append(training.hooked)
    assert found[CHANGE - 1] == 1
    assert found[CHANGE] == found[CHANGE + PROOF] == CONVS
    assert found[3 * CHANGE - 1] == found[4 * CHANGE - 1] == 1
    assert set(found[4 * CHANGE :]) == {CONVS}
    training.recorder.update_structure()  # an edit, or another network
    for _ in range(2 * CHANGE):
        training.recorder.begin_batch()
        plain(training)
        training.recorder.end_batch()
    assert training.hooked == 1


def unfreeze(run: Twin) -> None:
    run.net.requires_grad_(True)


def replace(index: int) -> Step:
    def step(run: Twin) -> None:
        weight = run.net.convs[index].weight
        torch.manual_seed(1)
        run.net.convs[index].weight = nn.Parameter(torch.randn_like(weight))

    return step


@pytest.mark.parametrize("index", [FIRST, LAST])
def test_an_unfrozen_weight_has_a_gradient_immediately(index: int, recorder_of: Any) -> None:
    training, twin = Training(recorder_of), Twin()
    for run in (training, twin):
        freeze(index)(run)
    for _ in range(CHANGE):
        check(training, twin, plain, LOST)  # "lost" is "not measured" here
    assert training.hooked == 1
    for run in (training, twin):
        unfreeze(run)
    for _ in range(3):
        check(training, twin, plain)


def test_a_weight_that_was_frozen_when_hooks_returned_has_a_gradient_later(
    recorder_of: Any,
) -> None:
    training, twin = trained_plainly(recorder_of)
    check(training, twin, with_step(freeze(FIRST), full))
    check(training, twin, with_step(full, doubled))
    for run in (training, twin):
        unfreeze(run)
    check(training, twin, plain)


@pytest.mark.parametrize("index", [FIRST, LAST])
def test_a_replaced_weight_has_a_gradient_immediately(index: int, recorder_of: Any) -> None:
    training, twin = trained_plainly(recorder_of)
    for run in (training, twin):
        replace(index)(run)
    for _ in range(3):
        check(training, twin, plain)
    assert training.hooked == CONVS


def test_a_weight_is_replaced_within_a_batch(recorder_of: Any) -> None:
    """Nothing is known of the new one, but of the others."""
    training, twin = trained_plainly(recorder_of)
    check(training, twin, with_step(replace(1), full), EITHER)
    for _ in range(3):
        check(training, twin, plain)


@pytest.mark.parametrize(
    "step",
    [
        with_step(full, doubled),
        with_step(full, gradients_of_images),
        with_step(gradients_of_images, full),
        accumulate,
    ],
    ids=["two passes", "images after", "images before", "accumulation"],
)
def test_other_trainings_keep_all_hooks(step: Step, recorder_of: Any) -> None:
    training, twin = Training(recorder_of), Twin()
    for _ in range(2 * CHANGE):
        check(training, twin, step)
        assert training.hooked == CONVS


def test_a_weight_that_has_no_slots_keeps_all_hooks(recorder_of: Any) -> None:
    training = Training(recorder_of)
    training.net.convs[1].out_channels = 5  # wrong, but nothing of torch reads it
    training.recorder.update_structure()
    for _ in range(2 * CHANGE):
        training.recorder.begin_batch()
        plain(training)
        training.recorder.end_batch()
        assert training.hooked == CONVS


def test_weights_that_are_not_recorded_have_no_hooks(recorder_of: Any) -> None:
    """Not even an empty table of hooks, which autograd would look at in each backward pass."""
    training, twin = Training(recorder_of), Twin()
    seen: list[Tensor] = []
    training.net.convs[1].weight.register_hook(seen.append)
    for batches in (2, CHANGE):  # before and after only one weight has a hook
        for _ in range(batches):
            check(training, twin, plain)
        training.recorder.release_tensors()
        assert training.hooked == 1
        plain(training)
        plain(twin)
    assert len(seen) == 2 + CHANGE + 2
    check(training, twin, plain)
    assert training.hooked == CONVS


def test_the_gradient_of_a_batch_is_not_that_of_an_unrecorded_one(recorder_of: Any) -> None:
    training, twin = trained_plainly(recorder_of)
    for run in (training, twin):
        full(run)  # between two batches
    check(training, twin, accumulate, EITHER)
    check(training, twin, plain)


def test_backward_passes_are_counted_and_nothing_is_left() -> None:
    passes = ProcessBackwardPassCounter()
    first = passes.run_empty_pass()
    assert passes.run_empty_pass() == first + 1
    run = Twin()
    full(run)  # computes the expected gradients, too
    with torch.no_grad():
        assert passes.run_empty_pass() == first + 4
    with torch.inference_mode():
        other = ProcessBackwardPassCounter()
        assert other.run_empty_pass() == first + 5
    with torch.device("meta"):
        assert ProcessBackwardPassCounter().run_empty_pass() == first + 6


def test_copies_of_a_network_have_no_hook_of_the_lead(recorder_of: Any) -> None:
    training, _ = trained_plainly(recorder_of)
    for conv in copy.deepcopy(training.net).convs:
        assert not conv.weight._backward_hooks


def test_a_compiled_network_is_not_compiled_again(recorder_of: Any) -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    training, twin = Training(recorder_of), Twin()
    training.net.compile(backend="aot_eager")
    for _ in range(CHANGE):
        check(training, twin, plain)
    assert training.hooked == 1
    check(training, twin, with_step(full, doubled))
    check(training, twin, plain)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    torch._dynamo.reset()


def test_a_network_that_changes_its_path_keeps_all_hooks(recorder_of: Any) -> None:
    """Its batches were counted as the same ones, because those of few weights were left out."""
    training, twin = Training(recorder_of), Twin()
    for batch in range(3 * PROOF):
        check(training, twin, with_step(half) if batch % 2 else plain)
        assert training.hooked == CONVS

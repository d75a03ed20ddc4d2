"""Compiled networks: edits reach the compiled code, and what the compiler does is shown."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from benchmarks.compiled import LIMIT, difference_to_eager
from revacnn_lightning import (
    AddFilters,
    Freeze,
    InsertLayer,
    ReVACNN,
    ScaleLearningRate,
    Undo,
    monitor,
)
from revacnn_lightning.protocol.requests import InspectImage, InspectLayer
from revacnn_lightning.runtime.compilations import CompilationCounter
from tests.small import At, fit
from viewer.components.header import _compilations

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor"),  # raised by the compiler
]

EDITS = [AddFilters("0", 2), InsertLayer("2", "dirac"), Undo(1)]


@pytest.fixture(autouse=True)
def _compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Begin with a fresh compiler, which gives up after the second compilation of a function."""
    monkeypatch.chdir(tmp_path)
    torch._dynamo.reset()
    with torch._dynamo.config.patch(recompile_limit=2):
        yield
    torch._dynamo.reset()


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2)
    )


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(4, 1, 6, 6, generator=generator), torch.arange(4) % 2


def compiled(net: nn.Sequential, how: str) -> nn.Module:
    if how == "torch.compile":
        return torch.compile(net, backend="eager", fullgraph=True)  # type: ignore[return-value]
    if how == "Module.compile":
        net.compile(backend="eager", fullgraph=True)
        return net
    net[0].compile(backend="eager")
    net[2] = torch.compile(net[2], backend="eager")
    return net


def train_batch(run: Any, called: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Train the network that a run monitors on one batch."""
    images, labels = batch()
    with run.batch((images, labels)):
        loss = nn.functional.cross_entropy(called(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        run.log(loss=loss)


def train(net: nn.Module, called: nn.Module, edits: list[Any]) -> dict[str, Any]:
    """Train a network in a loop that edits it after every third batch."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    images, _ = batch()
    replies, differences, status = [], [], None
    with monitor(called, optimizer, keep_batches=3) as run:
        for index in range(3 * len(edits) + 3):
            train_batch(run, called, optimizer)
            differences.append(difference_to_eager(called, images))
            if index % 3 == 0 and index // 3 < len(edits):
                replies.append(run.steer(edits[index // 3]))
        session = run._monitor.session
        assert session is not None
        status = session._status._build_status()
        observed = dict(session.recorder.observed)
    results = [reply.result() for reply in replies]
    return {
        "results": results, "difference": max(differences), "status": status, "observed": observed,
    }  # fmt: skip


@pytest.mark.parametrize("how", ["torch.compile", "Module.compile"])
def test_after_each_edit_the_compiled_network_equals_the_eager_one(how: str):
    net = network()
    called = compiled(net, how)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trained = train(net, called, EDITS)
    assert [result.version for result in trained["results"]] == [1, 2, 3]
    assert net[0].out_channels == 6
    assert trained["difference"] <= LIMIT
    # Each edit has reset the compiler; with fullgraph, its limit would have raised.
    assert trained["status"].compilations >= 1 + len(EDITS)
    assert trained["status"].compile_seconds > 0
    assert trained["status"].alerts == []
    assert trained["observed"] == {"0": False, "2": False}


def test_compiled_submodules_are_edited():
    net = network()
    edits = [AddFilters("0", 2), Undo(1)]
    trained = train(net, compiled(net, "submodules"), edits)
    assert len(trained["results"]) == 2
    assert trained["difference"] <= LIMIT
    assert trained["observed"] == {"0": False, "2._orig_mod": False}


def test_looking_at_a_compiled_network_compiles_nothing_again():
    """An image that a viewer shows runs alone, so that its batch has another size."""
    net = network()
    called = compiled(net, "torch.compile")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    images, labels = batch()
    with monitor(called, optimizer, keep_batches=3) as run:
        for index in range(6):
            with run.batch((images, labels)):
                loss = nn.functional.cross_entropy(called(images), labels)
                loss.backward()
                run.log(loss=loss)
            if index == 2:
                replies = [run.steer(body) for body in (InspectImage(), InspectLayer("0"))]
        session = run._monitor.session
        assert session is not None
        assert session._compilations.count == 1
    assert all(reply.result() for reply in replies)


def test_frozen_statistics_of_a_compiled_network_stay():
    """No hook may restore them between forward and backward, which asserts that nothing has."""
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16, 2))
    called = torch.compile(net, backend="aot_eager", fullgraph=True)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    with monitor(called, optimizer) as run:
        before: dict[str, Tensor] = {}
        for index in range(6):
            train_batch(run, called, optimizer)
            if index == 1:
                reply = run.steer(Freeze("0", [2]))
            if index == 2:
                before = {name: value.clone() for name, value in norm.state_dict().items()}
        reply.result()
    for name in ("weight", "bias", "running_mean", "running_var"):
        now = norm.state_dict()[name]
        assert torch.equal(now[2], before[name][2]), name
        assert not torch.equal(now, before[name]), name


def test_a_layer_of_a_compiled_network_trains_at_its_scaled_rate():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16, 2))
    called = torch.compile(net, backend="aot_eager", fullgraph=True)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with monitor(called, optimizer) as run:
        for index in range(5):
            before = net[0].weight.detach().clone()
            train_batch(run, called, optimizer)
            if index == 1:
                reply = run.steer(ScaleLearningRate("0", 0.5))
        reply.result()
    assert net[0].weight.grad is not None
    torch.testing.assert_close(net[0].weight, before - 0.05 * net[0].weight.grad)


class Compiled(pl.LightningModule):
    """It compiles its network in ``configure_model``."""

    def configure_model(self) -> None:
        if not hasattr(self, "net"):
            self.net = torch.compile(network().double(), backend="eager", fullgraph=True)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        return nn.functional.cross_entropy(self.net(images), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


@pytest.mark.filterwarnings("ignore:You passed in a `val_dataloader`")
def test_a_network_that_configure_model_compiles_is_edited():
    revacnn, module = ReVACNN(), Compiled()
    replies: list[Any] = []

    def edit(*_: object) -> None:
        replies.append(revacnn.steer(AddFilters("net._orig_mod.0", 2)))

    fit(module, [At(2, edit), At(5, edit), At(8, edit), revacnn])
    assert [reply.result().version for reply in replies] == [1, 2, 3]
    assert difference_to_eager(module.net, batch()[0].double()) <= LIMIT


# ---------------------------------------------------------------------- what the compiler does


def test_what_the_compiler_gives_up_is_an_alert():
    net = network()
    called = torch.compile(net, backend="eager", dynamic=False)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    with monitor(called, optimizer) as run:
        for size in (2, 3, 4, 5):  # each is compiled for
            images, labels = batch()
            with run.batch((images[:size], labels[:size])):
                run.log(loss=nn.functional.cross_entropy(called(images[:2]), labels[:2]))
                called(torch.ones(size, 1, 6, 6))
        session = run._monitor.session
        assert session is not None
        alerts = session._alerts.shown
    assert [alert.kind for alert in alerts] == ["not_compiled"]
    assert "without compiled code" in alerts[0].text
    assert "function: " in alerts[0].text
    assert "last reason: " in alerts[0].text


def test_compilations_are_counted_and_timed_also_after_a_reset():
    seconds = iter(range(100))
    compilations = CompilationCounter(lambda: float(next(seconds)))
    compilations.watch()
    compilations.watch()  # is registered once
    function = torch.compile(lambda x: x + 1, backend="eager")
    function(torch.ones(2))
    assert (compilations.count, compilations.seconds) == (1, 1.0)
    torch._dynamo.reset()
    compilations.watch()
    function(torch.ones(2))
    assert (compilations.count, compilations.seconds) == (2, 2.0)
    compilations.close()
    torch._dynamo.reset()
    function(torch.ones(2))
    assert compilations.count == 2


def test_the_page_shows_the_cost_of_compiling():
    status: Any = SimpleNamespace(compilations=3, compile_seconds=41.5)
    [field] = _compilations(status)
    assert (field["label"], field["value"]) == ("Compiled", "3 × · 41.5 s")
    assert _compilations(SimpleNamespace(compilations=0)) == []  # type: ignore[arg-type]

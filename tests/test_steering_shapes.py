"""The parts of the study of steering that grow and prune: small versions, and the report."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.data import TensorDataset

from tests.example_modules import imported_example

REFERENCE = {"plain": (8, 8, 8), "residual": (8, 8, 8)}


@pytest.fixture(scope="module")
def study() -> Iterator[ModuleType]:
    with imported_example("06_steering_pays.py") as module:
        yield module


@pytest.fixture(scope="module")
def module(study: ModuleType) -> SimpleNamespace:
    names = ("grow_arms", "prune_arms", "shape_networks", "shape_report", "shape_training")
    return SimpleNamespace(**{name: sys.modules[name] for name in names})


@pytest.fixture
def small(study: ModuleType, module: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use networks of a few filters, and few edits."""
    for one in (study, module.grow_arms, module.prune_arms):
        monkeypatch.setattr(one, "WIDTHS", REFERENCE)
    monkeypatch.setattr(module.grow_arms, "GROWTHS", 1)
    monkeypatch.setattr(module.prune_arms, "EVERY", 2)


def training_of(study: ModuleType, architecture: str, batches: int) -> Any:
    """Return a training with a budget of so many batches of the reference shape."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(256, 1, 8, 8, generator=generator)
    data = TensorDataset(images, torch.arange(256) % 10)
    training = study.BudgetTraining(architecture, study.Images(data, data), 0.0, 0)
    macs = training.macs_per_image(REFERENCE[architecture])
    return training._replace(budget=macs * 64 * batches)


def test_the_cost_of_a_network_is_that_of_its_layers(module: SimpleNamespace) -> None:
    # 3x3 kernels at 8x8, then 4x4 positions; the classifier reads 4 x 4 x 5 numbers.
    expected = 64 * 9 * 1 * 2 + 16 * 9 * 2 * 3 + 16 * 9 * 3 * 5 + 16 * 5 * 10
    before = torch.get_rng_state()
    assert module.shape_networks.macs_per_image("plain", (1, 8, 8), (2, 3, 5)) == expected
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.usefixtures("small")
def test_all_networks_that_grow_have_one_shape_and_one_budget(study: ModuleType) -> None:
    training = training_of(study, "residual", 5)
    arms = {
        arm: outcome.to_result(training) for arm, outcome in study.train_grow_arms(training).items()
    }
    widths = {arm: tuple(one["widths"]) for arm, one in arms.items()}
    grown = widths["grown"]
    assert sum(grown) == 2 + 2 + 2 + 4  # one growth
    assert widths["final shape"] == widths["random filters"] == widths["rebuilt optimizer"] == grown
    assert widths["half as wide"] == (4, 4, 4)
    for one in arms.values():
        last_batch = one["macs"] * 64 / training.budget
        assert 1 <= one["curve"][-1][0] < 1 + last_batch
        assert 0 <= one["accuracy"] <= 1
    assert arms["grown"]["batches"] > arms["final shape"]["batches"]


@pytest.mark.usefixtures("small")
def test_all_networks_that_are_pruned_reach_the_cost_of_the_halved_shape(
    study: ModuleType,
) -> None:
    training = training_of(study, "plain", 25)
    arms = {
        arm: outcome.to_result(training)
        for arm, outcome in study.train_prune_arms(training).items()
    }
    assert arms["uniform halving"]["widths"] == [4, 4, 4]
    target = arms["halved shape from scratch"]["macs"]
    assert target == training.macs_per_image((4, 4, 4))
    for arm in ("by price", "by norm"):
        assert arms[arm]["macs"] <= target
    assert arms["found shape from scratch"]["widths"] == arms["by price"]["widths"]


def test_a_rebuilt_optimizer_has_no_state(study: ModuleType, module: SimpleNamespace) -> None:
    training = training_of(study, "plain", 1)
    network = training.new_network((2, 2, 2))
    reply = SimpleNamespace(reply=object(), result=lambda: None)
    old = torch.optim.Adam(network.parameters())
    for rebuilds in (False, True):
        run: Any = SimpleNamespace(steer=lambda _: reply, optimizers=old)
        growths = [module.grow_arms.Growth(10.0, "3")]
        steering = module.grow_arms.GrowRandomlyAt(growths, rebuilds=rebuilds)
        for spent in (9.0, 10.0, 11.0):
            steering.before_batch(run, network, spent)
        assert (run.optimizers is not old) == rebuilds


def test_pruning_by_norm_removes_the_smallest_filters_until_the_target(
    study: ModuleType, module: SimpleNamespace
) -> None:
    arms, training = module.prune_arms, training_of(study, "plain", 1)
    network = training.new_network((3, 3, 3))
    with torch.no_grad():
        for name, sizes in (("0", (9, 9, 9)), ("3", (1, 50, 2)), ("6", (3, 5, 4.5))):
            weight = network.get_submodule(name).weight
            weight.copy_(torch.tensor(sizes).view(-1, 1, 1, 1).expand_as(weight))
    one_less, least = training.macs_per_image((3, 2, 3)), training.macs_per_image((3, 1, 2))
    for target, expected in ((one_less, {"3": [0]}), (least, {"3": [0, 2], "6": [0]})):
        steering = arms.PruneByNorm(training, target, arms.group_with_smallest_norm)
        assert steering.filters_to_remove(network) == expected


@pytest.mark.usefixtures("small")
def test_a_second_sitting_trains_only_what_is_missing(
    study: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    images = training_of(study, "plain", 1).images
    monkeypatch.setattr(study, "load_images", lambda *_: images)
    outcome = SimpleNamespace(to_result=lambda _: {"accuracy": 0.5})
    monkeypatch.setattr(study, "train_prune_arms", lambda _: {"by price": outcome})
    setting = study.ShapeSetting("few", "prune", "digits", "plain", 1, 3, 0.9)
    file = tmp_path / "results"
    for limit in (2, 10):
        study.run_missing_studies([setting], None, file, limit)
    assert [one["seed"] for one in study.read_results(file)] == [0, 1, 2]


def results_of(arms: dict[str, float], title: str) -> list[dict[str, Any]]:
    """Return results of eight seeds, which differ a little."""
    return [
        {
            "setting": title, "seed": seed, "arm": arm, "accuracy": value + seed * 0.001,
            "widths": [4, 8], "macs": 1e6, "batches": 10, "seconds": 1.0,
            "curve": [[0.5, value - 0.2], [1.001, value + seed * 0.001]],
        }
        for seed in range(8)
        for arm, value in arms.items()
    ]  # fmt: skip


def test_the_report_says_where_growing_does_not_pay(
    study: ModuleType, module: SimpleNamespace, tmp_path: Path
) -> None:
    setting = study.ShapeSetting("few", "grow", "digits", "plain", 1, 10, 0.7)
    values = (0.8, 0.6, 0.95, 0.8, 0.4)
    results = results_of(dict(zip(module.grow_arms.GROW_ARMS, values, strict=True)), "few")
    results = [one for one in results if (one["seed"], one["arm"]) != (7, "grown")]
    study.write_steering_report(results, [setting], tmp_path / "report.md")
    text = (tmp_path / "report.md").read_text()
    assert "7 of 10 planned seeds" in text
    assert "| few | 7 | pays | does not pay: worse | not shown | pays |" in text
    assert "| few | 7 | pays | does not pay: worse | pays |" in text  # random filters
    assert "| grown | half as wide | 0 | 1 | 0 | 0 |" in text
    # The half-wide networks reach 0.7 at half of the budget, the final shape never does.
    assert "| half as wide | 7 of 7 | 0.50 |" in text
    assert "| half as wide | -0.500 (-0.500 to -0.500) | does not pay: worse |" in text
    assert "| final shape | 0 of 7 | 1.00 |" in text
    assert "| final shape | +0.000 (+0.000 to +0.000) | not shown |" in text


def test_the_cost_of_an_accuracy_that_is_never_reached_is_the_whole_budget(
    module: SimpleNamespace,
) -> None:
    curve = [(0.25, 0.1), (0.5, 0.6), (0.75, 0.4), (1.002, 0.7)]
    assert [module.shape_report.cost_until_goal(curve, goal) for goal in (0.5, 0.7, 0.9)] == [
        0.5,
        1,
        1,
    ]

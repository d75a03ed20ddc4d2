"""The part of the study of steering about collapsed networks: treatments, results, report."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from tests.example_modules import imported_example


@pytest.fixture(scope="module")
def study() -> Iterator[ModuleType]:
    with imported_example("06_steering_pays.py") as module:
        yield module


@pytest.fixture(scope="module")
def report(study: ModuleType) -> ModuleType:
    return sys.modules["rescue_report"]


@pytest.fixture(scope="module")
def networks(study: ModuleType) -> ModuleType:
    return sys.modules["rescue_networks"]


def few_images(study: ModuleType) -> Any:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(256, 1, 8, 8, generator=generator)
    data = TensorDataset(images, torch.arange(256) % 10)
    return study.Images(data, data)


def test_every_treatment_of_a_collapsed_network_has_a_result(
    study: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    setting = study.RescueSetting("few", "digits", "plain", 0.01, (1,), 2, 1)
    monkeypatch.setattr(study, "COLLAPSED", 1.0)  # whatever its accuracy is
    monkeypatch.setattr(study, "load_images", lambda *_: few_images(study))
    file = tmp_path / "results"
    for _ in range(2):  # the second sitting has nothing to do
        study.run_missing_studies([setting], None, file, max_networks=10)
    results = study.read_results(file)
    assert [one["arm"] for one in results] == list(study.ARMS)
    assert all(0 <= one["accuracy"] <= 1 for one in results)


def test_a_network_that_did_not_collapse_is_not_treated(
    study: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = study.RescueSetting("few", "digits", "plain", 0.01, (1,), 2, 1)
    monkeypatch.setattr(study, "COLLAPSED", -1.0)
    (result,) = study.run_rescue_arms(setting, 0, few_images(study))
    assert result["arm"] == ""


def test_restarting_front_to_back_revives_all_filters_with_the_response_of_a_new_network(
    study: ModuleType, networks: ModuleType
) -> None:
    images = few_images(study)
    torch.manual_seed(0)
    network = networks.ConvClassifier("plain", images.shape, 1e-9)
    probe = images.train.tensors[0]
    fresh = {
        name: float(x.mean()) for name, x in networks.response_deviations(network, probe).items()
    }
    with torch.no_grad():
        network.layers[0].weight.mul_(30)
        for layer in (network.layers[3], network.layers[5]):
            layer.bias[:20] = -1e4
    silent = networks.silent_filters(network, probe)
    assert all(len(one) >= count for one, count in zip(silent.values(), (0, 20, 20), strict=True))
    setting = study.RescueSetting("few", "digits", "plain", 1e-9, (1,), 6, 1)
    treated = networks.train_after_treatment(network, "restart front to back", setting, images, 6)
    assert not any(networks.silent_filters(treated, probe).values())
    for name, response in networks.response_deviations(treated, probe).items():
        known = response[response > 0]
        # Other random numbers than those of the new network that the treatment draws.
        assert float(known.mean()) == pytest.approx(fresh[name], rel=0.5)


def result(seed: int, arm: str, accuracy: float) -> dict[str, Any]:
    return {
        "setting": "few", "seed": seed, "moment": 1, "silent": 40, "arm": arm,
        "accuracy": accuracy,
    }  # fmt: skip


def test_the_interval_of_paired_differences_is_that_of_scipy(report: ModuleType) -> None:
    from scipy.stats import ttest_rel

    generator = np.random.default_rng(0)
    first, second = generator.random((2, 9))
    found = report.paired_difference(first, second)
    expected = ttest_rel(first, second).confidence_interval()
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert str(report.paired_difference(first[:4], second[:4])) == "–"


def test_the_report_says_where_restarting_does_not_pay(study: ModuleType, tmp_path: Path) -> None:
    setting = study.RescueSetting("few", "digits", "plain", 0.4, (1,), 10, 8)
    accuracies = {
        "leave": 0.1, "lower the rate": 0.5, "restart all together": 0.5,
        "restart front to back": 0.5, "start over": 0.9,
    }  # fmt: skip
    noise = np.random.default_rng(0).normal(0, 0.01, 8)
    results = [
        result(seed, arm, value + (noise[seed] if arm == "lower the rate" else 0))
        for seed in range(8)
        for arm, value in accuracies.items()
    ]
    results.append({"setting": "few", "seed": 8, "moment": 1, "arm": "", "accuracy": 0.8})
    study.write_steering_report(results, [setting], tmp_path / "report.md")
    text = (tmp_path / "report.md").read_text()
    assert "9 of 8 planned networks" in text
    assert "8 collapsed" in text
    assert "| few | 10% | 8 | pays | not shown | not shown | does not pay: worse |" in text
    assert "| restart front to back | start over | 0 | 1 | 0 | 0 |" in text
    assert "| leave | 0.100 | 0.100 | 0.100 | 8 of 8 |" in text

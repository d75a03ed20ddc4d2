"""The study of the published patterns: its networks, its statistics and its report."""

from __future__ import annotations

import json
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
    with imported_example("05_published_patterns.py") as module:
        yield module


@pytest.fixture(scope="module")
def report(study: ModuleType) -> ModuleType:
    return sys.modules["pattern_report"]


@pytest.fixture
def few_images(monkeypatch: pytest.MonkeyPatch, study: ModuleType) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(128, 1, 8, 8, generator=generator)
    data = TensorDataset(images, torch.arange(128) % 10)
    monkeypatch.setattr(study, "load_images", lambda *_: study.Images(data, data))


def test_missing_networks_are_trained_and_known_ones_are_not(
    study: ModuleType, few_images: None, tmp_path: Path
) -> None:
    file, studies = (
        tmp_path / "results",
        [study.PatternStudy("few", "digits", "original", 3, epochs=1)],
    )
    study.train_missing_networks(studies, None, file, max_networks=2)
    first = file.read_text()
    assert [each["seed"] for each in study.read_results(file)] == [0, 1]
    study.train_missing_networks(studies, None, file, max_networks=10)
    assert file.read_text().startswith(first)
    assert [each["seed"] for each in study.read_results(file)] == [0, 1, 2]
    layers = study.read_results(file)[0]["layers"]
    assert len(layers) == 3
    assert all(layer["movement"] >= 0 and 0 <= layer["silent"] <= 1 for layer in layers)


def test_the_same_settings_give_the_same_result(
    study: ModuleType, few_images: None, tmp_path: Path
) -> None:
    studies = [study.PatternStudy("few", "digits", "normalized", 1, epochs=1)]
    for name in ("one", "other"):
        study.train_missing_networks(studies, None, tmp_path / name, max_networks=1)
    assert (tmp_path / "one").read_text() == (tmp_path / "other").read_text()


def test_a_line_that_was_cut_is_trained_again(
    study: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "results"
    file.write_text('{"study": "few", "seed": 0}\n{"study": "few", "se')
    assert study.read_results(file) == [{"study": "few", "seed": 0}]
    study.append_results(file, [{"study": "few", "seed": 1}])
    assert [each["seed"] for each in study.read_results(file)] == [0, 1]
    assert "not complete" in capsys.readouterr().out


def result(seed: int, accuracy: float, movement: float = 1.0, **measures: float) -> dict[str, Any]:
    layer = dict.fromkeys(
        ("silhouette", "hopkins", "effective_rank", "near_duplicates", "single_color", "silent"),
        float("nan"),
    )
    layer |= {"movement": movement, "late_movement": 0.1, **measures}
    return {"study": "CIFAR-10", "seed": seed, "accuracy": accuracy, "layers": [layer]}


def test_the_area_under_the_curve_is_that_of_scikit_learn(report: ModuleType) -> None:
    from sklearn.metrics import roc_auc_score

    generator = np.random.default_rng(0)
    badness, accuracy = generator.integers(5, size=40).astype(float), generator.random(40)
    expected = roc_auc_score(report.is_worst_third(accuracy), badness)
    assert report.worst_third_auc(badness, accuracy) == pytest.approx(expected)


def test_the_measure_that_tells_the_worst_third_is_chosen(report: ModuleType) -> None:
    generator = np.random.default_rng(0)
    accuracies = generator.random(30)
    results = [
        result(i, a, hopkins=float(generator.random()), silhouette=1 - a, effective_rank=0.5)
        for i, a in enumerate(accuracies)
    ]
    assert report.choose_best_detector(results) == ("silhouette", 0)


def test_a_network_that_stayed_at_its_start_or_diverged_has_not_moved(report: ModuleType) -> None:
    assert report.has_left_initialization(result(0, 0.5, movement=0.3))
    assert not report.has_left_initialization(result(0, 0.5, movement=0.1))
    assert not report.has_left_initialization(result(0, 0.5, movement=float("nan")))


def test_the_report_shows_what_the_results_say(
    report: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "DRAWS", 100)
    generator = np.random.default_rng(0)
    results = [
        result(i, a, silhouette=-a, hopkins=float(generator.random()))
        for i, a in enumerate(generator.random(40))
    ]
    report.write_pattern_report(json.loads(json.dumps(results)), 50, tmp_path / "report.md")
    text = (tmp_path / "report.md").read_text()
    assert "40 of 50 planned networks are trained" in text
    assert "40 networks; 40 have left their random start" in text
    assert "| 1 | -1.00 (-1.00 to -1.00) | -1.00 (-1.00 to -1.00) |" in text
    assert "The best measure of the even seeds: clusters of filters: silhouette" in text
    assert "| clusters of filters | supported in layer 1 |" in text
    assert "| filters of a single color | – |" in text
    assert "| CIFAR-10, odd seeds | 20 | 1.00 (0.9" in text

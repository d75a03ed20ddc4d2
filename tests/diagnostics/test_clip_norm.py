"""The proposed norm is that of the batches before the gradient exploded, or a common one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from revacnn_lightning.diagnostics.clip_norm import norm_bounds, propose_clip_norm, usual_norm
from revacnn_lightning.diagnostics.verdict_window import VerdictWindow
from revacnn_lightning.diagnostics.verdicts import MIN_BATCHES, WINDOW, Verdict
from revacnn_lightning.history.network_verdicts import NetworkVerdicts
from revacnn_lightning.protocol.messages import LayerInfo, Snapshot, Structure


def test_the_bound_is_below_the_norm_and_exact_for_equal_components() -> None:
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(5, 9, generator=generator), torch.randn(3, 45, generator=generator)]
    means = np.concatenate([g.abs().mean(1).numpy() for g in gradients])
    counts = np.repeat([9, 45], [5, 3])
    (bound,) = norm_bounds(means[None], counts)
    norm = float(torch.cat([g.flatten() for g in gradients]).norm())
    assert 0.75 * norm < bound < norm  # √(2/π) = 0.80 of it, about
    (exact,) = norm_bounds(np.full((1, 8), 0.5), counts)
    assert exact == pytest.approx(float(torch.full((5 * 9 + 3 * 45,), 0.5).norm()))


def test_only_usual_batches_count() -> None:
    bounds = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 700.0, np.inf, 0.0])
    ratios = np.array([1.0, 1e3, 1.0, 0.1, 1.0, 1e5, 1.0, np.nan])
    means = np.stack([ratios, np.full(8, np.nan), np.ones(8)], axis=1)
    assert usual_norm(bounds, means) == 3.0
    assert usual_norm(bounds[1:], means[1:]) == 0.0  # too few


def test_the_number_and_its_source_are_said() -> None:
    value, note = propose_clip_norm(0.37291, ["conv1", "conv2"])
    assert value == 0.37
    assert "over the 2 watched layers was at least 0.37" in note
    value, note = propose_clip_norm(0.0, ["conv1"])
    assert value == 1.0
    assert "no batch is known" in note


def rows(first: float) -> dict[str, np.ndarray]:
    """Return the statistics of a batch: the gradient of the first layer is ``first``."""
    return {
        "activation": np.ones(4),
        "gradient": np.array([first, first, 0.01, 0.01]),
        "update_ratio": np.full(4, 1e-3),
    }


def exploding(window: VerdictWindow) -> Verdict:
    [found] = [one for one in window.verdicts() if one.kind == "exploding"]
    return found


def window() -> VerdictWindow:
    made = VerdictWindow()
    coefficients = np.array([9.0, 9.0, 36.0, 36.0])
    made.update_structure(["a", "b"], np.array([0, 2, 4]), np.full(4, -1), coefficients)
    return made


def test_a_norm_from_before_the_explosion_was_forgotten_once_the_window_had_passed() -> None:
    made = window()
    for step in range(MIN_BATCHES):
        made.add(step, rows(0.02))
    assert made.verdicts() is not None  # as a page does from time to time
    for step in range(MIN_BATCHES, MIN_BATCHES + 2 * WINDOW):
        made.add(step, rows(1e6))
    found = exploding(made)
    expected = np.sqrt(9 * 2 * 0.02**2 + 36 * 2 * 0.01**2)
    assert found.clip_norm == float(f"{expected:.2g}")
    assert "before the gradient exploded" in found.clip_note
    assert found.alternatives == ("clip_gradient", "undo")


def test_a_gradient_that_explodes_from_the_start_is_clipped_at_a_common_norm() -> None:
    made = window()
    for step in range(MIN_BATCHES):
        made.add(step, rows(1e6))
    assert exploding(made).clip_norm == 1.0


def test_the_sizes_of_the_filters_are_those_of_the_structure() -> None:
    """Groups divide them; units of a linear layer have one coefficient per input."""
    verdicts = NetworkVerdicts()
    layers = [
        LayerInfo("a", "Conv2d", 4, 2, (3, 3), (1, 1), 2, [0, 1]),
        LayerInfo("b", "Linear", 10, 1, (), (), 1, [2]),
    ]
    verdicts.update_structure(None, Structure("run", 0, 0, "Net", layers))
    for step in range(MIN_BATCHES):
        values = np.array([[1, 1, 1], [1, 1, 2], [1e-3] * 3], np.float32)
        verdicts.add(
            Snapshot(
                run="run",
                version=0,
                step=step,
                epoch=0,
                batch_index=step,
                batches_per_epoch=0,
                max_epochs=0,
                time=0.0,
                loss=1.0,
                learning_rates=[],
                batches_per_second=1.0,
                statistics=["activation", "gradient", "update_ratio"],
                values=values,
            )
        )
    judgment = verdicts.frozen().judge()
    assert judgment.usual_norm == pytest.approx(np.sqrt(2 * 18 + 10 * 4))

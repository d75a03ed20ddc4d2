"""Whether clusters of filters say which networks are badly trained, on small networks.

Networks of one shape (three convs of 16, 20 and 20 filters) train for 400 steps with optimizers,
learning rates, weight decays and scales of the initialization drawn at random, from well below to
well above what works. The score is the silhouette of the last conv. Stated are the AUC with which
it finds the worst third by accuracy on the held-out images, over all networks and over those that
have left their start (‖w - w₀‖ / ‖w₀‖ of the median filter of the last conv at least
`LEFT_START`), and how many the verdict `degenerate` names on any layer, in either group.

This is no test of the published claim, which is about larger networks on photographs. It says how
far the verdict can be trusted on networks such as these.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.advice_networks import plain
from benchmarks.report import Report, progress
from revacnn_lightning.diagnostics.clusters import FilterClusterMeasures, measure_clusters
from revacnn_lightning.diagnostics.layer_verdicts import LEFT_START, LayerMeasures, judge_layer

__all__ = ["check_patterns_tell_accuracy"]

Batch = tuple[Tensor, Tensor]
NETWORKS, STEPS = 60, 400
WORST = 1 / 3
RATES = {"SGD": (3e-4, 0.3), "AdamW": (1e-5, 3e-2)}
SCALES, DECAYS = (0.3, 3.0), (1e-5, 0.1)


@dataclass(frozen=True)
class TrainedNetwork:
    """A network after its training."""

    accuracy: float
    moved: float  # of the last conv
    silhouette: float  # of the last conv
    rank: float  # effective rank of the last conv, of that of random filters
    is_named: bool  # degenerate


def check_patterns_tell_accuracy(
    report: Report, batches: list[Batch], held_out: Batch, seed: int
) -> None:
    """Train the networks; add to the report what the pattern says of their accuracy."""
    generator = np.random.default_rng(seed)
    trained = [_train(generator, batches, held_out) for _ in progress(range(NETWORKS), "patterns")]
    for name, some in (
        ("all networks", trained),
        ("those that moved", [one for one in trained if one.moved >= LEFT_START]),
    ):
        report.add_note(f"patterns, {name}: {_describe(some)}")


def _describe(trained: list[TrainedNetwork]) -> str:
    accuracy = np.array([one.accuracy for one in trained])
    is_worst = accuracy <= np.quantile(accuracy, WORST)
    silhouettes = np.array([one.silhouette for one in trained])
    ranks = np.array([one.rank for one in trained])
    named = np.array([one.is_named for one in trained])
    if is_worst.all() or not is_worst.any():
        return f"{len(trained)} networks, all of the same accuracy"
    return (
        f"{len(trained)} networks, accuracy {accuracy.min():.2f} to {accuracy.max():.2f}; "
        f"AUC of the silhouette for the worst third {roc_auc_score(is_worst, silhouettes):.2f}, of "
        f"the rank {roc_auc_score(is_worst, -ranks):.2f}; Spearman with accuracy "
        f"{spearmanr(accuracy, silhouettes)[0]:+.2f} and {spearmanr(accuracy, ranks)[0]:+.2f}; "
        f"called degenerate: {named[is_worst].sum()} of {is_worst.sum()} in the worst third, "
        f"{named[~is_worst].sum()} of {(~is_worst).sum()} others"
    )


def _train(generator: np.random.Generator, batches: list[Batch], held_out: Batch) -> TrainedNetwork:
    torch.manual_seed(int(generator.integers(2**31)))
    model = plain()
    kind = "SGD" if generator.random() < 0.5 else "AdamW"
    scale, decay = _log_uniform(generator, SCALES), _log_uniform(generator, DECAYS)
    rate = _log_uniform(generator, RATES[kind])
    convs = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    with torch.no_grad():
        for conv in convs:
            conv.weight.mul_(scale)
    start = [conv.weight.detach().clone().flatten(1) for conv in convs]
    if kind == "SGD":
        optimizer: torch.optim.Optimizer = torch.optim.SGD(
            model.parameters(), rate, momentum=0.9, weight_decay=decay
        )
    else:
        optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=decay)
    first = int(generator.integers(len(batches) - STEPS))
    for images, labels in batches[first : first + STEPS]:
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        accuracy = (model(held_out[0]).argmax(1) == held_out[1]).float().mean().item()
    measured = [_measure(c, s) for c, s in zip(convs, start, strict=True)]
    is_named = any(
        verdict.is_known
        for layer in measured
        for verdict in judge_layer("", layer, 56)
        if verdict.kind == "degenerate"
    )
    last = measured[-1]
    rank = last.effective_rank / last.random_effective_rank
    # Filters that are not finite, or all zero, have no clusters: the worst is as bad as can be.
    silhouette = last.silhouette if np.isfinite(last.silhouette) else 1.0
    return TrainedNetwork(
        accuracy, last.moved, silhouette, rank if np.isfinite(rank) else 0.0, is_named
    )


def _measure(conv: nn.Conv2d, start: Tensor) -> LayerMeasures:
    rows = conv.weight.detach().flatten(1)
    moved = float(((rows - start).norm(dim=1) / start.norm(dim=1)).median())
    clusters: FilterClusterMeasures = measure_clusters(rows.numpy())
    moved = moved if np.isfinite(moved) else float("inf")
    return LayerMeasures(len(rows), moved=moved, **vars(clusters))


def _log_uniform(generator: np.random.Generator, limits: tuple[float, float]) -> float:
    return float(np.exp(generator.uniform(*np.log(limits))))

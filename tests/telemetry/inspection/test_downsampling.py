from __future__ import annotations

import pytest
import torch
from torch import nn

from revacnn_lightning.telemetry.inspection.downsampling import project_rows_randomly, thumbnails
from revacnn_lightning.telemetry.inspection.half_precision import normalized_half


def test_wide_layer_is_sent_in_kilobytes():
    conv = nn.Conv2d(512, 512, 3)
    half = normalized_half(project_rows_randomly(conv.weight.detach().flatten(1)))
    assert half.shape == (512, 64)
    assert half.nbytes == 64 * 1024
    maps = thumbnails(torch.randn(512, 40, 40))
    assert normalized_half(maps).nbytes <= 128 * 1024


@pytest.mark.parametrize("columns", [9, 64, 65])
def test_features_share_no_memory_with_the_gradient(columns):
    rows = torch.randn(4, columns)
    before = rows.clone()
    project_rows_randomly(rows).zero_()
    assert torch.equal(rows, before)


def test_projection_preserves_distances_and_is_reproducible():
    torch.manual_seed(0)
    rows = torch.randn(40, 2000)
    random_state = torch.get_rng_state()
    projected = project_rows_randomly(rows)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert torch.equal(projected, project_rows_randomly(rows))
    ratio = torch.pdist(projected) / torch.pdist(rows)
    assert 0.5 < ratio.min() < ratio.max() < 1.5

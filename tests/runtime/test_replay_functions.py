"""The functions that a replay of a training step calls."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import warnings
import torch
from torch.nn import functional as F
from revacnn_lightning.runtime.replay_functions import make_replay_function

F.mse_loss(torch.ones(3), torch.ones(1))  # the user's own warning
make_replay_function(F.mse_loss, "mse_loss")(None, torch.ones(2), torch.ones(8, 1))
"""


def test_a_replay_on_few_samples_does_not_warn_of_their_sizes() -> None:
    result = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, check=True
    )
    assert result.stderr.count("UserWarning") == 1
    assert "torch.Size([1])" in result.stderr

"""Small networks run fastest on one thread, above all where cores are shared."""

from __future__ import annotations

import hypothesis
import pytest
import torch

# The machine may be busy with other things; how long an example takes is no matter of right.
hypothesis.settings.register_profile("steering", deadline=None)
hypothesis.settings.load_profile("steering")


@pytest.fixture(autouse=True, scope="package")
def _one_thread() -> None:
    torch.set_num_threads(1)

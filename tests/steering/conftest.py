"""Small networks run fastest on one thread, especially where cores are shared."""

from __future__ import annotations

import hypothesis
import pytest
import torch

# The machine may be busy: the duration of an example is not checked.
hypothesis.settings.register_profile("steering", deadline=None)
hypothesis.settings.load_profile("steering")


@pytest.fixture(autouse=True, scope="package")
def _one_thread() -> None:
    torch.set_num_threads(1)

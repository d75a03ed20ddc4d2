"""No test of the runtime leaves a hook of ours in the process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from torch.nn.modules import module as module_internals


@pytest.fixture(autouse=True)
def no_global_hooks_remain() -> Iterator[None]:
    yield
    assert not module_internals._global_forward_hooks

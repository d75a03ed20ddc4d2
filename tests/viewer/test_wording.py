from __future__ import annotations

import pytest

from viewer import wording


@pytest.mark.parametrize(
    ("every", "text"),
    [
        (1, ""),
        (2, "every 2nd batch"),
        (8, "every 8th batch"),
        (12, "every 12th batch"),
        (32, "every 32nd batch"),
        (64, "every 64th batch"),
    ],
)
def test_sampling(every: int, text: str) -> None:
    assert wording.sampling(every) == text

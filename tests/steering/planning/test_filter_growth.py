"""What plans of added filters are called."""

from __future__ import annotations

import pytest

from revacnn_lightning.protocol.requests import AddFilters
from revacnn_lightning.steering.planning.filter_growth import growth_title


@pytest.mark.parametrize(
    ("edit", "filters", "title"),
    [
        (AddFilters("conv1"), 1, "Add filter to conv1"),
        (AddFilters("conv1", 2), 4, "Add 4 filters to conv1"),
        (
            AddFilters("conv1", directed=True),
            1,
            "Add filter to conv1 in the direction of its growth gain",
        ),
        (AddFilters("conv1", split_from=3), 1, "Split filter 3 of conv1"),
        (AddFilters("conv1", split_from=3), 2, "Split filter 3 of conv1 (2 filters added)"),
    ],
)
def test_the_title_names_what_was_requested(edit: AddFilters, filters: int, title: str) -> None:
    """A staged Split was listed as an Add once it was applied."""
    assert growth_title(edit, filters) == title

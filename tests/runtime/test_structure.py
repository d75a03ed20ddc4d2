"""What the structure of a network says of its layers."""

from __future__ import annotations

from revacnn_lightning.runtime.structure import contract_edges


def test_edges_lead_over_layers_that_are_not_watched() -> None:
    edges = [("a", "x"), ("x", "y"), ("y", "b"), ("a", "c"), ("x", "c"), ("z", "b")]
    assert contract_edges(["a", "b", "c"], edges) == [("a", "b"), ("a", "c")]


def test_a_layer_that_is_not_watched_and_feeds_itself_ends_the_search() -> None:
    assert contract_edges(["a", "b"], [("a", "x"), ("x", "x"), ("x", "b")]) == [("a", "b")]
    assert contract_edges(["a", "b"], [("a", "a"), ("a", "b")]) == [("a", "a"), ("a", "b")]

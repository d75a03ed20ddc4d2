"""Prices, evidence, verdicts and growth gains as short JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from revacnn_lightning.client.prices import Prices
from revacnn_lightning.client.tool_results import (
    message_to_dict,
    round_array_for_json,
    round_for_json,
)
from revacnn_lightning.diagnostics.verdicts import Verdict
from revacnn_lightning.protocol.evidence import LayerEvidence
from revacnn_lightning.protocol.rank_messages import RankValues

__all__ = [
    "summarize_evidence",
    "summarize_growth_gains",
    "summarize_prices",
    "summarize_rank_differences",
    "summarize_verdicts",
]

MAX_LISTED = 50  # filters of a finding
MAX_TWINS = 10
MAX_UNKNOWN = 10  # verdicts that are not known yet


def summarize_prices(prices: Prices, count: int) -> dict[str, Any]:
    """Return the ``count`` cheapest filters, and a summary of the prices in each layer."""
    listed = [
        {"layer": layer, "filter": filter, **_price(prices, layer, filter)}
        for layer, filters in prices.cheapest(count).items()
        for filter in filters
    ]
    ranked = sorted(listed, key=lambda one: _order(one, is_measured=_is_measured(prices)))
    return {
        "step": prices.step,
        "version": prices.version,
        "cheapest": ranked,
        "layers": {layer: _layer_prices(values) for layer, values in prices.items()},
        "loss": round_for_json(prices.loss),
        "images": prices.images,
        "note": prices.note,
    }


def _price(found: Prices, layer: str, filter: int) -> dict[str, Any]:
    return {name: round_for_json(values[filter]) for name, values in found[layer].items()}


def _is_measured(found: Prices) -> bool:
    return all(bool(np.isfinite(values["change"]).all()) for values in found.values())


def _order(one: Mapping[str, Any], *, is_measured: bool) -> float:
    value = one["change" if is_measured else "estimate"]
    return math.inf if value is None else float(value)


def _layer_prices(values: Mapping[str, np.ndarray]) -> dict[str, Any]:
    changes = values["change"][np.isfinite(values["change"])]
    estimates = values["estimate"][np.isfinite(values["estimate"])]
    return {
        "filters": len(values["change"]),
        "measured": len(changes),
        "median_estimate": round_for_json(np.median(estimates)) if len(estimates) else None,
        "median_change": round_for_json(np.median(changes)) if len(changes) else None,
    }


def summarize_evidence(evidence: LayerEvidence) -> dict[str, Any]:
    """Return the evidence on a layer, with the first filters of each kind."""
    facts = message_to_dict(evidence)
    facts.pop("run")
    for name in ("provably_dead", "redundant"):
        facts[f"{name}_count"] = len(facts[name])
        facts[name] = facts[name][:MAX_LISTED]
    facts["twins_count"] = len(evidence.twins)
    facts["twins"] = [
        {
            "filters": twins.filters[:MAX_LISTED],
            "share": round_for_json(twins.share),
            "scales": round_array_for_json(twins.scales[:MAX_LISTED]),
            "change": round_for_json(twins.change),
            "error": round_for_json(twins.error),
        }
        for twins in evidence.twins[:MAX_TWINS]
    ]
    return {
        name: round_for_json(value) if isinstance(value, float) else value
        for name, value in facts.items()
    }


def summarize_verdicts(verdicts: Sequence[Verdict], count: int) -> dict[str, Any]:
    """Return the first ``count`` known verdicts, and some that are not known yet."""
    known = [one for one in verdicts if one.is_known]
    unknown = [one for one in verdicts if not one.is_known]
    return {
        "verdicts": [_verdict(one) for one in known[:count]],
        "verdicts_left_out": max(0, len(known) - count),
        "unknown": [
            {"kind": one.kind, "layer": one.layer, "reason": one.evidence}
            for one in unknown[:MAX_UNKNOWN]
        ],
        "unknown_left_out": max(0, len(unknown) - MAX_UNKNOWN),
    }


def _verdict(one: Verdict) -> dict[str, Any]:
    filters = [int(index) for index in one.filters]
    return {
        "kind": one.kind,
        "layer": one.layer,
        "filters": filters[:MAX_LISTED],
        "filter_count": len(filters),
        "evidence": one.evidence,
        "confidence": round_for_json(one.confidence),
        "remedy": one.remedy,
        "alternatives": list(one.alternatives),
        "busiest": [int(index) for index in one.busiest[:MAX_LISTED]],
        **({"clip_norm": one.clip_norm, "clip_note": one.clip_note} if one.clip_norm else {}),
        "worth": round_for_json(one.worth),
    }


def summarize_growth_gains(gains: Mapping[str, float], count: int) -> dict[str, Any]:
    """Return the ``count`` largest growth gains of layers, the largest first."""
    ordered = sorted(gains.items(), key=lambda one: -one[1])[:count]
    listed = [{"layer": layer, "gain": round_for_json(gain)} for layer, gain in ordered]
    return {"gains": listed, "layers_left_out": len(gains) - len(listed)}


def summarize_rank_differences(values: RankValues) -> dict[str, Any]:
    """Return how the ranks differ on a layer; "differences" is empty if they do not."""
    return {
        "step": values.step,
        "version": values.version,
        "layer": values.layer,
        "losses": [round_for_json(loss) for loss in values.losses],
        "differences": {str(rank): texts for rank, texts in values.differences().items()},
    }

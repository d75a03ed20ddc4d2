"""Prices, evidence, verdicts and growth gains as short JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from revacnn_lightning.client.prices import Prices
from revacnn_lightning.client.tool_results import number, numbers, plain
from revacnn_lightning.diagnostics.verdicts import Verdict
from revacnn_lightning.protocol.evidence import LayerEvidence
from revacnn_lightning.protocol.rank_messages import RankValues

__all__ = ["evidence", "growth", "prices", "ranks", "verdicts"]

MAX_LISTED = 50  # filters of a finding
MAX_TWINS = 10
MAX_UNKNOWN = 10  # verdicts that are not known yet


def prices(found: Prices, count: int) -> dict[str, Any]:
    """Return the cheapest filters, cheapest first, and the measured prices of each layer."""
    listed = [
        {"layer": layer, "filter": filter, **_price(found, layer, filter)}
        for layer, filters in found.cheapest(count).items()
        for filter in filters
    ]
    ranked = sorted(listed, key=lambda one: _order(one, is_measured=_is_measured(found)))
    return {
        "step": found.step,
        "version": found.version,
        "cheapest": ranked,
        "layers": {layer: _layer_prices(values) for layer, values in found.items()},
        "loss": number(found.loss),
        "images": found.images,
        "note": found.note,
    }


def _price(found: Prices, layer: str, filter: int) -> dict[str, Any]:
    return {name: number(values[filter]) for name, values in found[layer].items()}


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
        "median_estimate": number(np.median(estimates)) if len(estimates) else None,
        "median_change": number(np.median(changes)) if len(changes) else None,
    }


def evidence(found: LayerEvidence) -> dict[str, Any]:
    """Return what an examination of a layer has found, with the first filters of each kind."""
    facts = plain(found)
    facts.pop("run")
    for name in ("provably_dead", "redundant"):
        facts[f"{name}_count"] = len(facts[name])
        facts[name] = facts[name][:MAX_LISTED]
    facts["twins_count"] = len(found.twins)
    facts["twins"] = [
        {
            "filters": twins.filters[:MAX_LISTED],
            "share": number(twins.share),
            "scales": numbers(twins.scales[:MAX_LISTED]),
            "change": number(twins.change),
            "error": number(twins.error),
        }
        for twins in found.twins[:MAX_TWINS]
    ]
    return {
        name: number(value) if isinstance(value, float) else value for name, value in facts.items()
    }


def verdicts(found: Sequence[Verdict], count: int) -> dict[str, Any]:
    """Return the verdicts that are known, and some of those that are not known yet."""
    known = [one for one in found if one.is_known]
    unknown = [one for one in found if not one.is_known]
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
        "confidence": number(one.confidence),
        "remedy": one.remedy,
        "alternatives": list(one.alternatives),
        "busiest": [int(index) for index in one.busiest[:MAX_LISTED]],
        "worth": number(one.worth),
    }


def growth(gains: Mapping[str, float], count: int) -> dict[str, Any]:
    """Return the growth gains of the layers, the largest first."""
    ordered = sorted(gains.items(), key=lambda one: -one[1])[:count]
    listed = [{"layer": layer, "gain": number(gain)} for layer, gain in ordered]
    return {"gains": listed, "layers_left_out": len(gains) - len(listed)}


def ranks(found: RankValues) -> dict[str, Any]:
    """Return in what the ranks differ; "differences" is empty if they do not."""
    return {
        "step": found.step,
        "version": found.version,
        "layer": found.layer,
        "losses": [number(loss) for loss in found.losses],
        "differences": {str(rank): texts for rank, texts in found.differences().items()},
    }

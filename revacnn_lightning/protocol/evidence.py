"""What verdicts on a layer follow from, beside the published statistics."""

from __future__ import annotations

from msgspec import Struct, field

__all__ = ["LayerEvidence", "TwinEvidence"]

NAN = float("nan")


class TwinEvidence(Struct, frozen=True):
    """Filters whose activations are multiples of each other, the strongest first.

    ``scales`` are their activations as multiples of the first one's, as for `MergeFilters`, and
    ``share`` is the smallest R² among them. ``change`` is the change of the loss if they are merged
    with these factors, measured as that of a `RemovalPrice`; ``error`` is its standard error. Both
    are NaN if they are unknown.
    """

    filters: list[int]
    share: float
    scales: list[float]
    change: float = NAN
    error: float = NAN


class LayerEvidence(Struct, frozen=True, tag="layer_evidence"):
    """What the examination of a layer of structure ``version`` has found; NaN is unknown.

    ``provably_dead`` filters are zero for every input, and nothing that training does revives them;
    ``certificate_note`` says why no filter can be certified. ``moved`` is ‖w - w₀‖ / ‖w₀‖ since the
    first batch of the run, of the median filter. ``silhouette``, ``hopkins`` and ``effective_rank``
    describe how clustered the directions of the filters are, beside those of random filters.
    ``redundant`` filters have activations that the others explain. Of wide layers, an even sample
    of ``examined`` filters is compared.
    """

    run: str
    version: int
    step: int
    layer: str
    width: int
    provably_dead: list[int] = field(default_factory=list)
    certificate_note: str = ""
    twins: list[TwinEvidence] = field(default_factory=list)
    redundant: list[int] = field(default_factory=list)
    samples: int = 0  # activations of each filter that were compared
    examined: int = 0
    moved: float = NAN
    silhouette: float = NAN
    hopkins: float = NAN
    effective_rank: float = NAN  # of the largest possible one, 0 to 1
    random_silhouette: float = NAN
    random_effective_rank: float = NAN
    single_color: int = -1  # how many filters; -1: the layer reads no colors

"""The statistics of a filter: one number per filter and training batch.

Notation. A layer has C filters (output channels) with K coefficients w each: K = in_channels /
groups × the size of the kernel (of a transposed conv, seen from its output). The filters of a
linear layer are its units, the rows of its weight. A batch has B images and the loss L. The
*activation map* a of a filter, H×W pixels per image, is the output of the elementwise non-linearity
that follows the layer, directly or behind a normalization, where these are modules; otherwise it is
the layer's own output. The pixels of a map are the positions at which the layer computes the filter
(`unit_layers` has them of each kind of layer): all dimensions but the batch and the filters, so one
for a linear layer on (B, C), T on (B, T, C). Sums over pixels run over H×W, means over images over
B. Every statistic is float32 of shape (C,), and NaN where it was not measured.

gradient
    (1/K) Σ|∂L/∂w| over the coefficients. Unit: loss per unit of weight.
    Source: the weight's gradient after the backward pass, of this batch alone: neither accumulated
    nor clipped, with the loss scale of mixed precision divided out. Several backward passes between
    two ``zero_grad`` count as one gradient, their sum.
activation
    (1/B) Σ a over images and pixels; (1/B) Σ|a| where a is the layer's own output, which has
    both signs. Unit: that of the map.
    Source: a forward hook on the module whose output is the map.
weight_norm
    ‖w‖₂ = √Σw². Unit: that of the weights.
    Source: the weights at the end of the batch.
update_ratio
    ‖Δw‖₂ / ‖w‖₂, where Δw is the change made by the last optimizer step and w the result.
    Dimensionless; about 1e-3 in a healthy training (Karpathy, CS231n, "Ratio of weights:updates").
    NaN before the first step.
    Source: hooks around the optimizer's step.
optimizer_gradient
    (1/K) Σ|g| over the coefficients, where g is the gradient that the last optimizer step used:
    accumulated, unscaled and clipped. Unit: loss per unit of weight. NaN before the first step.
    Source: a hook after the optimizer's step.
activation_gradient
    mean of |∂L/∂a| over images and pixels. Unit: loss per unit of activation.
    Source: a gradient hook on the map; the loss scale is divided out.
firing
    share of the pixels of all images with a > 0, from 0 to 1. A filter at 0 is silent in this
    batch; it is dead if it stays silent (`revacnn_lightning.diagnostics.dead_filters`). NaN where
    the map contains NaN.
    Source: a forward hook, as for ``activation``.
signal_to_noise
    |mean| / standard deviation over the images of s = Σ ∂L/∂a over the pixels, with the unbiased
    variance. Dimensionless (defined as in Rainforth et al. 2018, "Tighter Variational Bounds Are
    Not Necessarily Better"). NaN for a single image and where nothing varies, as in a silent
    filter.
    Source: a gradient hook on the map.
price
    √((1/B) Σ s²) over the images, where s = B Σ a ∂L/∂a over the pixels: by how much the loss of
    an image changes, to first order, if the map becomes zero. Where L is the mean over the images,
    B ∂L/∂a is the gradient of the loss of one image. Unit: loss. It ranks filters by the change of
    the loss on their removal, and does not predict that change;
    `revacnn_lightning.runtime.removal_prices` measures it. The expansion is that of Molchanov et
    al. 2017, "Pruning Convolutional Neural Networks for Resource Efficient Inference"
    (arXiv:1611.06440); squares instead of their magnitude of the batch's sum, because the signs of
    the images cancel out near a minimum. NaN where something has written to the map between the
    forward and the backward pass.
    Source: a gradient hook on the map, which keeps the map until then; the loss scale is divided
    out. Cost: one product and one sum over the map.

Where a forward computes the weight from other parameters (weight norm, spectral norm, pruning mask,
weight standardization, fake quantization), w is the computed weight, which hooks receive in the
forward. Then ``weight_norm`` is that of the last forward, ``update_ratio`` that of the last
optimizer step after which a forward has computed w, and ``optimizer_gradient`` that of the
parameter which has the shape of w. So are all statistics of the weight where w cannot be observed:
in compiled regions, and in a forward of a subclass's own whose output is not that of a convolution.

A layer that is called several times in a batch has several maps, which count as further images.
What activation checkpointing recomputes in the backward pass does not count again.
"""

from __future__ import annotations

__all__ = [
    "ALWAYS_RECORDED",
    "DEFAULT_STATISTICS",
    "INSPECTION_STATISTICS",
    "MAP_GRADIENT_STATISTICS",
    "OPTIMIZER_STATISTICS",
    "REQUESTED_STATISTICS",
    "STATISTICS",
]

DEFAULT_STATISTICS = ("gradient", "activation", "weight_norm", "update_ratio")
STATISTICS = (
    *DEFAULT_STATISTICS,
    "optimizer_gradient",
    "activation_gradient",
    "firing",
    "signal_to_noise",
)

# Recorded of all layers, but only while somebody shows them: their hooks keep the maps.
REQUESTED_STATISTICS = ("price",)
# More expensive: recorded of all layers only on request, and of the layers a viewer inspects.
INSPECTION_STATISTICS = frozenset({"activation_gradient", "firing", "signal_to_noise"})
# The network view shows these two, so they are recorded on every batch, whatever they cost.
ALWAYS_RECORDED = frozenset({"gradient", "activation"})
OPTIMIZER_STATISTICS = frozenset({"update_ratio", "optimizer_gradient"})
SUMMED_GRADIENT_STATISTICS = frozenset({"activation_gradient", "signal_to_noise"})
MAP_GRADIENT_STATISTICS = SUMMED_GRADIENT_STATISTICS | {"price"}

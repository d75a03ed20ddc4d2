"""Families of aten operations that treat channels alike."""

from __future__ import annotations

__all__ = [
    "BATCH_NORMS",
    "COPIES",
    "CREATIONS",
    "NOISE",
    "POINTWISE",
    "QUERIES",
    "REDUCTIONS",
    "RESHAPES",
    "SPATIAL",
    "UNINITIALIZED",
    "VIEWS",
]


def _names(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


# Rearrange elements: the same operation on the labels gives the labels of the result.
VIEWS = _names(
    "view _unsafe_view reshape _reshape_alias permute transpose t numpy_T squeeze unsqueeze slice"
    " select split split_with_sizes chunk unbind narrow flip roll expand unfold movedim swapaxes"
    " diagonal channel_shuffle native_channel_shuffle repeat repeat_interleave"
    " index_select"
)
RESHAPES = _names("view _unsafe_view reshape _reshape_alias")
# The same elements at the same positions.
COPIES = _names(
    "clone contiguous detach alias lift_fresh _to_copy to set_data empty_like zeros_like ones_like"
    " full_like rand_like randn_like"
)
# Process the last n dimensions of each channel on its own.
SPATIAL = {
    name: int(next(c for c in name if c in "123"))
    for name in _names(
        "max_pool1d max_pool2d max_pool2d_with_indices max_pool3d_with_indices mkldnn_max_pool2d"
        " avg_pool1d avg_pool2d avg_pool3d _adaptive_avg_pool2d adaptive_avg_pool2d"
        " adaptive_avg_pool1d adaptive_max_pool2d _adaptive_avg_pool3d fractional_max_pool2d"
        " upsample_nearest1d upsample_linear1d upsample_nearest2d upsample_bilinear2d"
        " upsample_bicubic2d _upsample_nearest_exact2d _upsample_bilinear2d_aa"
        " _upsample_bicubic2d_aa reflection_pad1d reflection_pad2d replication_pad1d"
        " replication_pad2d grid_sampler_2d max_unpool2d upsample_nearest3d upsample_trilinear3d"
        " _upsample_nearest_exact1d _upsample_nearest_exact3d adaptive_max_pool3d reflection_pad3d"
        " replication_pad3d fractional_max_pool3d grid_sampler_3d max_unpool3d"
    )
}
REDUCTIONS = _names(
    "mean sum amax amin max min prod var std var_mean std_mean linalg_vector_norm norm logsumexp"
    " any all argmax argmin nansum"
)
# Pointwise, though not every version of torch tags them so.
POINTWISE = _names(
    "copy hardswish hardsigmoid native_dropout dropout _fused_dropout gelu silu leaky_relu elu"
    " hardtanh relu6 celu mish softplus where masked_fill bernoulli clamp lerp zero fill"
    " _prelu_kernel prelu rrelu_with_noise addcmul addcdiv"
)
# Fill a tensor with values that do not depend on the index.
NOISE = _names("bernoulli uniform normal zero fill exponential random")
# Create a tensor whose values do not depend on the index.
CREATIONS = _names(
    "empty zeros ones full rand randn new_empty new_zeros new_ones new_full empty_strided"
    " new_empty_strided scalar_tensor"
)
# Create a tensor that is written afterwards.
UNINITIALIZED = _names("empty new_empty")
# Return sizes and numbers, which carry no labels.
QUERIES = _names("sym_size sym_stride sym_numel is_same_size _local_scalar_dense item")
BATCH_NORMS = _names(
    "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training"
    " cudnn_batch_norm miopen_batch_norm _batch_norm_with_update _batch_norm_no_update"
    " _native_batch_norm_legit_functional batch_norm"
)

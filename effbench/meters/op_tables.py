"""What one call of an ATen op costs, element by element: the tables.

The conventions (facts: docs/measuring.md; sources: FFTW benchFFT for FFTs, XLA's HloCostAnalysis for
keeping transcendentals apart, PyTorch's flop_registry for the rest of the matrix products):

* an addition, multiplication, division, comparison, minimum or selection is 1 elementwise FLOP;
* a nonlinear function is 1 transcendental an element, plus the arithmetic around it: exp, log, tanh,
  sigmoid, erf, sqrt and pow are (0, 1); silu, x * sigmoid(x), is (1, 1);
* a reduction or a running sum is 1 for each element that goes in;
* moving, creating or drawing data is no FLOP, but bytes; views and empty allocations are nothing;
* work on integers and booleans alone is no floating-point operation;
* complex data: a multiply-add is 8, a multiplication 6, any other operation 2.
"""

from __future__ import annotations

from collections.abc import Mapping


def _names(*lines: str) -> frozenset[str]:
    """The names in some lines of text: a table of a hundred names stays readable."""
    return frozenset(" ".join(lines).split())


#: Elementwise FLOPs and transcendentals for each element of the output.
BY_OUTPUT: Mapping[str, tuple[float, float]] = {
    **dict.fromkeys(
        _names(
            "exp exp2 expm1 log log2 log10 log1p sqrt rsqrt sin cos tan asin acos atan sinh cosh asinh acosh "
            "atanh atan2 tanh sigmoid erf erfc erfinv lgamma digamma"
        ),
        (0, 1),
    ),
    "silu": (1, 1),
    "gelu": (4, 1),
    "elu": (2, 1),
    "celu": (3, 1),
    "selu": (3, 1),
    "mish": (2, 1),
    "softplus": (2, 1),
    "log_sigmoid_forward": (3, 1),
    "logit": (2, 1),
    "logaddexp": (3, 1),
    "logaddexp2": (3, 1),
    "xlogy": (1, 1),
    "sinc": (2, 1),
    "polar": (2, 2),
    "leaky_relu": (2, 0),
    "hardtanh": (2, 0),
    "hardsigmoid": (4, 0),
    "hardswish": (5, 0),
    "addcmul": (2, 0),
    "addcdiv": (2, 0),
    "lerp": (3, 0),
    "native_dropout": (2, 0),
    "tanh_backward": (3, 0),
    "sigmoid_backward": (3, 0),
    "silu_backward": (5, 1),
    "gelu_backward": (9, 2),
    "elu_backward": (3, 1),
    "mish_backward": (6, 1),
    "softplus_backward": (3, 1),
    "log_sigmoid_backward": (5, 1),
    "leaky_relu_backward": (2, 0),
    "_softmax": (4, 1),
    "softmax": (4, 1),  # its out= form is an op of its own
    "log_softmax": (4, 1),
    "masked_fill": (1, 0),  # its in-place form does not say that it is pointwise
    "_safe_softmax": (4, 1),
    "_log_softmax": (4, 1),
    "_softmax_backward_data": (4, 0),
    "_log_softmax_backward_data": (3, 1),
}

#: Elementwise FLOPs and transcendentals for each element of the first input.
BY_INPUT: Mapping[str, tuple[float, float]] = {
    **dict.fromkeys(
        _names(
            "sum nansum mean amax amin max min aminmax prod argmax argmin any all median nanmedian kthvalue "
            "mode topk cumsum cumprod cummax cummin count_nonzero trace unfold_backward "
            "embedding_dense_backward equal histc avg_pool1d avg_pool2d _adaptive_avg_pool2d"
        ),
        (1, 0),
    ),
    "logsumexp": (3, 1),
    "logcumsumexp": (3, 1),
    "linalg_vector_norm": (2, 0),
    "norm": (2, 0),
    **dict.fromkeys(("var", "var_mean", "std", "std_mean"), (4, 0)),
    "native_layer_norm": (7, 0),
    "native_group_norm": (7, 0),
    "native_batch_norm": (7, 0),
    "_native_batch_norm_legit": (7, 0),
    "_native_batch_norm_legit_no_training": (4, 0),
    "_fused_rms_norm": (4, 0),
    "native_layer_norm_backward": (14, 0),
    "native_group_norm_backward": (14, 0),
    "native_batch_norm_backward": (14, 0),
    "_fused_rms_norm_backward": (10, 0),
}

#: Traffic without work.
MOVES = _names(
    "copy clone _to_copy cat stack constant_pad_nd tril triu roll flip repeat repeat_interleave "
    "slice_backward select_backward diagonal_backward masked_select masked_scatter nonzero scatter "
    "slice_scatter select_scatter diagonal_scatter as_strided_scatter diag_embed reflection_pad1d "
    "reflection_pad2d replication_pad1d replication_pad2d im2col pixel_shuffle pixel_unshuffle "
    "channel_shuffle complex _conj_physical conj_physical _neg_view_copy lift_fresh_copy to_mkldnn "
    "_to_dense unique_dim _unique2"
)
#: Read as much as they write, not their whole source.
GATHERS = frozenset(("index", "gather", "index_select", "embedding", "take", "nll_loss_forward"))
#: Adds its source, the last tensor, into a destination.
SCATTER_ADDS = frozenset(("index_add", "scatter_add", "index_put", "_index_put_impl", "scatter_reduce"))
#: Written without being read; drawing random numbers is counted as writing.
FILLS = _names(
    "fill zero zeros ones full arange linspace logspace eye tril_indices triu_indices scalar_tensor "
    "zeros_like ones_like full_like new_zeros new_ones new_full rand randn randint randperm rand_like "
    "randn_like randint_like normal uniform bernoulli exponential random log_normal geometric cauchy "
    "multinomial nll_loss_backward"
)
#: Neither work nor traffic.
FREE = _names(
    "empty empty_like empty_strided empty_permuted new_empty new_empty_strided _local_scalar_dense "
    "is_same_size lift lift_fresh set resize resize_as record_stream _assert_async _assert_scalar "
    "_assert_tensor_metadata sym_size sym_stride sym_numel sym_storage_offset _unsafe_view"
)
#: Views that their schema does not declare as such: no new storage.
UNDECLARED_VIEWS = frozenset(("lift", "_unsafe_view", "set"))
#: Questions and marks, no ops: prim::device is what asking a fake tensor for its device comes to.
IGNORED_NAMESPACES = frozenset(("prim", "profiler"))

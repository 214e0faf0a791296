"""Closed forms of the ops that are more than one pass: matrix products, convolutions, attention, FFTs.

A multiply-add is 2 FLOPs. Work is counted as the kernel does it (padding, recomputation and the dead
half of a causal tile included); ``NEEDED`` holds what the question needs where the two differ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil, log2, prod
from typing import Any

import torch

#: FLOPs of one call: matmul, elementwise, transcendental, fft.
Work = tuple[float, float, float, float]
#: cost(op, args, kwargs, output tensors) -> Work
Cost = Callable[[Any, Any, Any, list[torch.Tensor]], Work]

#: Elementwise FLOPs and transcendentals of the epilogues that oneDNN fuses into a linear layer.
EPILOGUES: Mapping[str, tuple[int, int]] = {
    "none": (0, 0),
    "relu": (1, 0),
    "gelu": (4, 1),
    "swish": (1, 1),
    "tanh": (0, 1),
    "sigmoid": (0, 1),
}


def argument(func: Any, args: Any, kwargs: Any, name: str) -> Any:
    """An argument of an op by name, its default where it was left out, None where it has none such."""
    if name in kwargs:
        return kwargs[name]
    for place, declared in enumerate(func._schema.arguments):
        if declared.name == name:
            return args[place] if place < len(args) else declared.default_value
    return None


def _product(func: Any, args: Any, kwargs: Any, outs: list[torch.Tensor]) -> Work:
    """mm, bmm, mv, dot: as many multiply-adds for each output as the rows of the first factor are long."""
    return 2 * outs[0].numel() * args[0].shape[-1], 0, 0, 0


def _product_added(func: Any, args: Any, kwargs: Any, outs: list[torch.Tensor]) -> Work:
    """addmm, baddbmm, addmv: a product and one addition an output; addbmm sums over its batch as well."""
    count = outs[0].numel()
    batch = args[1].shape[0] if func._schema.name.startswith("aten::addbmm") else 1
    added = 0 if kwargs.get("beta", 1) == 0 else count
    return 2 * batch * count * args[1].shape[-1], added, 0, 0


def _outer_added(func: Any, args: Any, kwargs: Any, outs: list[torch.Tensor]) -> Work:
    return 2 * outs[0].numel(), 0, 0, 0


def _linear(func: Any, args: Any, kwargs: Any, outs: list[torch.Tensor]) -> Work:
    """oneDNN's and MKL's own linear layers, with bias, second operand and epilogue where they have them."""
    count = outs[0].numel()
    epilogue = argument(func, args, kwargs, "attr") or "none"
    flops, transcendentals = EPILOGUES.get(epilogue, (1, 0))
    bias = argument(func, args, kwargs, "B") is not None
    return 2 * count * args[0].shape[-1], (flops + bias) * count, transcendentals * count, 0


def _convolution(func: Any, args: Any, kwargs: Any, outs: list[torch.Tensor]) -> Work:
    """Each output (input, where transposed) meets one filter, of weight.shape[1:] whatever the groups."""
    x, weight = args[0], args[1]
    transposed = bool(argument(func, args, kwargs, "transposed"))
    taps = prod(weight.shape[1:])
    count = outs[0].numel()
    bias = argument(func, args, kwargs, "bias")
    return 2 * (x.numel() if transposed else count) * taps, count if bias is not None else 0, 0, 0


def _convolution_backward(func: Any, args: Any, kwargs: Any, outs: list[torch.Tensor]) -> Work:
    """The gradients to input and weight each cost as much as the forward pass."""
    grad, x, weight = args[0], args[1], args[2]
    transposed = bool(argument(func, args, kwargs, "transposed"))
    mask = argument(func, args, kwargs, "output_mask")
    once = 2 * (x.numel() if transposed else grad.numel()) * prod(weight.shape[1:])
    return once * (mask[0] + mask[1]), grad.numel() * mask[2], 0, 0


def causal_pairs(queries: int, keys: int) -> int:
    """Pairs (t, t') with t' <= t."""
    short = min(queries, keys)
    return short * (short + 1) // 2 + (queries - short) * keys


def cpu_causal_pairs(queries: int, keys: int) -> int:
    """Pairs that torch's CPU flash kernel works through: whole tiles up to the diagonal.

    Tile sizes as in aten/src/ATen/native/cpu/FlashAttentionKernel.cpp: 512 keys by 256, 64 or 32 queries.
    """
    rows = 256 if queries >= 768 else 64 if queries >= 192 else 32
    pairs = 0
    for start in range(0, queries, rows):
        height = min(rows, queries - start)
        pairs += height * min(ceil(min(start + height, keys) / 512) * 512, keys)
    return pairs


def _pairs(func: Any, args: Any, kwargs: Any, *, done: bool) -> int:
    q, k = argument(func, args, kwargs, "query"), argument(func, args, kwargs, "key")
    if argument(func, args, kwargs, "is_causal"):
        tiled = done and "for_cpu" in func._schema.name
        per_head = (cpu_causal_pairs if tiled else causal_pairs)(q.shape[-2], k.shape[-2])
    else:
        per_head = q.shape[-2] * k.shape[-2]
    return int(prod(q.shape[:-2])) * per_head


def _attention(done: bool) -> Cost:
    """softmax(q k' / sqrt(e)) v: 2 products, and 4 FLOPs and 1 exponential a pair (a mask adds 1)."""

    def cost(func: Any, args: Any, kwargs: Any, outs: list[torch.Tensor]) -> Work:
        pairs = _pairs(func, args, kwargs, done=done)
        masked = any(argument(func, args, kwargs, name) is not None for name in ("attn_mask", "attn_bias"))
        widths = args[0].shape[-1] + argument(func, args, kwargs, "value").shape[-1]
        return 2 * pairs * widths, (4 + masked) * pairs, pairs, 0

    return cost


def _attention_backward(done: bool) -> Cost:
    """Scores again (they are not saved), then the gradients to v, to the probabilities, to q and to k."""

    def cost(func: Any, args: Any, kwargs: Any, outs: list[torch.Tensor]) -> Work:
        pairs = _pairs(func, args, kwargs, done=done)
        e, width = (argument(func, args, kwargs, name).shape[-1] for name in ("query", "value"))
        return pairs * (6 * e + 4 * width), 6 * pairs, pairs, 0

    return cost


def _fft(per_point: float, *, of_output: bool = False) -> Cost:
    """5 N log2 N for complex data and half of it for real data (benchFFT), N: all points transformed."""

    def cost(func: Any, args: Any, kwargs: Any, outs: list[torch.Tensor]) -> Work:
        points = outs[0] if of_output else args[0]
        length = prod(points.shape[d] for d in argument(func, args, kwargs, "dim"))
        return 0, 0, 0, per_point * points.numel() * log2(max(length, 1))

    return cost


def _lstm(func: Any, args: Any, kwargs: Any, outs: list[torch.Tensor]) -> Work:
    """One layer and direction: 4 gates, and for each unit and step 5 nonlinear functions and 4 FLOPs."""
    x, to_gates, recurrent = args[0], args[1], args[2]
    steps = x.shape[0] * x.shape[1]
    units = recurrent.shape[-1]
    matmul = 2 * steps * (to_gates.numel() + recurrent.numel())
    return matmul, steps * units * (4 + 8), 5 * steps * units, 0


_SDPA = "_scaled_dot_product_"
_FORWARD = [_SDPA + kind for kind in ("flash_attention_for_cpu", "flash_attention", "efficient_attention")]
_FORWARD += [_SDPA + kind for kind in ("cudnn_attention", "fused_attention_overrideable")]
_BACKWARD = [name + "_backward" for name in _FORWARD]

COSTS: Mapping[str, Cost] = {
    **dict.fromkeys(("mm", "bmm", "mv", "dot", "vdot"), _product),
    **dict.fromkeys(("addmm", "baddbmm", "addbmm", "addmv"), _product_added),
    **dict.fromkeys(("addr", "ger"), _outer_added),
    **dict.fromkeys(("_linear_pointwise", "_mkl_linear"), _linear),
    **dict.fromkeys(("convolution", "_convolution", "convolution_overrideable"), _convolution),
    "mkldnn_convolution": _convolution,
    "convolution_backward": _convolution_backward,
    **dict.fromkeys(_FORWARD, _attention(done=True)),
    **dict.fromkeys(_BACKWARD, _attention_backward(done=True)),
    "_fft_r2c": _fft(2.5),
    "_fft_c2r": _fft(2.5, of_output=True),
    "_fft_c2c": _fft(5),
    "mkldnn_rnn_layer": _lstm,
}

NEEDED: Mapping[str, Cost] = {
    **dict.fromkeys(_FORWARD, _attention(done=False)),
    **dict.fromkeys(_BACKWARD, _attention_backward(done=False)),
}

"""Bytes that torch's kernels take for themselves while they run: in no argument, and in no result.

On the CPU, by what torch 2.13.0's own allocator is asked for; a kernel that is not named here is taken to
work in place. Left out is what oneDNN takes for products and convolutions in bfloat16 and float16, which
depends on the processor's instructions and on blocks that it chooses by itself: a product's copies are up to
as large as its result, a dense convolution's were half a megabyte a thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

#: Arguments and results of an operator -> bytes that it holds besides at its peak.
Scratch = Callable[[Sequence[Any], Sequence[torch.Tensor]], int]


def _size(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _copy(args: Sequence[Any], outs: Sequence[torch.Tensor]) -> int:
    """A contiguous copy of an input that is none."""
    return 0 if args[0].is_contiguous() else _size(args[0])


def _convolution(args: Sequence[Any], outs: Sequence[torch.Tensor]) -> int:
    """In oneDNN's own layouts: input and weights while it multiplies, and then the result."""
    x, weights = args[:2]
    if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous():
        return 2 * _size(weights)
    if _is_depthwise_half(x, weights):  # input and result at once, and the weights as they are
        return _size(x) + _size(outs[0]) + _copy(args, outs)
    return max(_size(x) + _size(weights), _size(outs[0])) + _copy(args, outs)


def _convolution_backward(args: Sequence[Any], outs: Sequence[torch.Tensor]) -> int:
    gradient, x, weights = args[:3]
    if _is_depthwise_half(x, weights):  # before the weights' gradient is there
        return _size(gradient) + _size(x) - _size(weights)
    return max(_size(gradient), _size(x)) + _size(weights)


def _exponentials_and_maxima(args: Sequence[Any], outs: Sequence[torch.Tensor]) -> int:
    return _size(args[0]) + _size(outs[0])


def _is_depthwise_half(x: torch.Tensor, weights: torch.Tensor) -> bool:
    return x.dtype == torch.float16 and weights.shape[1] == 1 and x.shape[1] > 1


#: Rows of a tile of fused attention from so many queries on; a tile has up to so many keys.
_TILE_ROWS, _TILE_KEYS = ((768, 256), (192, 64), (0, 32)), 512


def _attention(args: Sequence[Any], outs: Sequence[torch.Tensor]) -> int:
    """Of each thread a tile of scores, two sums a row, and rows of the result (FlashAttentionKernel.cpp).

    In half types the weights once more; and where the processor has tile instructions for the type, which go
    by pairs, all keys and values in their order, and of each thread a tile of keys and queries of odd width.
    """
    query, key = args[:2]
    (b, h, n, e), keys, threads = query.shape, int(key.shape[2]), torch.get_num_threads()
    rows, tile_keys = _tile(n, keys)
    wide, half = max(4, query.element_size()), query.element_size() == 2
    mine = (rows * tile_keys + 2 * rows + rows * e) * wide
    if half and _has_tile_instructions(query.dtype):
        mine += (rows * _even(tile_keys) + tile_keys * e + (rows * _even(e) if e % 2 else 0)) * 2
        return int(threads * mine + b * h * (keys * _even(e) + _even(keys) * e) * 2)
    return int(threads * (mine + rows * tile_keys * 2 * half))


def _attention_backward(args: Sequence[Any], outs: Sequence[torch.Tensor]) -> int:
    """Of each thread two tiles and a sum a row; in half types two tiles more. The gradient token by token."""
    gradient, query, key = args[:3]
    rows, tile_keys = _tile(query.shape[2], key.shape[2])
    wide = max(4, query.element_size())
    tiles = 2 * rows * tile_keys * (wide + (2 if query.element_size() == 2 else 0))
    copy = 0 if gradient.transpose(1, 2).is_contiguous() else _size(gradient)
    return int(torch.get_num_threads() * (tiles + rows * wide) + copy)


def _tile(queries: int, keys: int) -> tuple[int, int]:
    rows = next(rows for least, rows in _TILE_ROWS if queries >= least)
    return min(rows, queries), min(_TILE_KEYS, keys)


def _even(count: int) -> int:
    return count + count % 2


def _has_tile_instructions(dtype: torch.dtype) -> bool:
    known = {torch.bfloat16: "_is_amx_tile_supported", torch.float16: "_is_amx_fp16_supported"}
    return bool(getattr(torch.cpu, known[dtype], bool)())


SCRATCH: Mapping[str, Scratch] = {
    "_softmax": _copy,
    "_log_softmax": _copy,
    "native_layer_norm": _copy,
    "logsumexp": _exponentials_and_maxima,
    "convolution": _convolution,
    "convolution_backward": _convolution_backward,
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "_scaled_dot_product_flash_attention_for_cpu_backward": _attention_backward,
}

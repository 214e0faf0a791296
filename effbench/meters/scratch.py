"""Bytes that torch's kernels take for themselves while they run: in no argument, and in no result.

On the CPU, by what torch 2.13.0's own allocator is asked for; a kernel that is not named here is taken to
work in place. That of fused attention is left out: a few megabytes a thread, however long the sequence.
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


def _as_large_as_the_input(args: Sequence[Any], outs: Sequence[torch.Tensor]) -> int:
    return _size(args[0])


def _convolution(args: Sequence[Any], outs: Sequence[torch.Tensor]) -> int:
    """In oneDNN's own layouts: input and weights while it multiplies, and then the result."""
    x, weights = args[:2]
    if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous():
        return 2 * _size(weights)
    return max(_size(x) + _size(weights), _size(outs[0])) + _copy(args, outs)


def _convolution_backward(args: Sequence[Any], outs: Sequence[torch.Tensor]) -> int:
    gradient, x, weights = args[:3]
    return max(_size(gradient), _size(x)) + _size(weights)


SCRATCH: Mapping[str, Scratch] = {
    "_softmax": _copy,
    "_log_softmax": _copy,
    "native_layer_norm": _copy,
    "logsumexp": _as_large_as_the_input,  # its exponentials
    "convolution": _convolution,
    "convolution_backward": _convolution_backward,
}

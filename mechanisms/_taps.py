"""A depth-wise convolution along the tokens: every channel has taps of its own, and is a column of [b, t, c].

Tokens with their channels are an image of one row with channels last, so nothing is transposed. A GPU's or
oneDNN's convolution takes a sixth of the time of s multiply-adds over a tile in cache. What torch has besides
for a CPU, as in float64, takes sixty times as long: there the taps are added up in turn.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from effbench.mechanisms import _parts


def convolves(dtype: torch.dtype) -> bool:
    """Whether torch's convolution is the fast one on a CPU."""
    return dtype != torch.float64 and torch.backends.mkldnn.is_available()


def convolve(x: Tensor, taps: Tensor, base: Tensor) -> Tensor:
    """x [b, t + s - 1, c], taps [s, c]: row t is the sum of base and taps[i] * x[:, t + i]; [b, t, c].

    base [b, 1, c] or [b, t, c]: one row for all costs no pass of its own, since the convolution adds it.
    """
    if _by_torch(x):
        shared = base.shape[:2].numel() == 1
        bias = base.flatten() if shared else None
        total = _row(functional.conv2d(_image(x), _filters(taps), bias, groups=x.shape[2]))
        return total if shared else total.add_(base)
    rows = x.shape[1] - len(taps) + 1
    total = torch.addcmul(base, x[:, :rows], taps[0])
    for i in range(1, len(taps)):
        total.addcmul_(x[:, i : i + rows], taps[i])
    return total


def gradients(slope: Tensor, x: Tensor, taps: Tensor, of_taps: bool) -> tuple[Tensor, Tensor | None]:
    """Those of x and, if wanted, of the taps, from that of convolve's result, ``slope`` [b, t, c]."""
    if _by_torch(x):
        operands, ones = (_image(slope), _image(x), _filters(taps), None), [1, 1]
        to_x, to_taps, _ = torch.ops.aten.convolution_backward(
            *operands, ones, [0, 0], ones, False, [0, 0], x.shape[2], [True, of_taps, False]
        )
        return _row(to_x), to_taps[:, 0, 0].t() if of_taps else None
    to_x, rows, space = torch.zeros_like(x), slope.shape[1], torch.empty_like(slope)
    for i, tap in enumerate(taps):
        to_x[:, i : i + rows].addcmul_(slope, tap)
    if not of_taps:
        return to_x, None
    each = [torch.mul(slope, x[:, i : i + rows], out=space).sum((0, 1)) for i in range(len(taps))]
    return to_x, torch.stack(each)


def _by_torch(x: Tensor) -> bool:
    return not _parts.on_cpu(x) or convolves(x.dtype)


def _image(x: Tensor) -> Tensor:
    """[b, t, c] as an image with channels last, [b, c, 1, t]."""
    return x.unsqueeze(1).permute(0, 3, 1, 2)


def _row(image: Tensor) -> Tensor:
    return image.permute(0, 2, 3, 1).squeeze(1)


def _filters(taps: Tensor) -> Tensor:
    """[s, c] as conv2d has it, [c, 1, 1, s]."""
    return taps.t().contiguous()[:, None, None]

"""AFT-conv on a grid: a depth-wise convolution with exp(w) - 1 plus global pooling.

Tokens with their channels are an image with channels last, so on a CPU nothing is transposed. Operators run
slowly on a few columns of many, and yet images that outgrow the cache are convolved in slices of ``WIDTH``
channels, as all are backward, which has more to hold. A row is trusted where its denominator keeps at least
``KEPT`` of the pooled one: little was subtracted then. The others are few, whatever the keys are: their
windows hold most of all weight, so any two of them meet, so all of them share one token, which s * s
windows do.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from effbench.mechanisms import _gate, _parts, _shares

WIDTH, WIDTH_ELSEWHERE = 32, 256  # channels of a slice
LARGE = 1 << 23  # elements of values from which on forward takes slices, too, on a CPU
TILE = 1 << 18  # elements of what is divided and gated at once
KEPT = 0.125


class Plane(torch.autograd.Function):
    """q k v, kernel and gate of aft_conv: y [b, n, d], and bad [b, n, h] where it is to be computed again."""

    @staticmethod
    def forward(ctx, q, k, v, kernel, grid, gate):
        work = _Work(k, v, kernel, grid)
        means = torch.empty_like(v) if _gate.needs_mean(gate) else None
        y, split = torch.empty_like(v), work.split
        total = work.weights.sum(1, keepdim=True) * work.outside
        denominator = work.convolve(work.weights.unsqueeze(3), work.taps, total.unsqueeze(3)).squeeze(3)
        bad = denominator < (KEPT * total).clamp(min=_parts.smallest(work.wide))
        denominator.masked_fill_(bad, torch.inf)  # then these rows get no gradient here
        for heads, columns in work.slices() if work.large else [(slice(None), slice(None))]:
            found = work.convolve(*work.packed_and_pooled(heads, columns))
            for a, b in work.tiles(found):
                here = (slice(None), slice(a, b), heads, columns)
                mean = found[:, a:b].div_(denominator[:, a:b, heads, None])
                if means is not None:
                    split(means)[here] = mean
                _gate.scale(gate, split(q)[here], mean, split(y)[here])
        ctx.save_for_backward(q, k, v, kernel, y if means is None else means, denominator)
        ctx.grid, ctx.gate = grid, gate
        ctx.mark_non_differentiable(bad)
        return y, bad

    @staticmethod
    @_parts.plain_backward
    def backward(ctx, grad, _):
        q, k, v, kernel, kept, denominator = ctx.saved_tensors
        work = _Work(k, v, kernel, ctx.grid)
        to_q, to_v = torch.empty_like(q), torch.empty_like(v)
        to_weights, to_taps = torch.zeros_like(work.weights), torch.zeros_like(work.taps)
        slope = torch.zeros_like(denominator)
        for heads, columns in work.slices():
            here = (slice(None), slice(None), heads, columns)
            top = work.split(grad)[here].to(work.wide)
            wide_q = work.split(q)[here].to(work.wide)
            gated, through, work.split(to_q)[here] = _gate.backward(
                ctx.gate, wide_q, top, work.split(kept)[here]
            )
            slope[:, :, heads] -= through.sum(3)
            top = (top * gated).div_(denominator[:, :, heads, None])
            found = work.transposed(top, heads)
            if ctx.needs_input_grad[3]:
                to_taps[heads] += work.tap_gradient(top, work.packed(heads, columns))
            to_weights[:, :, heads] += (found * work.split(v)[here]).sum(3)
            work.split(to_v)[here] = found.mul_(work.weights[:, :, heads, None])
        slope = slope.div_(denominator).unsqueeze(3)
        to_weights += work.transposed(slope, slice(None)).squeeze(3)
        if ctx.needs_input_grad[3]:
            to_taps += work.tap_gradient(slope, work.weights.unsqueeze(3))
        to_kernel = to_taps * (work.taps + work.outside[:, None, None])
        return to_q, to_weights.mul_(work.weights).to(k.dtype), to_v, to_kernel.to(kernel.dtype), None, None


class _Work:
    """The pieces that forward and backward share."""

    def __init__(self, k: Tensor, v: Tensor, kernel: Tensor, grid: tuple[int, int]):
        self.heads, self.grid, self.wide = k.shape[2], grid, _parts.accumulator(v.dtype)
        self.v, self.reach = self.split(v), kernel.shape[2] // 2
        self.large = _parts.on_cpu(v) and v.numel() >= LARGE and self.v.shape[3] >= WIDTH
        self.weights = _parts.exp_keys(k, k.amax(1, keepdim=True).to(self.wide))
        base = kernel.amax((1, 2)).clamp(min=0).to(self.wide)  # exp(w) is divided by exp(base)
        self.outside = (-base).exp()
        self.taps = kernel.to(self.wide).expm1() * self.outside[:, None, None]
        large = (kernel.to(self.wide) - base[:, None, None]).exp() - self.outside[:, None, None]
        self.taps = torch.where(kernel > 1, large, self.taps)  # where expm1 might overflow

    def split(self, x: Tensor) -> Tensor:
        """[b, n, d] -> [b, n, h, e]."""
        return x.unflatten(2, (self.heads, -1))

    def slices(self) -> Iterator[tuple[slice, slice]]:
        """Heads and columns of at most WIDTH channels: several heads, or a part of one."""
        e, width = self.v.shape[3], WIDTH if _parts.on_cpu(self.v) else WIDTH_ELSEWHERE
        for a, b in _parts.tiles(self.heads, max(1, width // e)):
            for c, d in _parts.tiles(e, width):
                yield slice(a, b), slice(c, d)

    def packed(self, heads: slice, columns: slice) -> Tensor:
        """exp(k) v, [b, n, heads, columns]."""
        return self.weights[:, :, heads, None] * self.v[:, :, heads, columns]

    def tiles(self, x: Tensor) -> Iterator[tuple[int, int]]:
        """(start, stop) of the tokens of x that one step takes."""
        return _parts.tiles(
            x.shape[1], _shares.in_parts(max(1, _parts.tile_elements(x, TILE) // x[:, :1].numel()))
        )

    def packed_and_pooled(self, heads: slice, columns: slice) -> tuple[Tensor, Tensor, Tensor]:
        """exp(k) v, [b, n, heads, columns], its taps, and its sum, [b, 1, ., .], out of a row's reach."""
        weights, v = self.weights[:, :, heads, None], self.v[:, :, heads, columns]
        packed = torch.empty_like(v, dtype=self.wide, memory_format=torch.contiguous_format)
        pooled = None
        for a, b in self.tiles(v):
            part = torch.mul(weights[:, a:b], v[:, a:b], out=packed[:, a:b])
            pooled = _shares.add_over_tokens(pooled, part)
        return packed, self.taps[heads], _shares.joined(pooled).mul_(self.outside[heads, None])

    def image(self, x: Tensor) -> Tensor:
        """x [b, n, heads, columns] as an image [b, channels, height, width]: with channels last on a CPU.

        A GPU's convolution takes eight times as long with channels last.
        """
        # Not mT first: torch would not see that channels come last.
        image = x.flatten(2).unflatten(1, self.grid).permute(0, 3, 1, 2)
        return image if _parts.on_cpu(x) else image.contiguous()

    def convolve(self, x: Tensor, taps: Tensor, base: Tensor) -> Tensor:
        """x [b, n, heads, columns] by taps [heads, s, s], as conv2d has it, plus base [b, 1, heads, columns].

        Of a single image the convolution adds the base by itself.
        """
        taps = taps.repeat_interleave(x.shape[3], 0).unsqueeze(1)
        bias = base.flatten() if len(base) == 1 else None
        found = functional.conv2d(self.image(x), taps, bias, padding=self.reach, groups=len(taps))
        found = found.permute(0, 2, 3, 1).contiguous().flatten(1, 2).unflatten(2, x.shape[2:])
        return found if bias is not None else found.add_(base)

    def transposed(self, slope: Tensor, heads: slice) -> Tensor:
        """The gradient of the convolved and pooled input."""
        pooled = slope.new_ones(1, slope.shape[1]).matmul(slope.flatten(2)).unflatten(2, slope.shape[2:])
        pooled = pooled * self.outside[heads, None]
        return self.convolve(slope, self.taps[heads].flip(1, 2), pooled)

    def tap_gradient(self, slope: Tensor, x: Tensor) -> Tensor:
        """The gradient of taps [heads, s, s]."""
        s, channels = self.taps.shape[1], x.shape[2] * x.shape[3]
        taps, pad = x.new_empty(channels, 1, s, s), [self.reach] * 2
        found = torch.ops.aten.convolution_backward(
            self.image(slope),
            self.image(x),
            taps,
            None,
            [1, 1],
            pad,
            [1, 1],
            False,
            [0, 0],
            channels,
            [False, True, False],
        )[1]
        return found.view(x.shape[2], x.shape[3], s, s).sum(1)

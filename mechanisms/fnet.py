"""FNet: mixing by an unparameterised Fourier transform, along the sequence and along the width.

    y = Re(FFT_seq(FFT_hidden(x)))

The input is real, so half of the spectrum along the width is enough: of the other half only the real part is
wanted, and Re Y[t, d - c] = Re Y[-t mod n, c]. The map is linear and symmetric: it is its own gradient.

Paper: Lee-Thorp et al. 2022, arXiv:2105.03824, equation 3. No parameters, no projections, no causal form.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from effbench.mechanisms import _parts
from effbench.plugin import Complexity, Flops, Mechanism, Shape


def fourier_mix(x: Tensor) -> Tensor:
    """x [b, n, d], any n and d; half precision is computed in float32."""
    return _FourierMix.apply(x)


class _FourierMix(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        d = x.shape[-1]
        half = torch.fft.rfft(x.to(_parts.accumulator(x.dtype)), dim=2)  # [b, n, d // 2 + 1]
        half = torch.fft.fft(half, dim=1).real
        y = torch.empty_like(x)
        y[..., : d // 2 + 1] = half
        mirrored = half[..., 1 : (d + 1) // 2].flip(2)  # columns d // 2 + 1 to d - 1
        y[:, :1, d // 2 + 1 :] = mirrored[:, :1]
        y[:, 1:, d // 2 + 1 :] = mirrored[:, 1:].flip(1)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        return fourier_mix(grad)


class FNet(nn.Module):
    def __init__(self, shape: Shape, *, causal: bool = False):
        super().__init__()
        if causal:
            raise ValueError("fnet has no causal form: every output holds every token")

    def project(self, x: Tensor) -> tuple[Tensor]:
        return (x,)

    def mix(self, x: Tensor) -> Tensor:
        return fourier_mix(x)

    def combine(self, y: Tensor) -> Tensor:
        return y

    def forward(self, x: Tensor) -> Tensor:
        return self.combine(self.mix(*self.project(x)))


def reference(module: FNet, x: Tensor) -> Tensor:
    """Re(F x F) = C x C - S x S with matrices of cosines and sines."""

    def angles(n: int) -> Tensor:
        k = torch.arange(n, dtype=torch.int64)
        return (2 * math.pi / n) * (k[:, None] * k % n).to(torch.float64)

    rows, columns = angles(x.shape[1]), angles(x.shape[2])
    wide = x.to(torch.float64)
    y = rows.cos() @ wide @ columns.cos() - rows.sin() @ wide @ columns.sin()
    return y.to(x.dtype)


def flops(shape: Shape, *, causal: bool = False, mode: str = "forward") -> Flops:
    """A real transform along the width, a complex one of half the columns along the sequence."""
    b, n, d = shape.batch, shape.seq, shape.dim
    times = 2 if mode == "train" else 1
    rows = b * n * 2.5 * d * math.log2(d)
    columns = b * (d // 2 + 1) * 5 * n * math.log2(n)
    return Flops(fft=times * (rows + columns))


MECHANISM = Mechanism(
    name="fnet",
    build=FNet,
    title="FNet",
    paper="Lee-Thorp et al. 2022, arXiv:2105.03824",
    reference=reference,
    causal=(False,),
    complexity=Complexity(time="n d log n + n d log d", memory="n d"),
    flops=flops,
)

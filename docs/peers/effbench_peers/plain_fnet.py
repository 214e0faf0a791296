"""FNet as its authors' code and transformers' have it: a complex transform of real input, half thrown away.

Computes effbench's fnet. No parameters, no projections.

Formula: Lee-Thorp et al. 2022, arXiv:2105.03824, equation 3.
"""

import math

import torch
from torch import Tensor

from effbench.plugin import Complexity, Mechanism
from effbench_peers.layers import Layer


def fourier_mix(x: Tensor) -> Tensor:
    """x [b, n, d]."""
    return torch.fft.fftn(x, dim=(1, 2)).real


class PlainFNet(Layer):
    def project(self, x: Tensor) -> tuple[Tensor]:
        return (x,)

    def mix(self, x: Tensor) -> Tensor:
        return fourier_mix(x)


def build(shape, *, causal: bool) -> PlainFNet:
    return PlainFNet()


def reference(module: PlainFNet, x: Tensor) -> Tensor:
    """Re(F x F) with the discrete Fourier transform as matrices."""

    def dft(n: int) -> Tensor:
        k = torch.arange(n)
        angles = -2 * math.pi / n * (k[:, None] * k % n).double()
        return torch.polar(torch.ones_like(angles), angles)

    return (dft(x.shape[1]) @ x.to(torch.complex128) @ dft(x.shape[2])).real


MECHANISM = Mechanism(
    name="plain-fnet",
    build=build,
    title="FNet, plain torch",
    paper="Lee-Thorp et al. 2022, arXiv:2105.03824",
    reference=reference,
    causal=(False,),
    dtypes=("float32", "float64"),
    complexity=Complexity(time="n d log n + n d log d", memory="n d"),
    same_as="fnet",
)

"""AFT-conv as the paper has it: a depth-wise convolution with exp(w) - 1 plus global pooling.

Computes effbench's aft-conv with the same projections (q and v d x d, k one channel a head) and kernel
parameters. exp(w) - 1 cancels where a dominant key has a large negative w; causal, the running sum is shifted
by the largest key of the whole sequence.

Formula: Zhai et al. 2021, arXiv:2105.14103, equation 6 and its algorithm.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from effbench.plugin import Complexity, Mechanism
from effbench_peers import definitions
from effbench_peers.layers import QueryKeyValue


def aft_conv(q: Tensor, k: Tensor, v: Tensor, kernel: Tensor, *, causal: bool = False) -> Tensor:
    """q v [b, n, d]; k [b, n, h]; kernel [h, s], or [h, s, s] on a square grid of n tokens."""
    heads = k.shape[2]
    keys = (k - k.amax(1, keepdim=True)).exp().unsqueeze(3)
    both = torch.cat([keys * v.unflatten(2, (heads, -1)), keys], 3)  # [b, n, h, e + 1]
    pooled = both.cumsum(1) if causal else both.sum(1, keepdim=True)
    taps = kernel.expm1().repeat_interleave(both.shape[3], 0).unsqueeze(1)
    total = pooled + convolve(both.flatten(2), taps, causal=causal).view_as(both)
    return q.sigmoid() * (total[..., :-1] / total[..., -1:]).flatten(2)


def convolve(x: Tensor, taps: Tensor, *, causal: bool = False) -> Tensor:
    """Depth-wise along the tokens of x [b, n, c]: taps [c, 1, s], or [c, 1, s, s] on a square grid."""
    reach, channels = taps.shape[-1] // 2, x.mT
    if taps.dim() == 4:
        plane = channels.unflatten(2, (math.isqrt(x.shape[1]), -1))
        return functional.conv2d(plane, taps, padding=reach, groups=len(taps)).flatten(2).mT
    padded = functional.pad(channels, (2 * reach, 0) if causal else (reach, reach))
    return functional.conv1d(padded, taps, groups=len(taps)).mT


class PlainAFTConv(QueryKeyValue):
    def __init__(self, shape, *, causal: bool, kernel: int = 11, dims: int = 1):
        super().__init__(shape, causal=causal, key_width=shape.heads)
        self.weight = nn.Parameter(torch.randn(shape.heads, *[kernel] * dims))
        self.gamma, self.beta = (nn.Parameter(torch.zeros(shape.heads)) for _ in range(2))

    def kernel(self) -> Tensor:
        """gamma (w - mean) / std + beta, per head."""
        flat = self.weight.flatten(1)
        scaled = (flat - flat.mean(1, keepdim=True)) / flat.std(1, correction=0, keepdim=True)
        return (self.gamma[:, None] * scaled + self.beta[:, None]).view_as(self.weight)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return aft_conv(q, k, v, self.kernel(), causal=self.causal)


def reference(module: PlainAFTConv, x: Tensor) -> Tensor:
    """AFT-full of each head, with the kernel's taps laid out as a matrix."""
    q, k, v = (y.unflatten(2, (module.key.out_features, -1)) for y in module.project(x))
    w = _bias(module.kernel(), x.shape[1], causal=module.causal)
    w = w + definitions.unseen(x.shape[1], causal=module.causal)
    heads = [
        definitions.aft(q[:, :, h], k[:, :, h].expand_as(v[:, :, h]), v[:, :, h], w[h]) for h in range(len(w))
    ]
    return torch.cat(heads, -1)


def _bias(kernel: Tensor, n: int, *, causal: bool) -> Tensor:
    """w [h, n, n]: the tap at the distance of key and query, 0 out of reach."""
    s = kernel.shape[-1]
    place = torch.arange(n if kernel.dim() == 2 else math.isqrt(n))
    tap = place - place[:, None] + (s - 1 if causal else s // 2)
    padded = functional.pad(kernel, (1, 1) * (kernel.dim() - 1))  # a 0 at either end
    tap = tap.clamp(-1, s) + 1
    if kernel.dim() == 2:
        return padded[:, tap]
    return padded[:, tap[:, None, :, None], tap[None, :, None, :]].reshape(-1, n, n)


def supports(cell) -> str | None:
    if cell.options["dims"] == 1:
        return None
    if cell.causal:
        return "a grid has no causal form"
    return None if math.isqrt(cell.seq) ** 2 == cell.seq else f"{cell.seq} tokens do not fill a square grid"


MECHANISM = Mechanism(
    name="plain-aft-conv",
    build=PlainAFTConv,
    title="AFT-conv, plain torch",
    paper="Zhai et al. 2021, arXiv:2105.14103",
    reference=reference,
    complexity=Complexity(time="n s d + n d^2", memory="n d"),
    supports=supports,
    same_as="aft-conv",
)

"""torch's own depth-wise convolution, alone: no mechanism of effbench's, but a yardstick for aft-conv.

Holds the projection of v and one kernel a channel, [d, s] or [d, s, s]. At level op it gets its input as
torch's convolution likes it, channels first, so that nothing but the convolution is timed.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from effbench.plugin import Complexity, Mechanism
from effbench_peers.layers import Layer
from effbench_peers.plain_aft_conv import supports


class Depthwise(Layer):
    def __init__(self, shape, *, causal: bool, kernel: int = 11, dims: int = 1):
        super().__init__()
        self.reach, self.dims, self.causal = kernel // 2, dims, causal
        self.value = nn.Linear(shape.dim, shape.dim, bias=False)
        self.weight = nn.Parameter(torch.randn(shape.dim, 1, *[kernel] * dims) / kernel**dims)

    def project(self, x: Tensor) -> tuple[Tensor]:
        """[b, d, n], or [b, d, height, width]; causal, with room for the tokens before the first one."""
        v = self.value(x).mT
        if self.dims == 2:
            return (v.unflatten(2, (math.isqrt(v.shape[2]), -1)).contiguous(),)
        return (functional.pad(v, (2 * self.reach, 0) if self.causal else (self.reach, self.reach)),)

    def mix(self, v: Tensor) -> Tensor:
        if self.dims == 2:
            return functional.conv2d(v, self.weight, padding=self.reach, groups=len(self.weight))
        return functional.conv1d(v, self.weight, groups=len(self.weight))

    def combine(self, y: Tensor) -> Tensor:
        return y.flatten(2).mT


def reference(module: Depthwise, x: Tensor) -> Tensor:
    """Tap by tap."""
    (v,) = module.project(x)
    if module.dims == 2:
        v = functional.pad(v, (module.reach,) * 4)
    size = [side - 2 * module.reach for side in v.shape[2:]]
    y = 0
    for tap in torch.ones(module.weight.shape[2:]).nonzero().tolist():
        window = v
        for dim, (start, length) in enumerate(zip(tap, size, strict=True), start=2):
            window = window.narrow(dim, start, length)
        y = y + window * module.weight[(slice(None), 0, *tap, *[None] * module.dims)]
    return module.combine(y)


MECHANISM = Mechanism(
    name="plain-depthwise",
    build=Depthwise,
    title="depth-wise convolution alone, torch's",
    reference=reference,
    complexity=Complexity(time="n s d + n d^2", memory="n d"),
    supports=supports,
)

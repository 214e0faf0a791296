"""AFT-local as one writes it from the paper: AFT-full with w set to 0 outside the window.

Computes effbench's aft-local with the same projections (q, k, v) and position factors; costs what AFT-full
costs, whatever the window. The defaults are those of effbench's.

Formula: Zhai et al. 2021, arXiv:2105.14103, equation 4.
"""

import torch
from torch import Tensor

from effbench.plugin import Complexity, Mechanism
from effbench_peers.plain_aft_full import PlainAFTFull, reference


class PlainAFTLocal(PlainAFTFull):
    def __init__(self, shape, *, causal: bool, window: int = 256, rank: int | None = 64):
        super().__init__(shape, causal=causal, rank=rank)
        self.window = window

    def position_bias(self, n: int) -> Tensor:
        place = torch.arange(n, device=self.position.device)
        far = (place[:, None] - place).abs() >= self.window
        return super().position_bias(n).masked_fill(far, 0)


MECHANISM = Mechanism(
    name="plain-aft-local",
    build=PlainAFTLocal,
    title="AFT-local, plain torch",
    paper="Zhai et al. 2021, arXiv:2105.14103",
    reference=reference,
    complexity=Complexity(time="n^2 d + n^2 r + n d^2", memory="n^2 + n d"),
    fixed_length=True,
    same_as="aft-local",
)

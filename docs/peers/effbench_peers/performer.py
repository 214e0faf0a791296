"""performer-pytorch 1.1.4 (MIT): SelfAttention with FAVOR+ features, an approximation of softmax attention.

Holds projections q, k, v without and out with a bias. No reference: it computes none of our formulas, and the
features are drawn at random. Causal on a CPU it runs its fallback, by chunks of 128 in Python. It imports
distutils, which Python 3.12 and newer lack: there setuptools must be installed.
"""

from performer_pytorch import SelfAttention
from torch import Tensor, nn

from effbench.plugin import Complexity, Mechanism


class Performer(nn.Module):
    def __init__(self, shape, *, causal: bool):
        super().__init__()
        head = shape.dim // shape.heads
        self.attention = SelfAttention(shape.dim, heads=shape.heads, dim_head=head, causal=causal)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x)


MECHANISM = Mechanism(
    name="peer-performer",
    title="Performer, performer-pytorch",
    build=Performer,
    paper="Choromanski et al. 2021, arXiv:2009.14794",
    complexity=Complexity(time="n d^2 log d", memory="n d log d"),  # e log e features a head
)

"""x-transformers 2.31.10 (MIT): Attention, softmax attention; flash=True goes through torch's fused kernel.

Holds projections q, k, v and out without biases.
"""

from torch import Tensor, nn
from x_transformers.x_transformers import Attention

from effbench.plugin import Complexity, Mechanism
from effbench_peers import definitions
from effbench_peers.layers import split_heads


class XTransformersAttention(nn.Module):
    def __init__(self, shape, *, causal: bool, flash: bool = True):
        super().__init__()
        self.causal, self.heads = causal, shape.heads
        head = shape.dim // shape.heads
        self.attention = Attention(shape.dim, dim_head=head, heads=shape.heads, causal=causal, flash=flash)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x)


def reference(module: XTransformersAttention, x: Tensor) -> Tensor:
    inner = module.attention
    q, k, v = (split_heads(project(x), module.heads) for project in (inner.to_q, inner.to_k, inner.to_v))
    y = definitions.attention(q, k, v, definitions.unseen(x.shape[1], causal=module.causal))
    return inner.to_out(y.transpose(1, 2).flatten(2))


MECHANISM = Mechanism(
    name="peer-x-transformers",
    title="MHA, x-transformers",
    build=XTransformersAttention,
    paper="Vaswani et al. 2017, arXiv:1706.03762",
    reference=reference,
    complexity=Complexity(time="n^2 d + n d^2", memory="n d"),
)

"""linear-attention-transformer 0.19.1 (MIT): SelfAttention with linear attention in every head.

Holds projections q, k, v without and out with a bias. Its feature maps are softmaxes, of q over the width and
of k over the sequence; causal, exp(k) and a running sum (``blindspot_size`` 1, its default: every state).
"""

import torch
from linear_attention_transformer.linear_attention_transformer import SelfAttention
from torch import Tensor, nn

from effbench.plugin import Complexity, Mechanism
from effbench_peers import definitions
from effbench_peers.layers import split_heads


class LinearAttentionTransformer(nn.Module):
    def __init__(self, shape, *, causal: bool):
        super().__init__()
        self.causal = causal
        self.attention = SelfAttention(shape.dim, shape.heads, causal=causal)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x)


def reference(module: LinearAttentionTransformer, x: Tensor) -> Tensor:
    """Its own formulas, in log space where it has an exponential."""
    inner = module.attention
    q, k, v = (split_heads(project(x), inner.heads) for project in (inner.to_q, inner.to_k, inner.to_v))
    q = q.log_softmax(-1)
    if module.causal:
        logits = torch.full((*q.shape[:3], q.shape[2]), -torch.inf, dtype=q.dtype)
        for c in range(q.shape[3]):
            logits = torch.logaddexp(logits, q[..., :, None, c] + k[..., None, :, c])
        y = definitions.average(logits + definitions.unseen(x.shape[1], causal=True), v)
    else:
        y = q.exp() @ (k.softmax(2).mT @ v) * q.shape[3] ** -0.5
    return inner.to_out(y.transpose(1, 2).flatten(2))


MECHANISM = Mechanism(
    name="peer-linear-attention-transformer",
    title="Linear attention, linear-attention-transformer",
    build=LinearAttentionTransformer,
    paper="Shen et al. 2021, arXiv:1812.01243",
    reference=reference,
    complexity=Complexity(time="n d^2", memory="n d"),
)

"""The printed formulas in log space, slow and obvious: what the wrappers' ``reference`` is made of."""

import torch
from torch import Tensor


def average(logits: Tensor, v: Tensor) -> Tensor:
    """Rows of softmax(logits [..., t, s]) times v [..., s, e]."""
    return (logits - logits.logsumexp(-1, keepdim=True)).exp() @ v


def aft(q: Tensor, k: Tensor, v: Tensor, w: Tensor) -> Tensor:
    """AFT, channel by channel: q k v [b, n, d], w [n, n] with -inf where a query does not see a key."""
    channels = [average(k[:, None, :, c] + w, v[..., c, None]) for c in range(v.shape[2])]
    return q.sigmoid() * torch.cat(channels, -1)


def linear_attention(q: Tensor, k: Tensor, v: Tensor, w: Tensor) -> Tensor:
    """elu + 1 as feature map: q k v [b, h, n, e], w as in ``aft``."""
    # log(elu(x) + 1), without its cancellation
    q, k = (torch.where(x > 0, x.relu().log1p(), -(-x).relu()) for x in (q, k))
    logits = torch.full((*q.shape[:3], k.shape[2]), -torch.inf, dtype=q.dtype)
    for c in range(q.shape[3]):
        logits = torch.logaddexp(logits, q[..., :, None, c] + k[..., None, :, c])
    return average(logits + w, v)


def attention(q: Tensor, k: Tensor, v: Tensor, w: Tensor) -> Tensor:
    """Softmax attention: q k v [b, h, n, e], w as in ``aft``."""
    return average(q @ k.mT * q.shape[-1] ** -0.5 + w, v)


def unseen(n: int, *, causal: bool) -> Tensor:
    """w [n, n] of a mechanism without a position bias: -inf for keys after the query where causal."""
    w = torch.zeros(n, n, dtype=torch.float64)
    return w.masked_fill(torch.ones(n, n, dtype=torch.bool).triu(1), -torch.inf) if causal else w

"""The operators that mechanisms are made of, once each: the first of a kind takes torch a millisecond.

For fake tensors, which have no values: nothing is computed.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

_B, _H, _N, _D = 1, 2, 4, 4


def run(*, backward: bool) -> None:
    """A pass over all of them, and back where a thread of autograd's own would not be started for it."""
    x = _attended(nn.Linear(_D, _D)(torch.randn(_B, _N, _D)))
    result = _mapped(_viewed(x)).sum() + _reduced(x).sum() + _convolved(x).sum() + _transformed(x).sum()
    if backward:
        result.backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        _masked(x)
        _in_place(x)
        _into(x)


def _attended(x: torch.Tensor) -> torch.Tensor:
    heads = x.view(_B, _N, _H, _D // _H).transpose(1, 2)
    weights = (heads @ heads.transpose(-2, -1) * 0.5).softmax(-1)
    fused = functional.scaled_dot_product_attention(heads, heads, heads)
    return (weights @ heads + fused).transpose(1, 2).reshape(_B, _N, _D)


def _viewed(x: torch.Tensor) -> torch.Tensor:
    first, second = torch.split(x, _D // 2, -1)
    third, fourth = torch.split(x, [1, _N - 1], 1)
    y = torch.cat([first, second], -1).permute(0, 2, 1).contiguous().mT
    z = torch.stack(third.squeeze(1).unbind(0)).unsqueeze(0).expand(_B, _N, _D)
    return y + z + fourth[:, :1].flip(1) + x[:, 0].unsqueeze(1).clone()


def _mapped(x: torch.Tensor) -> torch.Tensor:
    y = torch.sigmoid(x) * x.exp() / (x - x.amax(1, keepdim=True)).exp().sum(1, keepdim=True)
    y = y + torch.relu(x) - torch.tanh(x) + 1 - (2 - x) * 0.5 + functional.gelu(x) + functional.elu(x)
    y = y / 2 + torch.maximum(x, y) + x.abs().log() - (-x).clamp(min=0.0) + (x * x).sqrt() + x.square()
    return torch.where(x > 0, x, y).masked_fill(x.le(0), 0.0) + torch.addcmul(x, x, y)


def _reduced(x: torch.Tensor) -> torch.Tensor:
    norms = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    y = functional.layer_norm(x, (_D,)) + norms + x.mean(-1, keepdim=True) + x.logsumexp(-1, keepdim=True)
    running: torch.Tensor = y + x.cumsum(1) + torch.cummax(x, 1)[0]
    return running + x.sum()


def _convolved(x: torch.Tensor) -> torch.Tensor:
    taps = torch.ones(_D, 1, 3)
    return torch.conv1d(x.mT, taps, padding=1, groups=_D).mT


def _transformed(x: torch.Tensor) -> torch.Tensor:
    return torch.view_as_real(torch.fft.fft(torch.fft.fft(x.detach(), dim=-1), dim=-2))[..., 0]


def _masked(x: torch.Tensor) -> None:
    seen = torch.ones(_N, _N, dtype=torch.bool).tril()
    later = torch.full((_N, _N), -torch.inf).triu(1)
    positions = torch.arange(_N)
    near = (positions[:, None] - positions).abs() < 2
    (seen & near | ~seen).any()
    (positions >= 1, positions > 1, positions <= 1, positions.eq(1), positions.ne(positions))
    torch.isfinite(later).all()
    x.floor().to(torch.float64).to(x.dtype)


def _in_place(x: torch.Tensor) -> None:
    y = torch.zeros_like(x).copy_(x).add_(x).sub_(x).mul_(x).mul_(2.0).div_(x).addcmul_(x, x)
    y.exp_().log_().exp2_().neg_().clamp_(min=0.0).masked_fill_(x > 0, 0.0).zero_()
    y.new_zeros(_N, _N).triu_(), y.new_empty(_N, _N).tril_().fill_(1.0), torch.empty_like(y)
    y.as_strided((_B, _N), (_N, 1))


def _into(x: torch.Tensor) -> None:
    square = x[0].mT @ x[0]
    batch = square.expand(_H, _D, _D).contiguous()
    torch.mm(square, square, out=torch.empty_like(square))
    torch.addmm(square, square, square, out=torch.empty_like(square))
    torch.bmm(batch, batch, out=torch.empty_like(batch))
    torch.baddbmm(batch, batch, batch, out=torch.empty_like(batch))
    for function in (torch.mul, torch.sub, torch.div):
        function(square, square, out=torch.empty_like(square))
    torch.exp(square, out=torch.empty_like(square))
    torch.softmax(square, -1, out=torch.empty_like(square))

"""AFT-local: AFT-full whose position bias counts within a window only.

    y_t = sigmoid(q_t) * sum_s exp(k_s + w_ts) v_s / sum_s exp(k_s + w_ts)
    w_ts = 0 where abs(t - s) >= window                                         causal: s <= t

Outside the window a pair still counts, with weight exp(k): the window bounds the bias, not the view. A window
of 0 is AFT-simple, one of n or more AFT-full. The default, 256, is the window of the paper's image models
(table 2); its text models use 32.

Paper: Zhai et al. 2021, arXiv:2105.14103, equation 4. Wq, Wk, Wv and no output projection, as in AFT-full.

The sums are those over the keys out of reach of a whole tile of rows (plain sums, before and after it) and a
band of exp(w). The shorter "all plus a band of exp(w) - 1" cancels where a dominant key has a very negative
bias.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from effbench.mechanisms import _aft, _gate, _tiles
from effbench.mechanisms.aft_full import AFTFull, reference
from effbench.mechanisms.aft_full import flops as flops_full
from effbench.plugin import Complexity, Flops, Mechanism, Shape


def aft_local(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    position_bias: _aft.Bias,
    *,
    window: int,
    causal: bool = False,
    gate: _gate.Gate = torch.sigmoid,
) -> Tensor:
    """As aft_full, with a bias of 0 (not -inf) where abs(t - s) >= window."""
    return _aft.position_weighted(q, k, v, position_bias, window=window, causal=causal, gate=gate)


class AFTLocal(AFTFull):
    def __init__(
        self,
        shape: Shape,
        *,
        causal: bool = False,
        window: int = 256,
        rank: int | None = 64,
        gate: str = "sigmoid",
    ):
        if not isinstance(window, int) or window < 0:
            raise ValueError(f"window {window!r}: a whole number is accepted, 0 (no bias) or more")
        super().__init__(shape, causal=causal, rank=rank, gate=gate)
        self.window = window

    def mix(self, q: Tensor, k: Tensor, v: Tensor, position_bias: _aft.Bias | None = None) -> Tensor:
        bias = self.position_bias(q.shape[1]) if position_bias is None else position_bias
        return aft_local(q, k, v, bias, window=self.window, causal=self.causal, gate=self.gate)


def flops(
    shape: Shape,
    *,
    causal: bool = False,
    mode: str = "forward",
    window: int = 256,
    rank: int | None = 64,
    gate: str = "sigmoid",
    pairs: Callable[..., int] = _tiles.pairs,
) -> Flops:
    return flops_full(shape, causal=causal, mode=mode, rank=rank, gate=gate, window=window, pairs=pairs)


MECHANISM = Mechanism(
    name="aft-local",
    build=AFTLocal,
    title="AFT-local",
    paper="Zhai et al. 2021, arXiv:2105.14103",
    reference=reference,
    complexity=Complexity(time="n s d + n s r + n d^2", memory="n d + n r"),
    flops=flops,
    needed=partial(flops, pairs=_tiles.visible_pairs),
    fixed_length=True,
    positional=True,
)

"""Multi-head softmax attention decoded without a cache: one more token costs a pass over the whole prefix.

A whole sequence goes through torch's fused kernel, as in ``mha-sdpa``. Decoding keeps the tokens and nothing
made of them: what a model costs that is called anew for every token, and the baseline of the largest factors
in print (4,462 times in Katharopoulos et al. 2020, arXiv:2006.16236, where a cache leaves 56).

Paper: Vaswani et al. 2017, arXiv:1706.03762.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from effbench.mechanisms import _decode, mha_sdpa
from effbench.plugin import Flops, Shape


class RecomputedAttention(mha_sdpa.FusedAttention):
    def prefill(self, x: Tensor) -> _decode.Rows:
        """The tokens x [b, n, d] themselves."""
        self._check_causal()
        return _decode.Rows.hold(x, dim=1)

    def step(self, x: Tensor, state: _decode.Rows) -> tuple[Tensor, _decode.Rows]:
        """The last row [b, d] of the whole pass over the tokens and x [b, d]."""
        self._check_causal()
        state = state.append(x.unsqueeze(1))
        with torch.no_grad():
            return self(*state.held())[:, -1], state


def step_flops(shape: Shape) -> Flops:
    """A whole pass over the ``shape.seq`` tokens and one more."""
    return mha_sdpa.flops(replace(shape, seq=shape.seq + 1), causal=True)


MECHANISM = replace(
    mha_sdpa.MECHANISM,
    name="mha-recompute",
    build=RecomputedAttention,
    step_flops=step_flops,
    title="MHA, decoded without a cache",
)

"""The mean of the tokens so far: causal only, no parameters."""

import torch
from torch import nn

from effbench.plugin import Complexity, Mechanism
from effbench_decay.kernel import running_average


class Decay(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return running_average(x)


def build(shape, *, causal):
    return Decay()


def reference(module, x):
    return torch.stack([x[:, : t + 1].mean(1) for t in range(x.shape[1])], dim=1)


MECHANISM = Mechanism(
    name="decay",
    title="Running mean",
    build=build,
    reference=reference,
    causal=(True,),
    complexity=Complexity(time="n d", memory="n d"),
)

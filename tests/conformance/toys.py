"""A sound toy that keeps every law, and saboteurs: the same toy with one thing broken each.

    y_t = sigmoid(q_t) * sum_s exp(k_s + w_ts) v_s / sum_s exp(k_s + w_ts)

Many of the saboteurs make a mistake that was found in a published implementation.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from effbench.plugin import Complexity, Flops, Mechanism


class Toy(nn.Module):
    def __init__(self, shape, causal):
        super().__init__()
        self.causal, self.length = causal, shape.seq
        self.query, self.key, self.value = (nn.Linear(shape.dim, shape.dim, bias=False) for _ in range(3))
        self.position = nn.Parameter(torch.randn(shape.seq, shape.seq))

    def bias(self, n):
        return self.position[:n, :n]

    def check(self, n):
        if n > self.length:
            raise ValueError(f"built for {self.length} tokens and given {n}")

    def logits(self, k):
        """k [b, n, d] -> [b, t, s, d]."""
        return k.unsqueeze(1) + self.bias(k.shape[1])[:, :, None]

    def average(self, logits, v):
        """[b, t, s, d] and [b, s, d] -> [b, t, d]."""
        if self.causal:
            future = torch.ones(logits.shape[1:3], dtype=torch.bool).triu(1)
            logits = logits.masked_fill(future[:, :, None], -torch.inf)
        return (logits.softmax(2) * v.unsqueeze(1)).sum(2)

    def forward(self, x):
        self.check(x.shape[1])
        mean = self.average(self.logits(self.key(x)), self.value(x))
        return self.query(x).sigmoid() * mean

    def initial_state(self, batch):
        empty = self.key.weight.new_zeros(batch, 0, self.key.weight.shape[0])
        return empty, empty

    def prefill(self, x):
        return self.key(x), self.value(x)

    def step(self, x, state):
        k, v = (
            torch.cat([old, new(x)[:, None]], 1)
            for old, new in zip(state, (self.key, self.value), strict=True)
        )
        t = k.shape[1] - 1
        weights = (k + self.bias(t + 1)[t, :, None]).softmax(1)
        return self.query(x).sigmoid() * (weights * v).sum(1), (k, v)


def seen(weights):
    """[b, t, s, d] with 0 for s > t."""
    return weights.permute(0, 3, 1, 2).tril().permute(0, 2, 3, 1)


def reference(module, x):
    """Row by row, in log space."""
    k, v, rows = x @ module.key.weight.T, x @ module.value.weight.T, []
    for t in range(x.shape[1]):
        last = t + 1 if module.causal else x.shape[1]
        logits = k[:, :last] + module.position[t, :last, None]
        weights = torch.exp(logits - logits.logsumexp(1, keepdim=True))
        rows.append((weights * v[:, :last]).sum(1))
    return torch.sigmoid(x @ module.query.weight.T) * torch.stack(rows, 1)


def flops(shape, *, causal, mode):
    return Flops(matmul=3 * 2 * shape.batch * shape.seq * shape.dim**2 * (3 if mode == "train" else 1))


def declared(module, **changes):
    fields = {
        "name": module.__name__,
        "build": lambda shape, *, causal: module(shape, causal),
        "reference": reference,
        "complexity": Complexity(time="n^2 d + n d^2", memory="n^2 d"),
        "flops": flops,
        "fixed_length": True,
    }
    return Mechanism(**{**fields, **changes})


class WidensHalf(Toy):
    def forward(self, x):
        return super().forward(x).float() if x.dtype == torch.bfloat16 else super().forward(x)


class WritesIntoItsInput(Toy):
    def forward(self, x):
        x.detach().mul_(1.001)
        return super().forward(x)


class DropsInEval(Toy):
    def forward(self, x):
        return functional.dropout(super().forward(x), 0.1, training=True)


class SeedsItself(Toy):
    def __init__(self, shape, causal):
        super().__init__(shape, causal)
        generator = torch.Generator()
        generator.seed()
        self.position = nn.Parameter(torch.randn(shape.seq, shape.seq, generator=generator))


class RebuildsItsParameter(Toy):
    """Not the object that the optimiser holds: it never trains."""

    def forward(self, x):
        self.position = nn.Parameter(self.position.detach().clone())
        return super().forward(x)


class ForgetsAParameter(Toy):
    def bias(self, n):
        return super().bias(n).detach()


class RegistersNothing(Toy):
    """A map in a plain tensor: not trained, not saved."""

    def __init__(self, shape, causal):
        super().__init__(shape, causal)
        del self.position
        self.position = torch.randn(shape.seq, shape.seq)


class BroadcastsTooLong(Toy):
    def check(self, n):
        pass


class SlicesForShorter(Toy):
    """The map of another place for a shorter input, as a sliced DFT matrix is no DFT."""

    def bias(self, n):
        return self.position[-n:, -n:]


class ShiftsByTheBatch(Toy):
    def logits(self, k):
        return super().logits(k * (1 + 0.01 * k.detach().amax(0)))


class ShiftsByTheLargestKeyOfAll(Toy):
    """The future decides what underflows, in the causal form too: 0/0 for early tokens."""

    def average(self, logits, v):
        if not self.causal:
            return super().average(logits, v)
        weights = seen((logits - logits.detach().amax(2, keepdim=True)).exp())
        return (weights * v.unsqueeze(1)).sum(2) / weights.sum(2)


class ShiftsByTheLargestKeyAndSoftmax(Toy):
    """Right but for the last bits, which the future decides."""

    def logits(self, k):
        return super().logits(k - k.detach().amax(1, keepdim=True))


class NeverMixes(Toy):
    """No sum over t'."""

    def average(self, logits, v):
        return v


class AlwaysCausal(Toy):
    def average(self, logits, v):
        held, self.causal = self.causal, True
        y = super().average(logits, v)
        self.causal = held
        return y


class MultipliesKeyAndBias(Toy):
    def logits(self, k):
        return k.unsqueeze(1) * self.bias(k.shape[1])[:, :, None]


class WeighsByTheKeyItself(Toy):
    """k where exp(k) belongs."""

    def average(self, logits, v):
        weights = seen(logits) if self.causal else logits
        return (weights * v.unsqueeze(1)).sum(2) / weights.sum(2)


class NormalisesByItsOwnPrefix(Toy):
    """cumsum(e v / cumsum(e)): the first token is right."""

    def average(self, logits, v):
        if not self.causal:
            return super().average(logits, v)
        weights = logits.diagonal(dim1=1, dim2=2).mT.exp()
        return (weights * v / weights.cumsum(1)).cumsum(1)


class WrongAfterAThousand(Toy):
    def forward(self, x):
        y = super().forward(x)
        return torch.cat([y[:, :1000], 2 * y[:, 1000:]], 1)


class CoarseInHalf(Toy):
    def forward(self, x):
        return super().forward(x) * (1.2 if x.dtype == torch.bfloat16 else 1.0)


class ExponentiatesUnshifted(Toy):
    def average(self, logits, v):
        weights = seen(logits.exp()) if self.causal else logits.exp()
        return (weights * v.unsqueeze(1)).sum(2) / weights.sum(2)


class HalvesAGradient(Toy):
    def forward(self, x):
        y = super().forward(x)
        return 0.5 * y + 0.5 * y.detach()


class StepsWithoutBias(Toy):
    def step(self, x, state):
        _, (k, v) = super().step(x, state)
        return self.query(x).sigmoid() * (k.softmax(1) * v).sum(1), (k, v)


SOUND = declared(Toy)

#: (the law that must reject it, the saboteur); every law has one at least.
SABOTEURS = [
    ("shape_dtype_and_device_are_kept", declared(WidensHalf)),
    ("input_is_untouched", declared(WritesIntoItsInput)),
    ("deterministic_in_eval", declared(DropsInEval)),
    ("same_seed_same_weights", declared(SeedsItself)),
    ("parameters_stay_the_same_objects", declared(RebuildsItsParameter)),
    ("every_parameter_gets_a_gradient", declared(ForgetsAParameter)),
    ("an_optimiser_step_trains_every_parameter", declared(RebuildsItsParameter)),
    ("state_dict_round_trip", declared(RegistersNothing)),
    ("other_lengths_are_answered_or_refused", declared(BroadcastsTooLong)),
    ("other_lengths_are_answered_or_refused", declared(SlicesForShorter)),
    ("rows_of_a_batch_do_not_talk", declared(ShiftsByTheBatch)),
    ("future_is_invisible", declared(ShiftsByTheLargestKeyOfAll)),
    ("future_is_invisible_to_the_bit", declared(ShiftsByTheLargestKeyAndSoftmax)),
    ("past_is_visible", declared(NeverMixes)),
    ("every_token_is_visible", declared(AlwaysCausal)),
    ("equals_reference", declared(MultipliesKeyAndBias)),
    ("equals_reference", declared(WeighsByTheKeyItself)),
    ("equals_reference", declared(NormalisesByItsOwnPrefix)),
    ("equals_reference", declared(NeverMixes)),
    ("equals_reference", declared(WrongAfterAThousand)),
    ("equals_reference_in_every_dtype", declared(CoarseInHalf)),
    ("equals_reference_at_large_inputs", declared(ExponentiatesUnshifted)),
    ("gradients_equal_the_references", declared(HalvesAGradient)),
    ("passes_gradcheck", declared(HalvesAGradient)),
    ("finite_for_large_inputs", declared(ExponentiatesUnshifted)),
    ("finite_when_late_tokens_dwarf_early_ones", declared(ShiftsByTheLargestKeyOfAll)),
    ("step_equals_forward", declared(StepsWithoutBias)),
    ("memory_grows_as_declared", declared(Toy, complexity=Complexity(time="n^2 d", memory="n d"))),
    ("counted_flops_equal_the_closed_form", declared(Toy, flops=lambda shape, **_: Flops(matmul=1e6))),
    ("counted_flops_equal_the_closed_form", declared(Toy, step_flops=lambda shape: Flops(matmul=1e6))),
]

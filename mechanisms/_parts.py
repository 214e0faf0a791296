"""What several mechanisms compute in the same way: heads, stable exponentials, sums by tiles.

``b`` batch, ``n`` length, ``d`` width, ``h`` heads, ``e = d/h``. Sums are kept in float32 or better.

Why shifts look as they do. A weighted average with weights exp(k) may subtract any m from k; the largest k
that a row sees is the safe one, but in causal form every row sees another one, and the future must not
change a row by a single bit. So a tile of rows shares a shift that depends only on keys which all its rows
see, taken in steps of ``STEP`` so that it hardly ever moves; the rows for which it will not do (their own
tile holds a key ``REACH`` above it, or their denominator underflows) are found and done again in log
space, each by itself (``rescue``). They are rare, and no other row notices.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd.function import once_differentiable
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils.checkpoint import checkpoint

from effbench import products
from effbench.plugin import Shape

STEP = 16.0  # a causal shift moves by multiples of this
REACH = 40.0  # and a key may exceed the shift by this much: exp(40) leaves float32 room for sums
LOG2_E = 1 / math.log(2)
RESCUED = 1 << 21  # elements that one step of a rescue holds
TILES, LITTLE = 2, 1 << 24  # on a GPU: tiles of a sequence, and elements too few to be cut


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[b, n, d] -> [b, h, n, e]."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """[b, h, n, e] -> [b, n, d]."""
    return x.transpose(1, 2).flatten(2)


class Mixer(nn.Module):
    """A layer that projects every token alone (q, k and v), mixes the tokens, and combines what it gets."""

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear

    def project(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(products.linear(x, layer.weight) for layer in (self.query, self.key, self.value))

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        raise NotImplementedError

    def combine(self, y: Tensor) -> Tensor:
        return y

    def forward(self, x: Tensor) -> Tensor:
        return self.combine(self.mix(*self.project(x)))


class MultiHead(Mixer):
    """The layer of multi-head attention: projections q, k and v by heads, ``mix``, a projection out."""

    def __init__(self, shape: Shape, *, causal: bool = False):
        super().__init__()
        self.causal, self.heads = causal, shape.heads
        self.query, self.key, self.value, self.out = (
            nn.Linear(shape.dim, shape.dim, bias=False) for _ in range(4)
        )

    def project(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(split_heads(y, self.heads) for y in super().project(x))

    def combine(self, y: Tensor) -> Tensor:
        return products.linear(merge_heads(y), self.out.weight)


def spread(x: Tensor, groups: int) -> Tensor:
    """x [groups or fewer, ...] for each group: group i takes part i modulo their number."""
    held = x.shape[0]  # len(x) takes ten times as long
    return x if held == groups else x.repeat(groups // held, *[1] * (x.dim() - 1))


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which sums over inputs of this dtype are kept."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def factors(x: Tensor) -> torch.dtype:
    """The dtype of the factors of large products over x, whose sums are in the accumulator's."""
    return x.dtype if products.widens(x) else accumulator(x.dtype)


def smallest(dtype: torch.dtype) -> float:
    """A denominator below this may have lost terms to underflow."""
    return 1e-280 if dtype == torch.float64 else 1e-18


def check_length(n: int, built: int) -> None:
    """Parameters sized by the sequence answer any shorter one, and no longer one."""
    if n > built:
        raise ValueError(f"this module was built for sequences of at most {built} tokens and was given {n}")


def all_pairs(n: int, *, causal: bool) -> int:
    """Pairs of tokens, the future's among them."""
    return n * n


def visible_pairs(n: int, *, causal: bool) -> int:
    """Pairs of a token and a token that it sees: what a definition needs, whatever tiles hold."""
    return n * (n + 1) // 2 if causal else n * n


def on_cpu(x: Tensor) -> bool:
    """Whether small tiles pay: elsewhere an operation is a launch, and a look at values stops the device."""
    return x.device.type == "cpu"


def tile_elements(x: Tensor, in_cache: int, tiles: int = TILES) -> int:
    """Elements of a tile of something like x: what stays in a CPU's cache; on a GPU x makes so many tiles.

    Few, since an operation on each is a launch, and more than one, since what is made of a tile takes memory.
    """
    return in_cache if on_cpu(x) else max(in_cache, LITTLE, -(-x.numel() // tiles))


def occurs(flags: Tensor) -> bool:
    """Whether a rare case arises: one look at the values, where there are values to look at."""
    if isinstance(flags, FakeTensor) or flags.is_meta or torch.compiler.is_compiling():
        return False
    return bool(flags.any())


def outside(x: Tensor, low: float, high: float) -> bool:
    """Whether the one value x is not within the bounds or not a number: a look without operations."""
    if isinstance(x, FakeTensor) or x.is_meta or torch.compiler.is_compiling():
        return False
    return not low <= x.item() <= high


class _Unrecorded:
    """What a forward pass is given to keep things in where no backward pass will ask for them."""

    def save_for_backward(self, *tensors: Any) -> None:
        pass

    mark_non_differentiable = save_for_backward


def apply(function: type[torch.autograd.Function], *args: Any) -> Any:
    """function.apply(*args); where nothing asks for a gradient, without what autograd takes by itself.

    That is some microseconds, a tenth of a short pass.
    """
    if torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in args):
        return function.apply(*args)
    return function.forward(_Unrecorded(), *args)


def eager(operator: Callable[..., Any]) -> Callable[..., Any]:
    """An operator that looks at values: it breaks torch.compile's graph and takes no part in autocast.

    Its products are as exact as its first argument, a tensor.
    """

    uncompiled: list[Callable[..., Any]] = []  # made on demand: it imports a second's worth of modules

    @functools.wraps(operator)
    def run(*args: Any, **options: Any) -> Any:
        if torch.compiler.is_compiling():
            if not uncompiled:  # a list and no functools.cache, which the compiler passes by at every call
                uncompiled.append(torch.compiler.disable(run))
            return uncompiled[0](*args, **options)
        with _without_autocast(args[0]), products.as_exact_as(args[0]):
            return operator(*args, **options)

    return run


def plain_backward(function: Callable[..., Any]) -> Callable[..., Any]:
    """A backward that computes by hand: once differentiable, no part of autocast, as exact as its input."""

    @once_differentiable
    @functools.wraps(function)
    def run(ctx: Any, *grads: Tensor) -> Any:
        with _without_autocast(grads[0]), products.as_exact_as(grads[0]):
            return function(ctx, *grads)

    return run


def _without_autocast(x: Tensor) -> AbstractContextManager[Any]:
    kind = x.device.type  # shapes alone, on "meta", know no autocast
    on = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.autocast(kind, enabled=False) if on else nullcontext()  # it takes as long as a small pass


def tiles(n: int, size: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of each tile."""
    for start in range(0, n, size):
        yield start, min(n, start + size)


def pieces(size: int, dim: int, *tensors: Tensor) -> Iterable[tuple[Tensor, ...]]:
    """The tiles of all tensors along a dimension, side by side: views, or they themselves if there is one."""
    if tensors[0].shape[dim] <= size:
        return [tensors]
    return zip(*(x.split(size, dim) for x in tensors), strict=True)


def key_shifts(k: Tensor, tile: int) -> tuple[Tensor, Tensor]:
    """Causal: for k [..., n, c] the shift of every tile of rows, and how far its own keys rise above it.

    Both [tiles, ..., c]. The shift depends only on the keys before the tile and on the tile's first one.
    """
    k = k.detach()
    tops = torch.stack([k[..., a:b, :].amax(-2) for a, b in tiles(k.shape[-2], tile)])
    return shifts_from(tops, k[..., ::tile, :].movedim(-2, 0))


def shifts_from(tops: Tensor, firsts: Tensor) -> tuple[Tensor, Tensor]:
    """As key_shifts, from the largest and the first key of every tile."""
    tops, firsts = tops.to(accumulator(tops.dtype)), firsts.to(accumulator(tops.dtype))
    seen = torch.cat([firsts[:1], tops[:-1]]).cummax(0).values.maximum(firsts)
    shifts = firsts[0] + STEP * ((seen - firsts[0]) / STEP).floor()
    return shifts, tops - shifts


def out_of_reach(k: Tensor, shift: Tensor) -> Tensor:
    """The rows of k [..., t, c] which see a key of their tile that lies too far above the shift."""
    return (k - shift).cummax(-2).values > REACH


def faintest(dtype: torch.dtype) -> float:
    """exp of this is nothing beside a denominator of ``smallest``, and still far from denormal numbers.

    Those take a CPU's exp and its products up to a hundred times as long.
    """
    return -700.0 if dtype == torch.float64 else -70.0


def exp_keys(k: Tensor, shift: Tensor) -> Tensor:
    """exp(k - shift) in the accumulator's dtype; rows that the upper bound touches are rescued."""
    return (k.to(shift.dtype) - shift).clamp_(faintest(shift.dtype), REACH).exp_()


def quick_exp(x: Tensor) -> tuple[Callable[[Tensor], Tensor], float]:
    """(power, unit) with power(unit * x) = exp(x) in place: by exp or by exp2, as torch computes sooner.

    On an Intel Xeon exp took 0.8 of the time of exp2, on an AMD EPYC three times as long.
    How exp2 rounds depends on where in its tensor an element stands: that must not depend on the future.
    """
    by_exp = not on_cpu(x) or isinstance(x, FakeTensor) or _exp_wins()
    return (Tensor.exp_, 1.0) if by_exp else (Tensor.exp2_, LOG2_E)


@functools.cache
def _exp_wins() -> bool:
    """One trial of some milliseconds, once per process, on a tensor large enough for all threads."""

    def seconds(power: Callable[..., Tensor]) -> float:
        start = time.perf_counter()
        power(x, out=out)
        return time.perf_counter() - start

    with _disable_current_modes():  # a trial is no part of what is counted
        x = torch.linspace(-20, 20, 1 << 18, dtype=torch.float32)
        out = torch.empty_like(x)
        pairs = [(seconds(torch.exp), seconds(torch.exp2)) for _ in range(8)]
    return min(mine for mine, _ in pairs) < min(its for _, its in pairs)


def rescue(y: Tensor, bad: Tensor | None, exact: Callable[..., Tensor], cost: int) -> Tensor:
    """Put exact(*indices) where ``bad`` says so; ``cost`` is the number of elements one of them takes.

    None if it is known already that no place is bad.
    """
    if bad is None or not occurs(bad):
        return y
    index = bad.nonzero()
    parts = [
        checkpoint(exact, *part.unbind(1), use_reentrant=False, preserve_rng_state=False)
        for part in index.split(max(1, RESCUED // cost))
    ]
    return y.index_put(index.unbind(1), torch.cat(parts).to(y.dtype))


def average(logits: Tensor, values: Tensor, rows: Tensor | None = None) -> Tensor:
    """The definition: [f, n] logits, [f, n, ...] values; causal where ``rows`` says which row each one is."""
    if rows is not None:
        future = torch.arange(logits.shape[1], device=logits.device) > rows[:, None]
        logits = logits.masked_fill(future, -torch.inf)
    weights = logits.softmax(1)
    return torch.einsum("fn,fn...->f...", weights, values.to(weights.dtype))

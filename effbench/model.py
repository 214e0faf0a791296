"""Blocks and models around a mechanism: norms, residuals, feed-forward, embedding and head.

block (pre-norm):   x = x + mechanism(norm(x)),  x = x + W2 gelu(W1 norm(x))
model:              embedding, position embedding where one is needed, blocks, norm, head
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from effbench import products
from effbench.errors import Unsupported
from effbench.reversible import ReversibleStack
from effbench.stack import Stack

#: Numbers of parameters agree that differ by no more than this share.
_AGREE = 0.01


class FeedForward(nn.Module):
    """[..., d] -> [..., d] through a hidden width w."""

    def __init__(self, dim: int, width: int):
        super().__init__()
        self.up, self.down = nn.Linear(dim, width), nn.Linear(width, dim)

    def forward(self, x: Tensor) -> Tensor:
        hidden = functional.gelu(products.linear(x, self.up.weight, self.up.bias))
        return products.linear(hidden, self.down.weight, self.down.bias)


class PreNorm(nn.Sequential):
    """x -> f(norm(x)): a branch that a residual goes round."""

    def __init__(self, dim: int, branch: nn.Module):
        super().__init__(nn.LayerNorm(dim), branch)


class Block(nn.Module):
    """[b, n, d] -> [b, n, d]: the mechanism, then the feed-forward, each with its residual."""

    def __init__(self, layer: nn.Module, dim: int, width: int, norm: str):
        super().__init__()
        branches = (layer, FeedForward(dim, width))
        self.pre = norm == "pre"
        self.branches = nn.ModuleList((PreNorm(dim, b) for b in branches) if self.pre else branches)
        self.norms = nn.ModuleList() if self.pre else nn.ModuleList(nn.LayerNorm(dim) for _ in branches)

    def forward(self, x: Tensor) -> Tensor:
        if self.pre:
            for branch in self.branches:
                x = x + branch(x)
        else:
            for norm, branch in zip(self.norms, self.branches, strict=True):
                x = norm(x + branch(x))
        return x


class Checkpointed(nn.Module):
    """A block whose inside is computed again in the backward pass."""

    def __init__(self, block: Block):
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        # Drawing no random numbers, blocks need no state of the generator kept.
        return cast(Tensor, checkpoint(self.block, x, use_reentrant=False, preserve_rng_state=False))


class Model(nn.Module):
    """Tokens [b, n] -> logits [b, n, vocabulary], or patches [b, n, patch] -> logits [b, classes]."""

    def __init__(self, blocks: nn.Module, stack: Stack, dim: int, positions: int):
        super().__init__()
        self.tokens = stack.embedding == "tokens"
        self.embed = nn.Embedding(stack.vocabulary, dim) if self.tokens else nn.Linear(stack.patch, dim)
        self.position = nn.Parameter(torch.randn(positions, dim) * 0.02) if positions else None
        self.blocks = blocks
        self.norm = nn.LayerNorm(dim) if stack.norm == "pre" else nn.Identity()
        self.head = nn.Linear(dim, stack.vocabulary if self.tokens else stack.classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x) if self.tokens else products.linear(x, self.embed.weight, self.embed.bias)  # type: ignore[arg-type]
        if self.position is not None:
            x = x + self.position
        x = self.norm(self.blocks(x))
        return products.linear(x if self.tokens else x.mean(1), self.head.weight, self.head.bias)

    def loss(self, x: Tensor) -> Tensor:
        """Cross-entropy; every token is its own target, every image of class 0: all cost the same."""
        logits = self(x)
        targets = x if self.tokens else torch.zeros(len(x), dtype=torch.long, device=x.device)
        return functional.cross_entropy(logits.flatten(0, -2), targets.flatten())


def build(
    level: str, stack: Stack, layer: Callable[[], nn.Module], *, dim: int, seq: int, positional: bool
) -> nn.Module:
    """A block or a model; ``layer`` builds the mechanism once for each block.

    Raises:
        Unsupported: no feed-forward gives the number of parameters that is asked for.
    """
    layers = [layer() for _ in range(depth(level, stack))]
    width = hidden_width(level, stack, dim, seq, positional, parameters(layers[0]))
    blocks = [Block(one, dim, width, stack.norm) for one in layers]
    inner: nn.Module
    if stack.memory == "reversible":
        inner = ReversibleStack([cast(Any, tuple(block.branches)) for block in blocks])
    else:
        inner = nn.Sequential(*(map(Checkpointed, blocks) if stack.memory == "checkpoint" else blocks))
    if level == "block":
        return inner
    return Model(inner, stack, dim, seq if embeds_positions(stack, positional) else 0)


def depth(level: str, stack: Stack) -> int:
    """The number of blocks."""
    return stack.depth if level == "model" else 1


def embeds_positions(stack: Stack, positional: bool) -> bool:
    """Whether a model has a position embedding; ``positional``: the mechanism knows positions by itself."""
    return stack.position == "learned" or (stack.position == "auto" and not positional)


def parameters(module: nn.Module) -> int:
    """The number of parameters."""
    return sum(p.numel() for p in module.parameters())


def hidden_width(level: str, stack: Stack, dim: int, seq: int, positional: bool, layer: int) -> int:
    """The feed-forward's hidden width, for a mechanism with ``layer`` parameters.

    With ``match = "params"`` it makes all mechanisms as large as a Transformer: 4 d^2 parameters in its
    layer, the ratio as it is, and a position embedding unless there shall be none.
    """
    width, each = stack.feed_forward * dim, 2 * dim + 1
    if stack.match == "shape":
        return width
    blocks = depth(level, stack)
    positions = seq * dim * (level == "model")
    usual = positions * embeds_positions(stack, False)
    own = positions * embeds_positions(stack, positional)
    spare = blocks * (4 * dim * dim - layer) + usual - own
    matched = width + round(spare / (blocks * each))
    goal = blocks * (4 * dim * dim + width * each + 5 * dim) + usual
    missing = spare - blocks * each * (matched - width)
    if matched < 1:
        raise Unsupported(
            f"without a feed-forward it has {goal - spare - blocks * each * width} parameters in blocks and "
            f"positions, where a Transformer has {goal} with one: no width makes them equal"
        )
    if abs(missing) > _AGREE * goal:
        raise Unsupported(f"at width {dim} no feed-forward comes within 1 % of a Transformer's parameters")
    return matched

"""The closed-form work of a block or model: its mechanism's, and what stands around it.

T = b n tokens, width d, hidden width w. Each kind counts as the counter counts it: a norm 7 an element (14
backward), GELU 4 and one exponential (9 and two backward), a residual 1.
"""

from __future__ import annotations

from collections.abc import Callable

from effbench.plugin import Flops, Shape
from effbench.stack import Stack


def block_flops(stack: Stack, layer: Callable[[str], Flops], shape: Shape, width: int, mode: str) -> Flops:
    """One pass over one block; ``layer(mode)`` is the mechanism's own.

    Training computes a checkpointed or a reversible block forward twice.
    """
    t, d, w = shape.batch * shape.seq, shape.dim, width
    forward = Flops(matmul=4 * t * d * w, elementwise=t * (17 * d + 5 * w), transcendental=t * w)
    if mode != "train":
        return _sum(layer("forward"), forward)
    # Back: two products for each one forward, norms, GELU, sums over tokens for biases, meeting gradients.
    back = Flops(matmul=8 * t * d * w, elementwise=t * (31 * d + 10 * w), transcendental=2 * t * w)
    whole = _sum(layer("train"), forward, back)
    if stack.memory == "plain":
        return whole
    again = _sum(layer("forward"), forward)
    if stack.memory == "checkpoint" and stack.norm == "pre":
        # The last product and the last residual are of no use to the backward pass, and left out.
        again = _sum(again, Flops(matmul=-2 * t * d * w, elementwise=-2 * t * d))
    return _sum(whole, again)


def model_flops(
    stack: Stack, layer: Callable[[str], Flops], shape: Shape, width: int, mode: str, *, positions: bool
) -> Flops:
    """One pass over a model: its blocks, the embeddings, the last norm and the head, in training the loss."""
    b, t, d = shape.batch, shape.batch * shape.seq, shape.dim
    block = block_flops(stack, layer, shape, width, mode)
    tokens = stack.embedding == "tokens"
    rows, kinds = (t, stack.vocabulary) if tokens else (b, stack.classes)
    times = 3 if mode == "train" else 1
    embedding = 0 if tokens else times * 2 * t * stack.patch * d
    norm = (21 if mode == "train" else 7) * t * d * (stack.norm == "pre")
    train = mode == "train"
    around = Flops(
        matmul=times * 2 * rows * d * kinds + embedding,
        elementwise=norm + t * d * positions + (9 if train else 1) * rows * kinds,
        transcendental=2 * rows * kinds * train,
    )
    return _sum(*[block] * stack.depth, around)


def _sum(*parts: Flops) -> Flops:
    return Flops(**{kind: sum(getattr(part, kind) for part in parts) for kind in vars(Flops())})

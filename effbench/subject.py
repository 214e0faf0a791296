"""What is measured: a mechanism built for a cell, its inputs, and one pass over them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import nn
from torch.utils import _pytree as pytree

from effbench import model
from effbench.cell import Cell
from effbench.errors import Unsupported
from effbench.plugin import Mechanism, Shape
from effbench.stack import Stack

#: Bytes that the ring of inputs may take; two inputs at the least.
_RING_BYTES = 64 * 1024 * 1024
_RING = 4


@dataclass(frozen=True)
class Subject:
    """A built module and ``call(i)``, which makes one pass over the i-th input of a ring."""

    module: nn.Module
    inputs: list[torch.Tensor]
    call: Callable[[int], Any]
    state: Any = None  # what decoding keeps of the context

    @property
    def live(self) -> list[torch.Tensor]:
        """The tensors in place before a pass: parameters, buffers, inputs and the state of decoding."""
        return [*self.module.parameters(), *self.module.buffers(), *self.inputs, *self.kept]

    @property
    def kept(self) -> list[torch.Tensor]:
        """The tensors of the state of decoding."""
        return [leaf for leaf in pytree.tree_leaves(self.state) if isinstance(leaf, torch.Tensor)]

    @property
    def params(self) -> int:
        """The number of parameters."""
        return sum(parameter.numel() for parameter in self.module.parameters())


def build_module(mechanism: Mechanism, cell: Cell, *, seed: int, empty: bool = False) -> nn.Module:
    """The module of a cell's level (of op: the layer), in the cell's dtype and on its device.

    Its parameters are drawn on the CPU, the same for every device; ``empty``, for fake tensors, which cannot
    be moved: made where they shall be.
    """
    # torch.manual_seed seeds every device's generator, and for each that is absent writes down a traceback:
    # that takes as long as all the rest here.
    (torch.default_generator if cell.device == "cpu" else torch).manual_seed(seed)
    seq = cell.seq + (cell.mode == "decode")  # the context and one more token
    shape = Shape(batch=cell.batch, seq=seq, dim=cell.dim, heads=cell.heads)
    with _default_dtype(getattr(torch, cell.dtype)), torch.device(cell.device if empty else "cpu"):
        build = functools.partial(mechanism.build, shape, causal=cell.causal, **cell.options)
        module = _at_level(mechanism, cell, build)
    if not _is_at(module, cell):
        module = module.to(device=cell.device, dtype=getattr(torch, cell.dtype))
    return module.train(cell.mode == "train")


def _at_level(mechanism: Mechanism, cell: Cell, layer: Callable[[], nn.Module]) -> nn.Module:
    if cell.level not in ("block", "model"):
        return layer()
    stack, positional = Stack(**cell.stack), mechanism.positional
    return model.build(cell.level, stack, layer, dim=cell.dim, seq=cell.seq, positional=positional)


def build_subject(
    mechanism: Mechanism,
    cell: Cell,
    *,
    seed: int,
    ring: int = _RING,
    empty: bool = False,
    prefilling: Callable[[], None] = lambda: None,
) -> Subject:
    """A subject for a cell.

    Args:
        ring: inputs of different values, fewer where they would take too much memory.
        empty: leave the inputs' values out, for fake tensors.
        prefilling: called when all is built and a context is about to be read, in decode mode.

    Raises:
        Unsupported: the level or mode needs a method that the module does not have.
    """
    module = build_module(mechanism, cell, seed=seed, empty=empty)
    size = cell.batch * cell.seq * cell.dim * getattr(torch, cell.dtype).itemsize
    count = max(min(ring, _RING_BYTES // size), min(ring, 2))
    if cell.mode == "decode":
        return _decode_subject(module, cell, seed, count, empty, prefilling)
    if cell.mode == "generate":
        return _generate_subject(module, cell, [_input(cell, seed, repeat, empty) for repeat in range(count)])
    inputs = [_input(cell, seed, repeat, empty) for repeat in range(count)]
    return Subject(module, inputs, _pass(module, inputs, cell))


def remembers(subject: Subject) -> bool:
    """Whether a pass gives again what it gave before though its input has other values now.

    Overwrites the first input. False where that cannot be told: inputs that are tokens, one input only, an
    output that is the same for two inputs from the start (a projection that begins at zero). For any level
    but op, whose passes read what was made of the inputs.
    """
    if len(subject.inputs) < 2 or not subject.inputs[0].is_floating_point():
        return False
    first, second = (_copied(subject.call(i)) for i in (0, 1))
    if _same(first, second):
        return False
    subject.inputs[0].copy_(subject.inputs[1])
    return _same(_copied(subject.call(0)), first)


def _copied(result: Any) -> list[torch.Tensor]:
    """A pass may write its output where it wrote the last one."""
    return [leaf.detach().clone() for leaf in pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor)]


def _same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def make_input(cell: Cell, seed: int, repeat: int) -> torch.Tensor:
    """N(0, 1) of shape [b, n, d], at level model tokens [b, n] or patches [b, n, numbers in a patch].

    Depends on seed, repeat and shape alone, whatever the mechanism.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + repeat)
    shape = _input_shape(cell)
    if len(shape) == 2:
        kinds = Stack(**cell.stack).vocabulary
        return torch.randint(kinds, shape, generator=generator).to(cell.device)
    values = torch.randn(shape, generator=generator)
    return values.to(device=cell.device, dtype=getattr(torch, cell.dtype))


def quarter(cell: Cell) -> Cell:
    """The same cell at a quarter of its length."""
    return replace(cell, seq=max(1, cell.seq // 4))


def _is_at(module: nn.Module, cell: Cell) -> bool:
    """Whether nothing needs moving: fake parameters cannot be moved, so what is right is left alone.

    A tensor made on ``cuda`` says that it is on ``cuda:0``.
    """
    device, dtype = torch.device(cell.device), getattr(torch, cell.dtype)
    held = [*module.parameters(), *module.buffers()]
    return all(
        (t.device.type, device.index or 0) == (device.type, t.device.index or 0)
        and (t.dtype == dtype or not t.is_floating_point())
        for t in held
    )


def _input(cell: Cell, seed: int, repeat: int, empty: bool) -> torch.Tensor:
    if empty:
        shape = _input_shape(cell)
        dtype = torch.long if len(shape) == 2 else getattr(torch, cell.dtype)
        return torch.empty(shape, dtype=dtype, device=cell.device)
    return make_input(cell, seed, repeat)


def _input_shape(cell: Cell) -> tuple[int, ...]:
    if cell.level != "model":
        return cell.batch, cell.seq, cell.dim
    stack = Stack(**cell.stack)
    return (cell.batch, cell.seq, *([] if stack.embedding == "tokens" else [stack.patch]))


def _pass(module: nn.Module, inputs: list[torch.Tensor], cell: Cell) -> Callable[[int], Any]:
    function, operands = _timed(module, inputs, cell)
    if cell.compile:
        function = torch.compile(function)
    if cell.mode == "train":
        return _train_pass(module, function, operands)

    def forward(i: int) -> Any:
        with torch.no_grad():
            return function(*operands[i % len(operands)])

    return forward


def _timed(
    module: nn.Module, inputs: list[torch.Tensor], cell: Cell
) -> tuple[Callable[..., Any], list[tuple[torch.Tensor, ...]]]:
    """The function that the level times, and ready-made operands for it."""
    if cell.level != "op":
        training = cell.level == "model" and cell.mode == "train"
        function = cast(Callable[..., Any], module.loss if training else module)
        return function, [(x,) for x in inputs]
    project, mix = getattr(module, "project", None), getattr(module, "mix", None)
    if project is None or mix is None:
        raise Unsupported(
            f"{cell.mechanism} offers no project and mix, so its operator cannot be measured alone"
        )
    with torch.no_grad():
        made = [project(x) for x in inputs]
    return mix, [tuple(m) if isinstance(m, tuple | list) else (m,) for m in made]


def _train_pass(
    module: nn.Module, function: Callable[..., Any], operands: list[tuple[torch.Tensor, ...]]
) -> Callable[[int], Any]:
    """Forward and backward: gradients for the operands and every parameter."""
    leaves = [[t.detach().requires_grad_(t.is_floating_point()) for t in ts] for ts in operands]
    parameters = list(module.parameters())

    def train(i: int) -> Any:
        tensors = leaves[i % len(leaves)]
        y = function(*tensors)
        # The gradient that arrives has values of its own: ones would be a special case.
        torch.autograd.backward(
            y, tensors[0].detach().expand_as(y) if tensors[0].shape == y.shape else y.detach()
        )
        # Dropped at the end, not at the start: a pass then frees nothing that an earlier one made.
        for tensor in (*tensors, *parameters):
            tensor.grad = None
        return y

    return train


def decoder(module: nn.Module, cell: Cell) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The module's prefill and step."""
    prefill, step = getattr(module, "prefill", None), getattr(module, "step", None)
    if step is None or prefill is None:
        raise Unsupported(f"{cell.mechanism} offers no prefill and step, so decoding cannot be measured")
    return prefill, step


def _decode_subject(
    module: nn.Module, cell: Cell, seed: int, count: int, empty: bool, prefilling: Callable[[], None]
) -> Subject:
    """One more token at context length seq, again and again from the state that the context left."""
    prefill, step = decoder(module, cell)
    longer = replace(cell, seq=cell.seq + 1)
    tokens = []
    with torch.no_grad():
        for repeat in reversed(range(count)):
            x = _input(longer, seed, repeat, empty)
            tokens.append(x[:, -1].clone())
        prefilling()
        state = prefill(x[:, :-1])  # the context is that of the first input, which was made last

    def decode(i: int) -> Any:
        with torch.no_grad():
            return step(tokens[i % len(tokens)], state)[0]

    return Subject(module, tokens, decode, state)


def _generate_subject(module: nn.Module, cell: Cell, inputs: list[torch.Tensor]) -> Subject:
    """A sequence from an empty state, one token after another.

    The next token is ready-made and not what the last one gave: values that are fed back through one layer
    again and again vanish or overflow, and then cost what no others do.
    """
    _, step = decoder(module, cell)

    def generate(i: int) -> Any:
        with torch.no_grad():
            state = start(module, cell.batch)
            for token in inputs[i % len(inputs)].unbind(1):
                y, state = step(token, state)
            return y

    return Subject(module, inputs, generate)


def start(module: nn.Module, batch: int) -> Any:
    """The state before the first token.

    Raises:
        Unsupported: the module offers none.
    """
    initial = getattr(module, "initial_state", None)
    if initial is None:
        raise Unsupported("the module offers no initial_state, so no sequence can be generated")
    return initial(batch)


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Parameters are made in the cell's dtype at once: made in float32 first, they would need both."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)

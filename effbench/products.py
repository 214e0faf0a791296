"""The matrix-product provider: torch's own products, or oneDNN's where they are the faster ones.

In float32, ``torch.mm`` goes to MKL, which on AMD CPUs runs at half the rate that oneDNN, in the same
wheel, reaches with true float32 arithmetic. A run says which provider it asks for (``use``) and reads
what really ran (``ran``). Whatever oneDNN does not take (float64, float16, other devices, fake tensors,
products too small to matter, code under autocast or compilation) goes to torch.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import _disable_current_modes

from effbench.errors import BadInput

PROVIDERS = ("torch", "onednn", "auto")

#: Fewer multiply-adds than this are over before the choice of a library matters.
SMALLEST = 1 << 18

#: Likewise for one pair of a batch, which a batched product would share between threads.
SMALLEST_OF_BATCH = 1 << 24

#: The sides of a tile of scores of heads, rows and keys: 1 MiB in float32, of which a thread has one for
#: itself. Where oneDNN's threads share one it is SHARED times as tall.
TALL, WIDE, SHARED = 1024, 256, 4

_provider = "auto"
_by_heads = "auto"
_ran: set[str] = set()
_faster: dict[torch.dtype, bool] = {}  # whether oneDNN won the trial, by dtype; once per process


def use(provider: str, by_heads: str | None = None) -> None:
    """Choose the provider for this process, also for tiles of heads, and forget what ran so far."""
    global _provider, _by_heads
    for name in (provider, by_heads or provider):
        if name not in PROVIDERS:
            raise BadInput(f"gemm {name!r}: expected one of {', '.join(PROVIDERS)}")
    _provider, _by_heads = provider, by_heads or provider
    forget()


def forget() -> None:
    """Forget what ran so far."""
    _ran.clear()


def ran() -> str:
    """What has run since then: "torch", "onednn" or "torch+onednn"; "" before the first product."""
    return "+".join(name for name in ("torch", "onednn") if name in _ran)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias`` with gradients: x [..., i], weight [o, i], bias [o]."""
    if _takes(x, weight, x.numel() * weight.shape[0]):
        return cast(Tensor, _Linear.apply(x, weight, bias))  # type: ignore[no-untyped-call]
    _ran.add("torch")
    return torch.nn.functional.linear(x, weight, bias)


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b`` with gradients, batched and broadcast as ``torch.matmul`` does it."""
    if b.dim() == 2 and a.dim() >= 2:
        return linear(a, b.mT)
    batch = a.shape[:-2]
    work = a.numel() // max(1, batch.numel()) * b.shape[-1]
    alike = batch == b.shape[:-2]
    if alike and work >= SMALLEST_OF_BATCH and _takes(a, b, work):
        return cast(Tensor, _Batched.apply(a, b))  # type: ignore[no-untyped-call]
    _ran.add("torch")
    return torch.bmm(a, b) if alike and len(batch) == 1 else torch.matmul(a, b)  # the sooner begun


def widens(x: Tensor) -> bool:
    """Whether tensors like x are best multiplied as they are, into a float32 result: bfloat16 on a GPU.

    Tensor cores do so at ten times the rate of float32. In float16, factors that are exponentials overflow.
    """
    if x.dtype != torch.bfloat16 or x.device.type != "cuda" or torch.version.hip is not None:
        return False
    return hasattr(torch.ops.aten.mm, "dtype") and torch.cuda.get_device_capability(x.device) >= (8, 0)


def as_exact_as(x: Tensor) -> AbstractContextManager[None]:
    """Float32 products inside need no more digits than x has: TF32's, where x is in half precision on a GPU.

    TF32 has the digits of float16 and the range of float32, so nothing overflows that would not in float32;
    tensor cores multiply it at several times the rate of float32, and add up in float32.
    """
    half = x.is_cuda and x.dtype in (torch.float16, torch.bfloat16)
    return _tf32() if half and torch.get_float32_matmul_precision() == "highest" else nullcontext()


@contextmanager
def _tf32() -> Iterator[None]:
    """The setting is one of the process; products on a CPU hardly ever heed it."""
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")


def mm(a: Tensor, b: Tensor, *, out: Tensor | None = None, dtype: torch.dtype | None = None) -> Tensor:
    """``a @ b`` of two matrices, without gradients, in ``dtype``. The result may or may not be ``out``."""
    if dtype is not None and dtype != a.dtype:
        _ran.add("torch")
        if a.is_cuda:
            return torch.mm(a, b, out_dtype=dtype)
        return torch.mm(a.to(dtype), b.to(dtype))
    if _takes(a, b, a.numel() * b.shape[1]):
        return _onednn(a, b.t(), None)
    _ran.add("torch")
    return torch.mm(a, b) if out is None else torch.mm(a, b, out=out)


def addmm_(total: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """``total += a @ b`` without gradients; ``total`` may be wider than the factors."""
    if total.dtype != a.dtype:
        _ran.add("torch")
        if isinstance(a, FakeTensor):  # which torch cannot add up so
            return total.add_(mm(a, b, dtype=total.dtype))
        if a.is_cuda:
            return torch.addmm(total, a, b, out_dtype=total.dtype, out=total)
        a, b = a.to(total.dtype), b.to(total.dtype)
    if _takes(a, b, a.numel() * b.shape[1]):
        return total.add_(_onednn(a, b.t(), None))
    _ran.add("torch")
    return torch.addmm(total, a, b, out=total)  # not addmm_, which torch's FLOP counter does not know


def bmm(a: Tensor, b: Tensor, *, out: Tensor | None = None, dtype: torch.dtype | None = None) -> Tensor:
    """``a @ b`` of two batches of matrices by torch, which shares them between threads; without gradients.

    In the dtype of ``out`` or in ``dtype``, which may be wider than the factors'.
    """
    _ran.add("torch")
    dtype = dtype if out is None else out.dtype
    if dtype is None or dtype == a.dtype:
        return torch.bmm(a, b) if out is None else torch.bmm(a, b, out=out)
    if out is None and a.is_cuda:
        return torch.bmm(a, b, out_dtype=dtype)
    if a.is_cuda and not isinstance(a, FakeTensor):
        return torch.bmm(a, b, out_dtype=dtype, out=out)
    a, b = a.to(dtype), b.to(dtype)
    return torch.bmm(a, b) if out is None else torch.bmm(a, b, out=out)


def baddbmm_(total: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """``total += a @ b`` of batches by torch, without gradients; ``total`` may be wider than the factors."""
    _ran.add("torch")
    if total.dtype != a.dtype:
        if isinstance(a, FakeTensor):
            return total.add_(bmm(a, b, dtype=total.dtype))
        if a.is_cuda:
            return torch.baddbmm(total, a, b, out_dtype=total.dtype, out=total)
        a, b = a.to(total.dtype), b.to(total.dtype)
    if not (total.is_cuda or total.is_contiguous()):
        return total.add_(torch.bmm(a, b))  # put there it would be one product after the other
    return torch.baddbmm(total, a, b, out=total)


def choice_by_heads(like: Tensor) -> str:
    """Who multiplies tiles of scores of heads, tensors like this one: "torch" or "onednn".

    Where large squares are the faster by oneDNN these may not be: torch gives each thread a head of its own.
    """
    if _by_heads == "torch" or not _takes(like, like, SMALLEST):
        return "torch"
    return "onednn" if _by_heads == "onednn" or _wins_by_heads() else "torch"


def tiles_of_heads(provider: str) -> tuple[Callable[[], Tensor], int]:
    """A call that adds up values under scores by tiles, in float32 without their exponentials; its FLOPs."""
    width, count = 64, 4
    heads, rows = (1, SHARED * TALL) if provider == "onednn" else (torch.get_num_threads(), TALL)
    q, total = torch.ones(heads, rows, width), torch.zeros(heads, rows, width)
    tiles = [torch.ones(heads, width, WIDE) for _ in range(count)]

    def by_onednn() -> Tensor:
        for k in tiles:
            total[0].add_(_pointwise(_pointwise(q[0], k[0].mT, None), k[0], None))
        return total

    space = torch.empty(heads, rows, WIDE) if provider == "torch" else None

    def by_torch() -> Tensor:
        for k in tiles:
            torch.baddbmm(total, torch.bmm(q, k, out=space), k.mT, out=total)
        return total

    return by_onednn if provider == "onednn" else by_torch, 4 * heads * rows * count * WIDE * width


class _Linear(torch.autograd.Function):
    """oneDNN's product has no gradient of its own: it would leave them empty with only a warning."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _onednn(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (x, weight) = grads, ctx.saved_tensors
        rows = grad.flatten(0, -2)
        to_x = linear(grad, weight.mT) if ctx.needs_input_grad[0] else None
        to_weight = linear(rows.mT, x.flatten(0, -2).mT) if ctx.needs_input_grad[1] else None
        return to_x, to_weight, rows.sum(0) if ctx.needs_input_grad[2] else None


class _Batched(torch.autograd.Function):
    """One oneDNN product for each pair of a batch: only pairs large enough to carry a call come here."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        out = a.new_empty(*a.shape[:-1], b.shape[-1])
        each = zip(out.flatten(0, -3), a.flatten(0, -3), b.flatten(0, -3), strict=True)
        for target, left, right in each:
            target.copy_(_onednn(left, right.mT, None))
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (a, b) = grads, ctx.saved_tensors
        to_a = matmul(grad, b.mT) if ctx.needs_input_grad[0] else None
        return to_a, matmul(a.mT, grad) if ctx.needs_input_grad[1] else None


def _takes(a: Tensor, b: Tensor, work: int) -> bool:
    """Whether this product of ``work`` multiply-adds goes to oneDNN."""
    if _provider == "torch" or work < SMALLEST or a.dtype != b.dtype or torch.compiler.is_compiling():
        return False
    if a.device.type != "cpu" or isinstance(a, FakeTensor) or isinstance(b, FakeTensor):
        return False
    if torch.is_autocast_enabled("cpu") or not _available(a.dtype):
        return False
    return _provider == "onednn" or _wins(a.dtype)


def _available(dtype: torch.dtype) -> bool:
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32


def _wins(dtype: torch.dtype) -> bool:
    """Whether oneDNN is the faster, for large squares."""
    if dtype not in _faster:
        with torch.no_grad(), _disable_current_modes():  # a trial is no part of what is counted
            a = torch.ones(512, 512, dtype=dtype)
            _faster[dtype] = _clearly((lambda: _pointwise(a, a, None), 1), (lambda: torch.mm(a, a), 1))
    return _faster[dtype]


@functools.cache
def _wins_by_heads() -> bool:
    """Likewise, for tiles of heads."""
    with torch.no_grad(), _disable_current_modes():
        return _clearly(tiles_of_heads("onednn"), tiles_of_heads("torch"))


def _clearly(mine: tuple[Callable[[], Tensor], int], other: tuple[Callable[[], Tensor], int]) -> bool:
    """Whether the first takes less than nine tenths of the time for its work: some milliseconds of trial."""

    def seconds(call: Callable[[], Tensor], work: int) -> float:
        start = time.perf_counter()
        call()
        return (time.perf_counter() - start) / work

    pairs = [(seconds(*mine), seconds(*other)) for _ in range(6)][1:]  # the first ones warm up
    return min(a for a, _ in pairs) < 0.9 * min(b for _, b in pairs)


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    _ran.add("onednn")
    # A weight that is neither dense nor a dense one transposed takes a path a thousand times slower.
    if not (weight.is_contiguous() or weight.mT.is_contiguous()):
        weight = weight.contiguous()
    return _pointwise(x, weight, bias)


def _pointwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return cast(Tensor, torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], ""))

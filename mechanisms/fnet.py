"""FNet: mixing by an unparameterised Fourier transform, along the sequence and along the width.

    y = Re(FFT_seq(FFT_hidden(x)))

The real part sees only the even part of x, (x[t, c] + x[-t, -c]) / 2 with indices mod n and d, and that has a
real transform. So half of the columns, a real transform along each, half of the rows of the result and a
complex-to-real transform along each of them give half of y; the other half is its mirror image. The map is
linear and symmetric: it is its own gradient.

``dft="matrix"`` multiplies by matrices of cosines and sines, as the paper does on TPUs (``_dft``). The module
holds those of the length and width that it was built for, as buffers that are not saved; those of another
length (not a part of them: its angles are others) are made in the pass that needs them.

Paper: Lee-Thorp et al. 2022, arXiv:2105.03824, equation 3. No parameters, no projections, no causal form.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from effbench.mechanisms import _dft, _parts
from effbench.plugin import Complexity, Flops, Mechanism, Shape

TILE = 1 << 21  # elements of a tile of columns, whose buffer is used again
ROWS = 1 << 19  # elements of a tile of rows, which is written twice while it is in cache
SMALL = 1 << 20  # elements of a sequence up to which many small steps take longer than one large one
LEAST = 1 << 14  # and up to which autograd's gradient of that step takes less than a function of ours
NARROW, WIDE, FEW = 64, 192, 1 << 17  # widths and elements of a sequence, see _order
SMALL_ELSEWHERE = 1 << 24  # elements of a batch below which a GPU is faster with the whole spectrum
COLUMNS = 64  # at least so many columns along the sequence
LONG = 1 << 15  # tokens of which a column goes through 2 MiB of cache lines: all are copied out first
BLOCK = 2048  # tokens whose columns are copied at once, while they are in cache
LINE = 64  # bytes of a cache line

DFTS = ("fft", "matrix")


def fourier_mix(
    x: Tensor, *, dft: str = "fft", rows: _dft.Matrices | None = None, columns: _dft.Matrices | None = None
) -> Tensor:
    """x [b, n, d], any n and d; half precision is computed in float32.

    ``dft``: "fft" or "matrix"; rows and columns: the ``_dft.matrices`` of n and of d, made where not given.
    """
    if dft == "fft" and _is_one_step(x):
        return _in_one_step(x)
    return _mix(x, dft, rows, columns)


def _is_one_step(x: Tensor) -> bool:
    """Looked at before all else, which would take as long as a small transform does."""
    size = LEAST if torch.is_grad_enabled() and x.requires_grad else SMALL
    fits = x.shape[1] * x.shape[2] <= size and x.dtype in (torch.float32, torch.float64)
    return fits and _parts.on_cpu(x) and not torch.compiler.is_compiling()


def _in_one_step(x: Tensor) -> Tensor:
    """Real transforms along one dimension, of half of that complex ones along the other, the rest mirrored.

    torch.fft's functions of two dimensions make x complex first and transform all of it.
    """
    order = _order(*x.shape[1:])
    return torch.fft.fft2(x).real if order is None else torch._fft_r2c(x, order, 0, onesided=False).real


def _order(n: int, d: int) -> tuple[int, int] | None:
    """The dimensions of one step, the one of the real transforms last; None where none takes less.

    Of 16 to 512 columns and 128 to 8192 tokens on an Intel Xeon.
    """
    if NARROW < d < WIDE and n * d < FEW:
        return None
    return (2, 1) if d <= NARROW else (1, 2)


@_parts.eager
def _mix(x: Tensor, dft: str, rows: _dft.Matrices | None, columns: _dft.Matrices | None) -> Tensor:
    transform = _by_fft if dft == "fft" else partial(_dft.by_matrices, rows=rows, columns=columns)
    if not (torch.is_grad_enabled() and x.requires_grad):
        return transform(x)  # an autograd function takes a tenth of the time of a small transform
    return _FourierMix.apply(x, transform)


class _FourierMix(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, transform: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.transform = transform
        return transform(x)

    @staticmethod
    @_parts.plain_backward
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.transform(grad), None


def _by_fft(x: Tensor) -> Tensor:
    b, n, d = x.shape
    rows, columns, wide = n // 2 + 1, d // 2 + 1, _parts.accumulator(x.dtype)
    if not _parts.on_cpu(x):
        return _at_once(x) if x.numel() >= SMALL_ELSEWHERE else torch.fft.fft2(x.to(wide)).real.to(x.dtype)
    if n * d <= SMALL:
        return _in_one_step(x.to(wide)).to(x.dtype)
    if n >= LONG and columns > COLUMNS:
        y = x.new_empty(x.shape)
        spectrum = _long_spectrum(x, _room(y, columns, wide))
    else:
        spectrum = _spectrum(x, wide)
        y = x.new_empty(x.shape)  # only now that the tiles' memory is free
    for a, stop in _parts.tiles(rows, max(1, ROWS // (b * d))):
        _put_rows(y, a, torch.fft.irfft(spectrum[:, a:stop], n=d, dim=2, norm="forward"))
    return y


def _spectrum(x: Tensor, wide: torch.dtype) -> Tensor:
    """Half of the transform of the even columns, [b, rows, columns], conjugated, as irfft does again."""
    b, n, columns = x.shape[0], x.shape[1], x.shape[2] // 2 + 1
    spectrum = x.new_empty(b, n // 2 + 1, columns, dtype=wide.to_complex())
    width = max(COLUMNS, TILE // (b * n))
    width = -(-columns // -(-columns // width))  # of tiles that are alike
    room = x.new_empty(b, n, _apart(width, wide), dtype=wide)
    for a, stop in _parts.tiles(columns, width):
        even = _even(x, (0, n), (a, stop), room[..., : stop - a])
        # torch returns the columns of rfft one after the other.
        torch.conj_physical(torch.fft.rfft(even, dim=1), out=spectrum[..., a:stop])
    return spectrum


def _long_spectrum(x: Tensor, room: Tensor) -> Tensor:
    """Likewise, but its columns lie one after the other, as those that are transformed do.

    ``room`` [b, columns, n] is overwritten.
    """
    b, columns, n = room.shape
    block = room.new_empty(b, BLOCK, _apart(columns, room.dtype))[..., :columns]
    for a, stop in _parts.tiles(n, BLOCK):
        room[..., a:stop] = _even(x, (a, stop), (0, columns), block[:, : stop - a]).mT
    return torch.fft.rfft(room).mT.conj()


def _room(y: Tensor, columns: int, dtype: torch.dtype) -> Tensor:
    """Room for half of the columns of y: its own where the dtype is, which saves fresh pages."""
    shape = (y.shape[0], columns, y.shape[1])
    if y.dtype != dtype:
        return y.new_empty(shape, dtype=dtype)
    return y.view(-1)[: math.prod(shape)].view(shape)


def _at_once(x: Tensor) -> Tensor:
    """Half of the columns by one real transform, for a GPU; y[k, l] = y[-k, -l] are the others."""
    d = x.shape[2]
    half = torch.fft.rfft2(x.to(_parts.accumulator(x.dtype))).real
    y, columns = torch.empty_like(x), half.shape[2]
    y[..., :columns] = half
    mirrored = half[..., 1 : d - columns + 1]
    y[:, :1, columns:] = mirrored[:, :1].flip(2)
    y[:, 1:, columns:] = mirrored[:, 1:].flip(1, 2)
    return y


def _apart(width: int, dtype: torch.dtype) -> int:
    """Elements from row to row: an odd number of cache lines, so that a column is spread over all of a cache.

    A power of 2 apart, its elements throw each other out, and a transform takes two or three times as long.
    """
    line = LINE // dtype.itemsize
    return (-(-width // line) | 1) * line


def _even(x: Tensor, tokens: tuple[int, int], columns: tuple[int, int], out: Tensor) -> Tensor:
    """x[t, c] + x[-t, -c] of some tokens and columns, (start, stop), into ``out``: twice the even part."""
    for t, against_t, to_t in _mirrored(*tokens, x.shape[1]):
        for c, against_c, to_c in _mirrored(*columns, x.shape[2]):
            turned = x[:, against_t, against_c].to(out.dtype).flip(1, 2)
            torch.add(x[:, t, c].to(out.dtype), turned, out=out[:, to_t, to_c])
    return out


def _mirrored(start: int, stop: int, size: int) -> Iterator[tuple[slice, slice, slice]]:
    """The indices from start to stop, those that are minus those modulo size, backwards, and their places."""
    if start == 0:  # minus itself
        yield slice(0, 1), slice(0, 1), slice(0, 1)
    first = max(start, 1)
    if first < stop:
        yield slice(first, stop), slice(size - stop + 1, size - first + 1), slice(first - start, stop - start)


def _put_rows(y: Tensor, a: int, part: Tensor) -> None:
    """y[k, l] = y[-k, -l] = part[k - a, l] / 2, for the rows k of a tile that starts at a."""
    n, stop = y.shape[1], a + part.shape[1]
    torch.mul(part, 0.5, out=y[:, a:stop])
    low, high = max(a, 1), min(stop, (n + 1) // 2)
    if low < high:
        turned, mirrored = part[:, low - a : high - a].flip(1, 2), y[:, n - high + 1 : n - low + 1]
        torch.mul(turned[..., :-1], 0.5, out=mirrored[..., 1:])
        torch.mul(turned[..., -1:], 0.5, out=mirrored[..., :1])


class FNet(nn.Module):
    def __init__(self, shape: Shape, *, causal: bool = False, dft: str = "fft"):
        super().__init__()
        if causal:
            raise ValueError("fnet has no causal form: every output holds every token")
        if dft not in DFTS:
            raise ValueError(f"dft is {dft!r} and should be one of {', '.join(DFTS)}")
        self.dft = dft
        if dft == "matrix":
            self.rows, self.columns = _dft.Waves(shape.seq), _dft.Waves(shape.dim)

    def project(self, x: Tensor) -> tuple[Tensor]:
        return (x,)

    def mix(self, x: Tensor) -> Tensor:
        if self.dft == "fft":
            return fourier_mix(x)
        rows, columns = self.rows.of(x.shape[1], x), self.columns.of(x.shape[2], x)
        return fourier_mix(x, dft="matrix", rows=rows, columns=columns)

    def combine(self, y: Tensor) -> Tensor:
        return y

    def forward(self, x: Tensor) -> Tensor:
        return self.combine(self.mix(*self.project(x)))


def reference(module: FNet, x: Tensor) -> Tensor:
    """Re(F x F) = C x C - S x S with matrices of cosines and sines."""

    def angles(n: int) -> Tensor:
        k = torch.arange(n, dtype=torch.int64)
        return (2 * math.pi / n) * (k[:, None] * k % n).to(torch.float64)

    rows, columns = angles(x.shape[1]), angles(x.shape[2])
    wide = x.to(torch.float64)
    y = rows.cos() @ wide @ columns.cos() - rows.sin() @ wide @ columns.sin()
    return y.to(x.dtype)


def flops(shape: Shape, *, causal: bool = False, mode: str = "forward", dft: str = "fft") -> Flops:
    """Transforms of half of the columns and of half of the rows, real; or products of two quarters."""
    b, n, d = shape.batch, shape.seq, shape.dim
    b *= 2 if mode == "train" else 1
    if dft == "matrix":
        quarters = ((n // 2 + 1, d // 2 + 1), ((n - 1) // 2, (d - 1) // 2))
        return Flops(matmul=b * sum(2 * r * c * (r + c) for r, c in quarters), elementwise=b * 3 * n * d)
    if n * d <= SMALL:
        return Flops(fft=b * (2.5 if _order(n, d) else 5) * n * d * math.log2(n * d))
    columns = (d // 2 + 1) * 2.5 * n * math.log2(n)
    rows = (n // 2 + 1) * 2.5 * d * math.log2(d)
    return Flops(fft=b * (columns + rows), elementwise=b * 1.5 * n * d)


MECHANISM = Mechanism(
    name="fnet",
    build=FNet,
    title="FNet",
    paper="Lee-Thorp et al. 2022, arXiv:2105.03824",
    reference=reference,
    causal=(False,),
    complexity=Complexity(time="n d log n + n d log d", memory="n d"),
    flops=flops,
    positional=True,
)

"""FNet: mixing by an unparameterised Fourier transform, along the sequence and along the width.

    y = Re(FFT_seq(FFT_hidden(x)))

The real part sees only the even part of x, (x[t, c] + x[-t, -c]) / 2 with indices mod n and d, and that has a
real transform. So half of the columns, a real transform along each, half of the rows of the result and a
complex-to-real transform along each of them give half of y; the other half is its mirror image. The map is
linear and symmetric: it is its own gradient.

``dft="matrix"`` multiplies by matrices of cosines and sines, y = C x C - S x S, as the paper does on TPUs.
C sees the part of x that is even in both indices and S the part that is odd in both: a quarter of x each.
The module holds the matrices of the length and width that it was built for, as buffers that are not saved;
those of another length (not a part of them: its angles are others) are made in the pass that needs them.

Paper: Lee-Thorp et al. 2022, arXiv:2105.03824, equation 3. No parameters, no projections, no causal form.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Self

import torch
from torch import Tensor, nn

from effbench import products
from effbench.mechanisms import _parts
from effbench.plugin import Complexity, Flops, Mechanism, Shape

TILE = 1 << 21  # elements of a tile of columns, whose buffer is used again
ROWS = 1 << 19  # elements of a tile of rows, which is written twice while it is in cache
SMALL = 1 << 18  # elements of a sequence up to which many small steps take longer than one large one
SMALL_ELSEWHERE = 1 << 24  # elements of a batch below which a GPU is faster with the whole spectrum
COLUMNS = 64  # at least so many columns along the sequence
LONG = 1 << 15  # tokens of which a column goes through 2 MiB of cache lines: it is copied out first
BLOCK = 4096  # tokens whose columns are copied at once
LINE = 64  # bytes of a cache line

DFTS = ("fft", "matrix")
Matrices = tuple[Tensor, Tensor]  # the cosines and the sines of a length, see dft_matrices


@_parts.eager
def fourier_mix(
    x: Tensor, *, dft: str = "fft", rows: Matrices | None = None, columns: Matrices | None = None
) -> Tensor:
    """x [b, n, d], any n and d; half precision is computed in float32.

    ``dft``: "fft" or "matrix"; rows and columns: the ``dft_matrices`` of n and of d, made where not given.
    """
    transform = _by_fft if dft == "fft" else partial(_by_matrices, rows=rows, columns=columns)
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
    if n * d <= SMALL or (not _parts.on_cpu(x) and x.numel() < SMALL_ELSEWHERE):
        return torch.fft.fft2(x.to(wide)).real.to(x.dtype)
    if not _parts.on_cpu(x):
        return _at_once(x)
    spectrum = x.new_empty(b, rows, columns, dtype=wide.to_complex())
    width = max(COLUMNS, TILE // (b * n))
    width = -(-columns // -(-columns // width))  # of tiles that are alike
    room = x.new_empty(b, n, _apart(width, wide), dtype=wide)
    turned = x.new_empty(b, width, n, dtype=wide) if n >= LONG else None
    for a, stop in _parts.tiles(columns, width):
        even = _even_columns(x, a, stop, room[..., : stop - a])
        if turned is not None:
            even = _turn(even, turned[:, : stop - a])
        # irfft conjugates what fft would do. torch returns the columns of rfft one after the other.
        torch.conj_physical(torch.fft.rfft(even, dim=1), out=spectrum[..., a:stop])
    del room, turned, even  # before y is there
    y = torch.empty_like(x)
    for a, stop in _parts.tiles(rows, max(1, ROWS // (b * d))):
        _put_rows(y, a, torch.fft.irfft(spectrum[:, a:stop], n=d, dim=2, norm="forward"))
    return y


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


def _even_columns(x: Tensor, a: int, stop: int, even: Tensor) -> Tensor:
    """x[t, c] + x[-t, -c] for a <= c < stop, twice the even part."""
    d, first = x.shape[2], max(a, 1)
    _add_mirrored(x[..., first:stop], x[..., d - stop + 1 : d - first + 1], even[..., first - a :])
    if a == 0:
        _add_mirrored(x[..., :1], x[..., :1], even[..., :1])
    return even


def _turn(x: Tensor, room: Tensor) -> Tensor:
    """x [b, n, c], whose columns now lie one after the other, in room [b, c, n]."""
    for a, stop in _parts.tiles(x.shape[1], BLOCK):
        room[..., a:stop] = x[:, a:stop].mT
    return room.mT


def _add_mirrored(x: Tensor, mirrored: Tensor, out: Tensor) -> None:
    """x plus the other turned round: all of its columns, and its tokens but for token 0, which stays."""
    x, mirrored = x.to(out.dtype), mirrored.to(out.dtype)
    torch.add(x[:, :1], mirrored[:, :1].flip(2), out=out[:, :1])
    torch.add(x[:, 1:], mirrored[:, 1:].flip(1, 2), out=out[:, 1:])


def _put_rows(y: Tensor, a: int, part: Tensor) -> None:
    """y[k, l] = y[-k, -l] = part[k - a, l] / 2, for the rows k of a tile that starts at a."""
    n, stop = y.shape[1], a + part.shape[1]
    torch.mul(part, 0.5, out=y[:, a:stop])
    low, high = max(a, 1), min(stop, (n + 1) // 2)
    if low < high:
        turned, mirrored = part[:, low - a : high - a].flip(1, 2), y[:, n - high + 1 : n - low + 1]
        torch.mul(turned[..., :-1], 0.5, out=mirrored[..., 1:])
        torch.mul(turned[..., -1:], 0.5, out=mirrored[..., :1])


def _by_matrices(x: Tensor, rows: Matrices | None, columns: Matrices | None) -> Tensor:
    wide = _parts.accumulator(x.dtype)
    rows = rows or dft_matrices(x.shape[1], wide, x.device)
    columns = columns or dft_matrices(x.shape[2], wide, x.device)
    y = torch.empty_like(x)
    for one, target in zip(x, y, strict=True):
        one = one.to(wide)
        even, odd = (_fold(_fold(one, sign).mT, sign).mT for sign in (1, -1))
        even = products.mm(products.mm(rows[0], even), columns[0])
        odd = products.mm(products.mm(rows[1], odd), columns[1])
        _unfold(target, even, odd)
    return y


def _fold(x: Tensor, sign: int) -> Tensor:
    """x[c] + sign x[-c] along the last dimension: where c <= -c mod d, without zeros and without repeats."""
    d = x.shape[-1]
    paired = (d - 1) // 2  # how many c have a partner -c > c
    if sign < 0:
        return x[..., 1 : paired + 1] - x[..., d - paired :].flip(-1)
    even = x[..., : d // 2 + 1].clone()
    even[..., 1 : paired + 1] += x[..., d - paired :].flip(-1)
    return even


def _unfold(y: Tensor, even: Tensor, odd: Tensor) -> None:
    """y [n, d] from C x C and S x S, of which the first is even and the second odd in both indices."""
    (n, d), (r, c) = y.shape, odd.shape
    y[: n // 2 + 1, : d // 2 + 1] = even
    y[n - r :, : d // 2 + 1] = even[1 : r + 1].flip(0)
    y[: n // 2 + 1, d - c :] = even[:, 1 : c + 1].flip(1)
    y[n - r :, d - c :] = even[1 : r + 1, 1 : c + 1].flip(0, 1)
    y[1 : r + 1, 1 : c + 1] -= odd
    y[n - r :, d - c :] -= odd.flip(0, 1)
    y[n - r :, 1 : c + 1] += odd.flip(0)
    y[1 : r + 1, d - c :] += odd.flip(1)


def dft_matrices(n: int, dtype: torch.dtype, device: torch.device) -> Matrices:
    """cos and sin of 2 pi j k / n for 0 <= j, k <= n / 2, the sines without those that are 0.

    n^2 / 2 elements in all.
    """
    turn = (2 * math.pi / n) * torch.arange(n, device=device, dtype=torch.float64)
    cosines = _at_products(turn.cos().to(dtype), 0, n // 2 + 1)
    return cosines, _at_products(turn.sin().to(dtype), 1, (n - 1) // 2 + 1)


def _at_products(wave: Tensor, first: int, stop: int) -> Tensor:
    """wave[j k mod n], rows by tiles, at most some 64: the indices take more memory than the matrix."""
    k = torch.arange(first, stop, device=wave.device)
    matrix = wave.new_empty(len(k), len(k))
    for a, b in _parts.tiles(len(k), max(1, TILE // max(1, len(k)), len(k) // 64)):
        matrix[a:b] = wave[k[a:b, None] * k % len(wave)]
    return matrix


class _Waves(nn.Module):
    """The DFT matrices of one length, in the accumulator of the dtype that the module is in."""

    def __init__(self, length: int):
        super().__init__()
        self.length = length
        self._make(torch.empty(0))

    def of(self, length: int, x: Tensor) -> Matrices | None:
        """The matrices, where they are those of this length and of what x is computed in."""
        held = (self.length, self.cosines.dtype, self.cosines.device)
        return (self.cosines, self.sines) if held == (length, _parts.accumulator(x.dtype), x.device) else None

    def _make(self, like: Tensor) -> None:
        pair = dft_matrices(self.length, _parts.accumulator(like.dtype), like.device)
        for name, matrix in zip(("cosines", "sines"), pair, strict=True):
            self.register_buffer(name, matrix, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """To another dtype or device: made anew there, since a cast would keep the rounding of this dtype."""
        like = fn(self.cosines[:0])
        if (_parts.accumulator(like.dtype), like.device) != (self.cosines.dtype, self.cosines.device):
            self._make(like)
        return self


class FNet(nn.Module):
    def __init__(self, shape: Shape, *, causal: bool = False, dft: str = "fft"):
        super().__init__()
        if causal:
            raise ValueError("fnet has no causal form: every output holds every token")
        if dft not in DFTS:
            raise ValueError(f"dft is {dft!r} and should be one of {', '.join(DFTS)}")
        self.dft = dft
        if dft == "matrix":
            self.rows, self.columns = _Waves(shape.seq), _Waves(shape.dim)

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
        return Flops(fft=b * 5 * n * d * math.log2(n * d))
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

"""FNet: mixing by an unparameterised Fourier transform, along the sequence and along the width.

    y = Re(FFT_seq(FFT_hidden(x)))

The real part sees only the even part of x, (x[t, c] + x[-t, -c]) / 2 with indices mod n and d, and that has a
real transform. So half of the columns, a real transform along each, half of the rows of the result and a
complex-to-real transform along each of them give half of y; the other half is its mirror image. The map is
linear and symmetric: it is its own gradient.

``dft="matrix"`` multiplies by matrices of cosines and sines, y = C x C - S x S, as the paper does on TPUs.
C sees the part of x that is even in both indices and S the part that is odd in both: a quarter of x each.

Paper: Lee-Thorp et al. 2022, arXiv:2105.03824, equation 3. No parameters, no projections, no causal form.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from effbench import products
from effbench.mechanisms import _parts
from effbench.plugin import Complexity, Flops, Mechanism, Shape

TILE = 1 << 20  # elements transformed at a time: their temporaries are reused, not mapped anew
SMALL = 1 << 17  # elements of a sequence below which many small steps take longer than one large one
COLUMNS = 64  # and at least so many columns along the sequence
KEPT = 4  # lengths whose matrices are kept


@_parts.eager
def fourier_mix(x: Tensor, *, dft: str = "fft") -> Tensor:
    """x [b, n, d], any n and d; half precision is computed in float32. ``dft``: "fft" or "matrix"."""
    return _FourierMix.apply(x, _TRANSFORMS[dft])


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
    if n * d < SMALL:
        return torch.fft.fft2(x.to(wide)).real.to(x.dtype)
    spectrum = x.new_empty(
        b, columns, rows, dtype=wide.to_complex()
    )  # the layout in which torch returns rfft
    width = max(COLUMNS, TILE // (b * n))
    for a in (0, *range(1, columns, width)):
        stop = min(columns, a + width) if a else 1
        spectrum[:, a:stop] = torch.fft.rfft(_even_columns(x, a, stop, wide), dim=1).mT
    y = torch.empty_like(x)
    for a, stop in _parts.tiles(rows, max(1, TILE // (b * d))):
        # irfft, which conjugates what fft would do, gives y[-k]: hfft would copy its input first.
        _put_rows(y, a, torch.fft.irfft(spectrum[..., a:stop].mT, n=d, dim=2, norm="forward"))
    return y


def _even_columns(x: Tensor, a: int, stop: int, wide: torch.dtype) -> Tensor:
    """(x[t, c] + x[-t, -c]) / 2 for a <= c < stop: either column 0 alone or others."""
    first = -(stop - 1) % x.shape[2]
    mirrored = x[..., first : first + stop - a]
    even = x[..., a:stop].to(wide) * 0.5
    even[:, :1].add_(mirrored[:, :1].flip(2), alpha=0.5)
    even[:, 1:].add_(mirrored[:, 1:].flip(1, 2), alpha=0.5)
    return even


def _put_rows(y: Tensor, a: int, part: Tensor) -> None:
    """y[-k] = part[k - a] and y[k, l] = y[-k, -l], for the rows k of a tile that starts at a."""
    n, stop = y.shape[1], a + part.shape[1]
    y[:, a:stop, :1] = part[..., :1]
    y[:, a:stop, 1:] = part[..., 1:].flip(2)
    low, high = max(a, 1), min(stop, (n + 1) // 2)
    if low < high:
        y[:, n - high + 1 : n - low + 1] = part[:, low - a : high - a].flip(1)


def _by_matrices(x: Tensor) -> Tensor:
    wide = _parts.accumulator(x.dtype)
    rows, columns = (dft_matrices(length, wide, x.device) for length in x.shape[1:])
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


def dft_matrices(n: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """cos and sin of 2 pi j k / n for 0 <= j, k <= n / 2, the sines without those that are 0.

    Kept for the last few lengths: n^2 / 2 elements each. (A matrix of another length holds other angles.)
    """
    key = (n, dtype, device)
    if key in _kept:
        return _kept[key]
    turn = (2 * math.pi / n) * torch.arange(n, device=device, dtype=torch.float64)
    pair = tuple(
        _at_products(wave.to(dtype), first, stop)
        for wave, first, stop in ((turn.cos(), 0, n // 2 + 1), (turn.sin(), 1, (n - 1) // 2 + 1))
    )
    if not isinstance(pair[0], FakeTensor) and not torch.compiler.is_compiling():
        _kept[key] = pair
        while len(_kept) > KEPT:
            del _kept[next(iter(_kept))]
    return pair


_kept: dict[tuple[int, torch.dtype, torch.device], tuple[Tensor, ...]] = {}


def _at_products(wave: Tensor, first: int, stop: int) -> Tensor:
    """wave[j k mod n], rows by tiles: the indices take more memory than the matrix."""
    k = torch.arange(first, stop, device=wave.device)
    matrix = wave.new_empty(len(k), len(k))
    for a, b in _parts.tiles(len(k), max(1, TILE // max(1, len(k)))):
        matrix[a:b] = wave[k[a:b, None] * k % len(wave)]
    return matrix


_TRANSFORMS = {"fft": _by_fft, "matrix": _by_matrices}


class FNet(nn.Module):
    def __init__(self, shape: Shape, *, causal: bool = False, dft: str = "fft"):
        super().__init__()
        if causal:
            raise ValueError("fnet has no causal form: every output holds every token")
        if dft not in _TRANSFORMS:
            raise ValueError(f"dft is {dft!r} and should be one of {', '.join(_TRANSFORMS)}")
        self.dft = dft

    def project(self, x: Tensor) -> tuple[Tensor]:
        return (x,)

    def mix(self, x: Tensor) -> Tensor:
        return fourier_mix(x, dft=self.dft)

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
    if n * d < SMALL:
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
)

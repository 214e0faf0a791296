"""The operators of the contract, used alone: against naive loops, each other, and at the edge of range."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from torch.testing import assert_close

from effbench import products
from effbench.mechanisms import (
    _line,
    _linear,
    _linear_pooled,
    _parts,
    _plane,
    _running,
    _shares,
    _taps,
    _tiled,
    fnet,
)
from effbench.mechanisms.aft_conv import aft_conv, supports
from effbench.mechanisms.aft_full import aft_full
from effbench.mechanisms.aft_local import aft_local
from effbench.mechanisms.aft_simple import aft_simple
from effbench.mechanisms.fnet import fourier_mix
from effbench.mechanisms.linear import linear_attention, log_features
from effbench.mechanisms.mha import softmax_attention
from effbench.mechanisms.mha_tiled import tiled_attention
from effbench.mechanisms.synthesizer_dense import synthesizer_dense
from effbench.mechanisms.synthesizer_factorized_dense import synthesizer_factorized_dense
from effbench.mechanisms.synthesizer_factorized_random import synthesizer_factorized_random
from effbench.mechanisms.synthesizer_random import synthesizer_random

from .conftest import MECHANISMS, built, sample

EXACT = {"rtol": 1e-9, "atol": 1e-12}


def qkv(n, d=8, dtype=torch.float64):
    return tuple(sample(n, d=d, dtype=dtype, seed=seed) for seed in (1, 2, 3))


def assert_alike(got, expected, leaves):
    """Values, and gradients of all leaves."""
    for a, b in zip((got, *slopes(got, leaves)), (expected, *slopes(expected, leaves)), strict=True):
        assert_close(a, b, **EXACT)


def slopes(y, leaves):
    return torch.autograd.grad(y.sin().sum(), leaves)


def bias_of(n, rank=None, scale=1.0):
    generator = torch.Generator().manual_seed(4)
    shape = (n, rank or n)
    factors = [scale * torch.randn(*shape, generator=generator, dtype=torch.float64) for _ in range(2)]
    return tuple(factors) if rank else factors[0]


def naive(q, k, v, w, causal=False):
    """AFT with any bias [n, n], in log space."""
    n = q.shape[1]
    logits = k[:, None] + w[None, :, :, None]  # [b, t, s, d]
    if causal:
        logits = logits.masked_fill(torch.ones(n, n, dtype=torch.bool).triu(1)[None, :, :, None], -torch.inf)
    return q.sigmoid() * (logits.softmax(2) * v[:, None]).sum(2)


@pytest.mark.parametrize("causal", [False, True])
def test_aft_full_takes_a_dense_bias_and_factors(causal):
    q, k, v = qkv(65)
    u, w = bias_of(65, rank=3)
    assert_close(aft_full(q, k, v, (u, w), causal=causal), naive(q, k, v, u @ w.T, causal), **EXACT)
    assert_close(aft_full(q, k, v, u @ w.T, causal=causal), naive(q, k, v, u @ w.T, causal), **EXACT)


@pytest.mark.parametrize("shape", [(64, 64), (65, 64), (64, 65), (66, 66)])
def test_a_bias_of_another_length_is_refused(shape):
    with pytest.raises(ValueError, match="position bias has 6[46] .* 65 tokens"):
        aft_full(*qkv(65), torch.zeros(*shape, dtype=torch.float64))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", [0, 1, 2, 130, 499, 500, 10**9])
def test_aft_local_is_full_with_a_bias_cut_to_the_window(window, causal):
    q, k, v = qkv(500, d=4)
    w = bias_of(500)
    place = torch.arange(500)
    cut = torch.where((place - place[:, None]).abs() < window, w, 0.0)
    got = aft_local(q, k, v, w, window=window, causal=causal)
    assert_close(got, aft_full(q, k, v, cut, causal=causal), **EXACT)


@pytest.mark.parametrize("causal", [False, True])
def test_identities(causal):
    """Local with a window of n is full, with none simple; conv without a kernel is simple per head."""
    q, k, v = qkv(150)
    w = bias_of(150, rank=4)
    simple = aft_simple(q, k, v, causal=causal)
    assert_close(
        aft_local(q, k, v, w, window=150, causal=causal), aft_full(q, k, v, w, causal=causal), **EXACT
    )
    assert_close(aft_local(q, k, v, w, window=0, causal=causal), simple, **EXACT)
    assert_close(aft_conv(q, k, v, torch.zeros(8, 11).double(), causal=causal), simple, **EXACT)
    shared = k[:, :, :2].repeat_interleave(4, 2)
    got = aft_conv(q, k[:, :, :2], v, torch.zeros(2, 5).double(), causal=causal)
    assert_close(got, aft_simple(q, shared, v, causal=causal), **EXACT)


def test_aft_conv_on_a_grid_without_a_kernel_is_simple():
    q, k, v = qkv(42)
    got = aft_conv(q, k, v, torch.zeros(8, 3, 3).double(), grid=(6, 7))
    assert_close(got, aft_simple(q, k, v), **EXACT)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("s", [1, 3, 11, 63])
def test_aft_conv_taps_against_a_naive_loop(s, causal):
    n, (q, k, v) = 37, qkv(37)
    kernel = torch.randn(8, s, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    expected = torch.empty_like(q)
    for c in range(8):
        w = torch.zeros(n, n, dtype=torch.float64)
        for t in range(n):
            for i in range(s):
                key = t - s + 1 + i if causal else t - (s - 1) // 2 + i
                if 0 <= key < n:
                    w[t, key] = kernel[c, i]
        expected[:, :, c] = naive(q, k, v, w, causal)[:, :, c]
    assert_close(aft_conv(q, k, v, kernel, causal=causal), expected, **EXACT)


@pytest.mark.parametrize("keys", ["alike", "rising", "falling", "jumping"])
def test_causal_aft_simple_by_tiles_whose_shifts_move(keys, monkeypatch):
    """Values and gradients, across the seams of tiles, also of keys that only later tiles can represent."""
    monkeypatch.setattr(_running, "TILE", 64)
    n, (q, k, v) = 137, qkv(137, d=3)
    slope = {"alike": 0, "rising": 300, "falling": -300, "jumping": 0}[keys]
    k = k + slope * torch.linspace(0, 1, n).double()[:, None]
    if keys == "jumping":
        k[:, 100:, 1] += 90
        k[0, 50:52] += 45
        k[1, 70, 2] += 200
    leaves = [x.requires_grad_() for x in (q, k, v)]
    got, expected = aft_simple(*leaves, causal=True), naive(*leaves, torch.zeros(n, n).double(), True)
    assert_alike(got, expected, leaves)


def test_causal_aft_simple_by_levels_of_keys_that_are_out_of_reach_of_their_tile(monkeypatch):
    """Several levels in a tile, in some columns only, over groups of rows and a rest."""
    monkeypatch.setattr(_running, "COLUMNS", 2)
    n, (q, k, v) = 300, qkv(300, d=5)
    k = k * torch.tensor([50, 300, 1, 1, 20]).double()
    leaves = [x.requires_grad_() for x in (q, k, v)]
    got, expected = aft_simple(*leaves, causal=True), naive(*leaves, torch.zeros(n, n).double(), True)
    assert_alike(got, expected, leaves)
    late = (k + 1000 * (torch.arange(n) > 200).double()[:, None]).detach()
    assert torch.equal(aft_simple(q, late, v, causal=True)[:, :201], got[:, :201])


def test_aft_conv_taps_on_a_grid_against_a_naive_loop():
    height, width, s, (q, k, v) = 5, 7, 3, qkv(35, d=4)
    kernel = torch.randn(2, s, s, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    expected = torch.empty_like(q)
    for head in range(2):
        w = torch.zeros(35, 35, dtype=torch.float64)
        for y in range(height):
            for x in range(width):
                for i in range(s):
                    for j in range(s):
                        row, column = y + i - 1, x + j - 1
                        if 0 <= row < height and 0 <= column < width:
                            w[y * width + x, row * width + column] = kernel[head, i, j]
        mine = slice(2 * head, 2 * head + 2)
        keys = k[:, :, head : head + 1].expand(-1, -1, 2)
        expected[:, :, mine] = naive(q[:, :, mine], keys, v[:, :, mine], w)
    assert_close(aft_conv(q, k[:, :, :2], v, kernel, grid=(height, width)), expected, **EXACT)


@pytest.mark.parametrize("gate", [torch.sigmoid, torch.relu])
def test_aft_conv_of_large_grids_by_slices_is_that_of_all_channels_at_once(gate, monkeypatch):
    q, k, v = (x[:, :42] for x in qkv(42))
    kernel = torch.randn(2, 3, 3, dtype=torch.float64)
    expected = aft_conv(q, k[:, :, :2], v, kernel, grid=(6, 7), gate=gate)
    for name, size in (("LARGE", 0), ("WIDTH", 3), ("TILE", 20)):
        monkeypatch.setattr(_plane, name, size)
    assert_close(aft_conv(q, k[:, :, :2], v, kernel, grid=(6, 7), gate=gate), expected, **EXACT)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("keys", ["tame", "wild", "wild at the end"])
def test_tiled_attention_where_exponentials_are_in_range_as_they_are_and_where_not(keys, causal, monkeypatch):
    """Values and gradients, over several tiles and a shorter one."""
    ways = set()
    for name in ("_by_sums", "_by_shifts"):
        way = getattr(_tiled._Group, name)
        monkeypatch.setattr(_tiled._Group, name, lambda *x, name=name, way=way: ways.add(name) or way(*x))
    q, k, v = (x.view(2, 2, 1100, 4) for x in qkv(1100))
    k[:, :, {"tame": 1100, "wild": 0, "wild at the end": 700}[keys] :] *= 200
    leaves = [x.requires_grad_() for x in (q, k, v)]
    got, expected = tiled_attention(*leaves, causal=causal), softmax_attention(*leaves, causal=causal)
    assert_close(got, expected, **EXACT)
    some = {"tame": {"_by_sums"}, "wild": {"_by_shifts"}, "wild at the end": {"_by_sums", "_by_shifts"}}
    assert ways == some["wild" if keys != "tame" and not causal else keys]
    mine, theirs = (torch.autograd.grad(y.sin().sum(), leaves) for y in (got, expected))
    for a, b in zip(mine, theirs, strict=True):
        assert_close(a, b, **EXACT)


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("n", [513, 1100])
def test_tiled_attention_by_shared_tiles_and_elsewhere(n, causal, elsewhere, monkeypatch):
    """The tiles that oneDNN's threads share, and those of a GPU."""
    if elsewhere:
        monkeypatch.setattr(_parts, "on_cpu", lambda x: False)
    else:
        monkeypatch.setattr(products, "choice_by_heads", lambda like: "onednn")
    leaves = [x.view(2, 2, n, 4).requires_grad_() for x in qkv(n)]
    assert_alike(tiled_attention(*leaves, causal=causal), softmax_attention(*leaves, causal=causal), leaves)


@pytest.mark.parametrize("causal", [False, True])
def test_wild_attention_multiplies_no_denormal_number(causal, monkeypatch):
    """They take a CPU up to a hundred times as long, and for wild inputs many exponentials would be some."""
    factors, add = [], _tiled._Group._add_product
    monkeypatch.setattr(_tiled._Group, "_add_product", lambda *x: factors.extend(x[2:]) or add(*x))
    q, k, v = (50 * x.float().view(2, 2, 600, 4) for x in qkv(600))
    leaves = [x.requires_grad_() for x in (q, k, v)]
    tiled_attention(*leaves, causal=causal).backward(torch.ones_like(v))
    least = torch.finfo(torch.float32).tiny
    assert factors
    assert not any(((x != 0) & (x.abs() < least)).any() for x in factors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_of_keys_far_below_the_shift_are_normal_and_nothing_beside_a_sum(dtype):
    weights = _parts.exp_keys(torch.linspace(-1500, 0, 1 << 16, dtype=dtype), torch.zeros((), dtype=dtype))
    rounding = torch.finfo(dtype)
    assert weights.min() > rounding.tiny
    faint = weights.min() * len(weights)
    assert faint < rounding.eps * _parts.smallest(dtype)


@pytest.mark.parametrize("exp_wins", [False, True])
def test_tiled_attention_by_either_exponential(exp_wins, monkeypatch):
    monkeypatch.setattr(_parts, "_exp_wins", lambda: exp_wins)
    leaves = [x.view(4, 70, 4).requires_grad_() for x in qkv(70)]
    left, right, v = leaves
    got, expected = _tiled.tiled_softmax(left / 2, right, v, causal=False), softmax_attention(*leaves)
    assert_alike(got, expected, leaves)


def test_tiled_attention_rounds_a_row_alike_whatever_the_tokens_after_it_are():
    q, k, v = (x.view(2, 2, 600, 4).float() for x in qkv(600))
    y = tiled_attention(q, k, v, causal=True)
    for factor in (3, 1000):
        later = (torch.cat([x[:, :, :300], factor * x[:, :, 300:]], 2) for x in (q, k, v))
        assert torch.equal(tiled_attention(*later, causal=True)[:, :, :300], y[:, :, :300])


@pytest.mark.parametrize("by_torch", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("s", [1, 5, 51])
def test_aft_conv_by_chunks_whose_shifts_move(s, causal, by_torch, monkeypatch):
    """Values and gradients, across the seams of chunks, also of keys that only later chunks can represent."""
    monkeypatch.setattr(_taps, "convolves", lambda dtype: by_torch)
    monkeypatch.setattr(_line, "CHUNK", 0)
    n, (q, k, v) = 210, qkv(210, d=4)
    k = k[:, :, :2] + torch.linspace(0, 100, n).double()[:, None]
    k[1, 150:] += 200
    kernel = torch.randn(2, s, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    leaves = [x.requires_grad_() for x in (q, k, v, kernel)]
    tap = torch.arange(n) - torch.arange(n)[:, None] + (s - 1 if causal else s // 2)
    w = torch.where((tap >= 0) & (tap < s), kernel[:, tap.clamp(0, s - 1)], 0.0)
    halves = ((q[..., a : a + 2], k[..., i : i + 1], v[..., a : a + 2], w[i]) for i, a in enumerate((0, 2)))
    expected = torch.cat([naive(*half, causal) for half in halves], 2)
    got = aft_conv(q, k, v, kernel, causal=causal)
    assert_close(got, expected, **EXACT)
    mine, theirs = (torch.autograd.grad(y.sin().sum(), leaves) for y in (got, expected))
    for a, b in zip(mine, theirs, strict=True):
        assert_close(a, b, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("bias", [-300.0, -9.0, 5.0, 120.0])
def test_aft_conv_on_a_grid_where_a_dominant_key_is_taken_away_again(bias):
    """exp(w) - 1 leaves nothing of what was pooled: these rows, and few others, are computed again."""
    q, k, v = (x.float() for x in qkv(400, d=2))
    k = k[:, :, :1]
    k[0, 130], k[1, 0] = 30.0, 150.0
    kernel = torch.full((1, 3, 3), bias)
    row, column = torch.arange(400) // 20, torch.arange(400) % 20
    near = ((row - row[:, None]).abs() <= 1) & ((column - column[:, None]).abs() <= 1)
    w = torch.where(near, bias, 0.0).double()
    expected = naive(q.double(), k.double(), v.double(), w)
    assert_close(aft_conv(q, k, v, kernel, grid=(20, 20)).double(), expected, rtol=1e-5, atol=2e-6)


def test_aft_conv_refuses_what_does_not_fit():
    q, k, v = qkv(12)
    with pytest.raises(ValueError, match="odd"):
        aft_conv(q, k, v, torch.zeros(8, 4).double())
    with pytest.raises(ValueError, match="do not fit"):
        aft_conv(q, k, v, torch.zeros(8, 3, 3).double(), grid=(3, 5))
    with pytest.raises(ValueError, match="no causal form"):
        aft_conv(q, k, v, torch.zeros(8, 3, 3).double(), grid=(3, 4), causal=True)


def test_aft_conv_says_which_cells_it_supports():
    from effbench.cell import Cell

    def cell(seq, dims, causal=False):
        options = {"dims": dims}
        return Cell(mechanism="aft-conv", options=options, seq=seq, dim=8, heads=2, threads=1, causal=causal)

    assert supports(cell(8, 1)) is None
    assert supports(cell(9, 2)) is None
    assert "8 tokens" in supports(cell(8, 2))
    assert "causal" in supports(cell(9, 2, causal=True))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shift", [50.0, -50.0, 100.0, -100.0, 1e3, -1e4, 1e4])
def test_a_shift_of_all_keys_cancels(shift, causal):
    q, k, v = qkv(300, d=4)
    w, kernel = bias_of(300, rank=3), torch.randn(4, 5, dtype=torch.float64)
    for operator in (
        lambda k: aft_full(q, k, v, w, causal=causal),
        lambda k: aft_local(q, k, v, w, window=9, causal=causal),
        lambda k: aft_simple(q, k, v, causal=causal),
        lambda k: aft_conv(q, k, v, kernel, causal=causal),
    ):
        assert_close(operator(k + shift), operator(k), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shift", [50.0, -1e4, 1e4])
def test_a_shift_of_a_row_of_the_bias_cancels_and_of_a_column_does_not(shift, causal):
    q, k, v = qkv(65)
    w = bias_of(65)
    before = aft_full(q, k, v, w, causal=causal)
    row, column = w.clone(), w.clone()
    row[20] += shift
    column[:, 20] += shift
    assert_close(aft_full(q, k, v, row, causal=causal), before, rtol=1e-9, atol=1e-9)
    after = aft_full(q, k, v, column, causal=causal)
    assert_close(after, naive(q, k, v, column, causal), **EXACT)
    assert (after - before)[:, 21:].abs().max() > 0.01


@pytest.mark.parametrize("operator", ["full", "local", "simple", "conv"])
@pytest.mark.parametrize("rise", [110.0, 1e4])
def test_a_late_large_key_leaves_earlier_rows_exact(operator, rise):
    n = 700
    q, k, v = (x.float() for x in qkv(n, d=4))
    u, w = (x.float() for x in bias_of(n, rank=3, scale=0.5))
    kernel = torch.randn(4, 5)
    run = {
        "full": lambda k: aft_full(q, k, v, (u, w), causal=True),
        "local": lambda k: aft_local(q, k, v, (u, w), window=9, causal=True),
        "simple": lambda k: aft_simple(q, k, v, causal=True),
        "conv": lambda k: aft_conv(q, k, v, kernel, causal=True),
    }[operator]
    late = k.clone()
    late[:, 650] += rise
    before, after = run(k), run(late)
    assert torch.equal(after[:, :650], before[:, :650])
    assert_close(after[:, 660:], (q.sigmoid() * v[:, 650:651])[:, 660:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rise", [20.0, 50.0, 1e4])
def test_shifts_that_a_late_key_moves_change_no_bit_of_earlier_tiles(rise, monkeypatch):
    """Without it one look says that no tile has a shift of its own; with it every tile is looked at."""
    monkeypatch.setattr(_running, "TILE", 2 * 4 * 48)
    q, k, v = (x.float() for x in qkv(700, d=4))
    late = k.clone()
    late[:, 650] += rise
    before, after = (aft_simple(q, keys, v, causal=True) for keys in (k, late))
    assert torch.equal(after[:, :650], before[:, :650])
    assert not torch.equal(after[:, 650:], before[:, 650:])


@pytest.mark.parametrize("causal", [False, True])
def test_a_dominant_key_with_a_bias_that_undoes_it(causal):
    """The bias takes the dominant key away again: exp(k) alone has lost all the others."""
    n = 200
    q, k, v = (x.float() for x in qkv(n, d=4))
    k[:, 60] += 150.0
    w = torch.zeros(n, n)
    w[:, 60] = -300.0
    expected = naive(*(x.double() for x in (q, k, v, w)), causal=causal)
    got = aft_full(q, k, v, w, causal=causal)
    assert_close(got.double(), expected, rtol=1e-4, atol=1e-5)
    k, kernel = k[:, :, :1], torch.tensor([[0.0, -300.0, 0.0]])
    w = torch.zeros(n, n).fill_diagonal_(-300.0)
    inside = torch.tensor([[0.0, 0.0, -300.0]]) if causal else kernel
    expected = naive(q.double(), k.double().expand(-1, -1, 4), v.double(), w.double(), causal)
    got = aft_conv(q, k, v, inside, causal=causal).double()
    assert_close(got, expected, rtol=1e-4, atol=1e-5)
    assert_close(
        aft_local(q, k.expand(-1, -1, 4), v, w, window=1, causal=causal).double(),
        expected,
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("causal", [False, True])
def test_the_last_causal_row_sees_what_all_rows_of_the_other_form_see(causal):
    q, k, v = qkv(90)
    w = bias_of(90, rank=2)
    assert_close(aft_full(q, k, v, w, causal=True)[:, -1], aft_full(q, k, v, w)[:, -1], **EXACT)
    assert_close(aft_simple(q, k, v, causal=True)[:, -1], aft_simple(q, k, v)[:, -1], **EXACT)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shift", [0.0, -10.0, -17.0, -50.0, -400.0])
def test_linear_attention_of_very_negative_queries_and_keys(shift, causal):
    """elu(x) + 1 is 0 in float32 from -17 on; exp(x) is not, and only ratios matter."""
    q, k, v = (sample(100, seed=seed).unflatten(2, (2, 8)).transpose(1, 2) for seed in (1, 2, 3))
    q, k = q.clamp(max=2) - 3 + shift, k - 4 + shift
    logits = torch.logsumexp(q.minimum(torch.tensor(0.0))[..., :, None, :] + k[..., None, :, :], -1)
    assert q.max() < 0 > k.max()
    if causal:
        logits = logits.masked_fill(torch.ones(100, 100, dtype=torch.bool).triu(1), -torch.inf)
    expected = logits.softmax(-1) @ v
    got = linear_attention(q.float(), k.float(), v.float(), causal=causal)
    assert_close(got.double(), expected, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("first", [0.0, -20.0])
def test_late_tokens_that_call_for_shifts_leave_earlier_rows_of_linear_attention_exact(first, monkeypatch):
    """The pass is made again then, with shifts where rows need them: in the same tile, and in others."""
    monkeypatch.setattr(_linear, "TILE", 0)
    read, low = _linear.Work.read_low, []
    monkeypatch.setattr(_linear.Work, "read_low", lambda *x: low.append(x) or read(*x))
    q, k, v = (sample(150, seed=seed).float().unflatten(2, (2, 8)).transpose(1, 2) for seed in (1, 2, 3))
    k[:, :, 0] += first
    before = linear_attention(q, k, v, causal=True)
    assert bool(low) == (first < 0)
    late = q.clone()
    late[:, :, 70:] -= 100
    after = linear_attention(late, k, v, causal=True)
    assert low
    assert torch.equal(after[:, :, :70], before[:, :, :70])
    assert not torch.equal(after[:, :, 70:], before[:, :, 70:])


@pytest.mark.parametrize("n", [16, 24, 38, 41])
def test_threads_that_keep_their_parts_of_a_tile_find_the_same(n, monkeypatch):
    """Tiles of 16 tokens in four parts, and a rest in fewer."""
    q, k, v = qkv(n)
    heads = [x.unflatten(2, (2, -1)).transpose(1, 2) for x in (q, k, v)]
    grid = k[:, :, :2], v, torch.randn(2, 3, 3, dtype=torch.float64)
    operators = [
        (aft_simple, [q, k, v], {}),
        (linear_attention, heads, {}),
        (aft_conv, [q, *grid[:2], torch.randn(2, 5, dtype=torch.float64)], {}),
        (aft_conv, [q, *grid], {"grid": (2, n // 2)}),
    ][: 3 if n % 2 else 4]

    def answers():
        found = []
        for operator, inputs, options in operators:
            leaves = [x.clone().requires_grad_() for x in inputs]
            y = operator(*leaves, **options)
            found += [y, *torch.autograd.grad(y.sin().sum(), leaves)]
        return found

    expected = answers()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(_shares, "SHORTEST", 4)
    monkeypatch.setattr(_parts, "tile_elements", lambda x, *_: 16 * x[:, :1].numel())
    monkeypatch.setattr(_linear_pooled, "LEAST", 16)
    assert [_shares.shares(q, rows) for rows in (8, 16, 22, 24)] == [1, 4, 2, 4]
    for mine, theirs in zip(answers(), expected, strict=True):
        assert_close(mine, theirs, **EXACT)


def test_values_whose_sums_overflow_unshifted_are_averaged_all_the_same():
    """The keys' sums alone lie within reach."""
    q, k, v = (x.float() for x in qkv(60))
    k, v = k + 30, v * 1e28
    expected = naive(*(x.double() for x in (q, k, v)), torch.zeros(60, 60).double())
    assert_close(aft_simple(q, k, v).double(), expected, rtol=1e-4, atol=1e22)


def test_linear_attention_answers_alike_however_its_inputs_lie(monkeypatch):
    """Heads side by side or each by itself, in tiles and a rest, values of another width."""
    monkeypatch.setattr(_linear_pooled, "TILE", 0)
    q, k, v = (sample(150, seed=seed).unflatten(2, (2, 8)).transpose(1, 2) for seed in (1, 2, 3))
    v = v[..., :5]
    features = [x.exp().where(x < 0, x + 1) for x in (q, k)]
    expected = functional.normalize(features[0] @ features[1].mT, p=1, dim=-1) @ v
    for leaves in ([q, k, v], [x.contiguous() for x in (q, k, v)], [q, k.contiguous(), v]):
        assert_close(linear_attention(*leaves), expected, **EXACT)


@pytest.mark.parametrize("late", [0.0, 45.0])
@pytest.mark.parametrize("causal", [False, True])
def test_shifts_spare_linear_attention_a_rescue_and_keep_its_gradients(causal, late, monkeypatch):
    """Every denominator would underflow in float32; later keys may be positive all the same."""
    for kernel in (_linear, _linear_pooled):
        monkeypatch.setattr(kernel, "TILE", 0)
    q, k, v = (sample(150, seed=seed).unflatten(2, (2, 8)).transpose(1, 2) for seed in (1, 2, 3))
    q, k = q.clamp(max=2) - 30, k - 38
    k[:, :, 100:] += late
    leaves = [x.float().requires_grad_() for x in (q, k, v)]
    y, bad = (_linear.Causal if causal else _linear_pooled.BothWays).apply(*leaves)
    assert bad is None or not bad.any()
    q, k, v = exact = [x.requires_grad_() for x in (q, k, v)]
    logits = torch.logsumexp(q[..., :, None, :] + log_features(k)[..., None, :, :], -1)
    if causal:
        logits = logits.masked_fill(torch.ones(150, 150, dtype=torch.bool).triu(1), -torch.inf)
    expected = logits.softmax(-1) @ v
    assert_close(y.double(), expected, rtol=1e-4, atol=1e-5)
    mine, theirs = (torch.autograd.grad(a.sin().sum(), x) for a, x in ((y, leaves), (expected, exact)))
    for a, b in zip(mine, theirs, strict=True):
        assert_close(a.double(), b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("causal", [False, True])
def test_rows_sum_to_one(causal):
    """A value that is one everywhere comes back as one (times the gate, in AFT)."""
    q, k, _ = qkv(70)
    ones, half = torch.ones_like(q), torch.zeros_like(q)
    heads = q.unflatten(2, (2, 4)).transpose(1, 2)
    score = torch.randn(2, 70, 4, dtype=torch.float64)
    first, second = score[:, :8], score[:, 8:17]
    for y in (
        softmax_attention(heads, heads, torch.ones_like(heads), causal=causal),
        linear_attention(heads, heads, torch.ones_like(heads), causal=causal),
        synthesizer_dense(heads, torch.ones_like(heads), score, causal=causal),
        synthesizer_random(torch.ones_like(heads), torch.randn(2, 70, 70).double(), causal=causal),
        synthesizer_factorized_random(torch.ones_like(heads), score, score, causal=causal),
        synthesizer_factorized_dense(heads, torch.ones_like(heads), first, second, causal=causal),
        built("synthesizer-mixture", 70, d=8, causal=causal).mix(torch.ones_like(heads), heads, heads),
        2 * aft_full(half, k, ones, bias_of(70), causal=causal),
        2 * aft_local(half, k, ones, bias_of(70), window=7, causal=causal),
        2 * aft_simple(half, k, ones, causal=causal),
        2 * aft_conv(half, k, ones, torch.randn(8, 5).double(), causal=causal),
    ):
        assert_close(y, torch.ones_like(y), **EXACT)


@pytest.mark.parametrize("path", ["least", "small", "tiles", "long", "matrix"])
@pytest.mark.parametrize(("n", "d"), [(1, 1), (2, 3), (64, 16), (101, 6), (1009, 5), (9, 70), (8, 200)])
def test_fourier_mix_is_the_real_part_of_fft2(n, d, path, monkeypatch):
    if path != "least":
        monkeypatch.setattr(fnet, "LEAST", 0)  # else autograd has the gradient
    if path in ("tiles", "long"):
        for name, size in (("SMALL", 0), ("TILE", 64), ("COLUMNS", 2), ("BLOCK", 30)):
            monkeypatch.setattr(fnet, name, size)
    if path == "long":
        monkeypatch.setattr(fnet, "LONG", 0)
    x, dft = sample(n, d=d).requires_grad_(), "matrix" if path == "matrix" else "fft"
    y = fourier_mix(x, dft=dft)
    assert_close(y, torch.fft.fft2(x).real, rtol=1e-9, atol=1e-9)
    top = sample(n, d=d, seed=2)
    y.backward(top)
    assert_close(x.grad, torch.fft.fft2(top).real, rtol=1e-9, atol=1e-9)
    half = x.detach().bfloat16()
    wanted = torch.fft.fft2(half.double()).real
    assert (fourier_mix(half, dft=dft) - wanted).abs().max() <= 0.01 * wanted.abs().max()


def test_dft_matrices_are_buffers_as_exact_as_the_dtype_that_the_module_is_moved_to():
    module, x = built("fnet", 12, dft="matrix", dtype=torch.float32), sample(12)
    assert module.state_dict() == {}
    assert sum(b.numel() for b in module.buffers()) == 7**2 + 5**2 + 9**2 + 7**2
    assert_close(module(x), torch.fft.fft2(x).real, **EXACT)  # in float64, for which it makes others
    assert_close(module.double()(x), torch.fft.fft2(x).real, **EXACT)
    assert {b.dtype for b in module.bfloat16().buffers()} == {torch.float32}


@pytest.mark.parametrize("gate", ["tanh", "relu", "identity"])
@pytest.mark.parametrize("name", ["aft-full", "aft-local", "aft-simple", "aft-conv"])
def test_the_gate_is_an_option(name, gate):
    module, x = built(name, 33, causal=True, gate=gate), sample(33)
    with torch.no_grad():
        assert_close(module(x), MECHANISMS[name].reference(module, x), rtol=1e-9, atol=1e-12)
        y, _ = module.step(x[:, 32], module.prefill(x[:, :32]))
        assert_close(y, module(x)[:, 32], rtol=1e-9, atol=1e-12)
    with pytest.raises(ValueError, match="gate 'swish': one of sigmoid, tanh, relu, identity is accepted"):
        built(name, 33, gate="swish")


@pytest.mark.parametrize("name", ["aft-full", "aft-local"])
def test_a_bias_from_outside_takes_the_place_of_the_modules_own(name):
    """As ALiBi's: minus a slope times the distance."""
    module, x, other = built(name, 33), sample(33), built(name, 33, rank=None)
    place = torch.arange(33.0, dtype=torch.float64)
    bias = (-0.3 * (place - place[:, None]).abs()).requires_grad_()
    other.load_state_dict({**module.state_dict(), "position": bias.detach()}, strict=False)
    with torch.no_grad():
        other.position.copy_(bias)
    y = module(x, bias)
    assert_close(y, other(x), rtol=1e-12, atol=1e-12)
    (slope,) = torch.autograd.grad(y.sin().sum(), bias)
    (expected,) = torch.autograd.grad(other(x).sin().sum(), other.position)
    assert_close(slope, expected, rtol=1e-9, atol=1e-12)

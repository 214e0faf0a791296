"""The way that mechanisms go on a GPU, as far as a CPU can show it."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from effbench import prediction, products
from effbench.cell import Cell
from effbench.mechanisms import _band, _linear_pooled, _parts, _row_blocks, _rows, _tiled, fnet
from effbench.mechanisms.aft_full import aft_full
from effbench.mechanisms.aft_local import aft_local
from effbench.mechanisms.linear import linear_attention
from effbench.mechanisms.mha_tiled import tiled_attention

from .conftest import CASES, MECHANISMS, built, sample


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tensor counts as one of a device with few, large launches."""
    monkeypatch.setattr(_parts, "on_cpu", lambda x: False)


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("n", [1, 64, 289])
@pytest.mark.parametrize(("name", "options", "causal"), CASES)
def test_large_tiles_compute_the_same(name, options, causal, n):
    module = built(name, n, causal=causal, **options)
    x = sample(n).requires_grad_()
    y, expected = module(x), MECHANISMS[name].reference(module, x)
    torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-11)
    direction = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    (gradient,) = torch.autograd.grad(y, x, direction, retain_graph=True)
    (true,) = torch.autograd.grad(expected, x, direction)
    torch.testing.assert_close(gradient, true, rtol=1e-8, atol=1e-10)


def tensors(n: int, d: int = 6, rank: int = 4) -> list[torch.Tensor]:
    """q, k, v and the factors of a bias, in float64."""
    generator = torch.Generator().manual_seed(n)
    shapes = [(2, n, d)] * 3 + [(n, rank)] * 2
    return [torch.randn(shape, dtype=torch.float64, generator=generator) for shape in shapes]


def answers(operator, inputs, **options) -> list[torch.Tensor]:
    """The output and the gradients of q, k, v and, if there are any, the factors of a bias."""
    inputs = [x.clone().requires_grad_() for x in inputs]
    y = operator(*inputs[:3], *([tuple(inputs[3:])] if inputs[3:] else []), **options)
    return [y, *torch.autograd.grad(y, inputs, torch.linspace(-1, 1, y.numel()).view_as(y).to(y.dtype))]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("n", "window"), [(2, 1), (8, 5), (64, 3), (65, 8), (131, 20)])
def test_a_band_of_tiles_side_by_side_computes_the_same(n, window, causal, monkeypatch):
    inputs = tensors(n)
    inputs[1][:, n // 2] += 20  # the shift moves
    expected = answers(aft_local, inputs, window=window, causal=causal)
    monkeypatch.setattr(_parts, "on_cpu", lambda x: False)
    monkeypatch.setattr(_band, "SHORTEST", 8)
    for found, true in zip(answers(aft_local, inputs, window=window, causal=causal), expected, strict=True):
        torch.testing.assert_close(found, true, rtol=1e-8, atol=1e-12)


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("rise", [5.0, 50.0])
def test_a_band_shows_no_bit_of_the_future(rise, monkeypatch):
    monkeypatch.setattr(_band, "SHORTEST", 8)
    q, k, v, *bias = (x.float() for x in tensors(100))
    for t in (1, 40, 77):
        later = [x.clone() for x in (q, k, v)]
        later[1][:, t] += rise
        later[2][:, t] = 9
        before, after = (aft_local(*x, bias, window=5, causal=True) for x in ((q, k, v), later))
        assert torch.equal(before[:, :t], after[:, :t])
        assert not torch.equal(before[:, t:], after[:, t:])


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("n", [1, 40, 131])
def test_attention_by_blocks_of_rows_computes_the_same(n, causal):
    left, right, v = tensors(n)[:3]
    inputs = [
        torch.cat([left, left + 1]),
        right,
        torch.cat([v, -v]),
    ]  # four groups, of which two share a right
    by_tiles, by_blocks = (
        torch.autograd.grad(softmax(*given, causal=causal).cos().sum(), given)
        for softmax in (_tiled.tiled_softmax, _row_blocks.softmax_blocks)
        for given in [[x.clone().requires_grad_() for x in inputs]]
    )
    for found, true in zip(by_blocks, by_tiles, strict=True):
        torch.testing.assert_close(found, true, rtol=1e-9, atol=1e-11)
    y = [softmax(*inputs, causal=causal) for softmax in (_tiled.tiled_softmax, _row_blocks.softmax_blocks)]
    torch.testing.assert_close(y[1], y[0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("n", [7, 8, 65])
def test_linear_attention_sums_over_parts_of_the_tokens(n, monkeypatch):
    inputs = [x.unflatten(2, (2, -1)).transpose(1, 2) for x in tensors(n)[:3]]
    expected = answers(linear_attention, inputs)
    monkeypatch.setattr(_parts, "on_cpu", lambda x: False)
    monkeypatch.setattr(_linear_pooled, "PART", 4)
    for found, true in zip(answers(linear_attention, inputs), expected, strict=True):
        torch.testing.assert_close(found, true, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    ("operator", "options"), [(aft_full, {}), (aft_local, {"window": 40}), (tiled_attention, {})]
)
def test_factors_in_bfloat16_cost_no_more_than_a_few_roundings(operator, options, causal, monkeypatch):
    inputs = [x.bfloat16() for x in tensors(1031, d=16)]
    inputs[3:] = [x / 4 for x in inputs[3:]]
    if operator is tiled_attention:
        inputs = [x.unflatten(2, (2, -1)).transpose(1, 2) for x in inputs[:3]]
    expected = answers(operator, [x.double() for x in inputs], causal=causal, **options)
    monkeypatch.setattr(_parts, "on_cpu", lambda x: False)
    monkeypatch.setattr(products, "widens", lambda x: x.dtype == torch.bfloat16)
    for found, true in zip(answers(operator, inputs, causal=causal, **options), expected, strict=True):
        assert found.dtype == torch.bfloat16
        assert (found.double() - true).norm() < 0.01 * true.norm()  # a rounding alone is 0.0017


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize(("n", "d"), [(1, 1), (1, 4), (7, 5), (8, 6), (131, 33)])
def test_half_of_the_spectrum_at_once_is_all_of_it(n, d, monkeypatch):
    monkeypatch.setattr(fnet, "SMALL", 0)
    monkeypatch.setattr(fnet, "SMALL_ELSEWHERE", 0)
    x = torch.randn(2, n, d, dtype=torch.float64)
    torch.testing.assert_close(fnet.fourier_mix(x), torch.fft.fft2(x).real, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("name", "options", "causal"), CASES)
def test_all_is_made_on_the_device_of_the_input(name, options, causal):
    module = built(name, 64, causal=causal, dtype=torch.float32, **options).to("meta")
    x = torch.empty(2, 64, 16, device="meta", requires_grad=True)
    module(x).sum().backward()
    assert x.grad.device.type == "meta"
    assert all(p.grad is None or p.grad.device.type == "meta" for p in module.parameters())


@pytest.mark.parametrize(
    ("device", "dtype", "expected"),
    [
        ("cuda", torch.float16, "high"),
        ("cuda", torch.bfloat16, "high"),
        ("cuda", torch.float32, "highest"),
        ("cpu", torch.float16, "highest"),
    ],
)
def test_products_need_no_more_digits_than_a_gpus_inputs_have(device, dtype, expected):
    with FakeTensorMode():
        x = torch.empty(2, device=device, dtype=dtype)
        forward = _parts.eager(lambda _: torch.get_float32_matmul_precision())
        backward = _parts.plain_backward(lambda _, grad: torch.get_float32_matmul_precision())
        assert forward(x) == backward(None, x) == expected
    assert torch.get_float32_matmul_precision() == "highest"


def cut_off(x: torch.Tensor) -> torch.Tensor:
    """A factor as TF32 has it, with what it leaves out cut off: the most that a tensor core may lose."""
    if x.dtype != torch.float32:
        return x
    cut = (x.detach().contiguous().view(torch.int32) & ~0x1FFF).view(torch.float32)
    return x + (cut - x).detach() if x.requires_grad else cut  # the difference is exact


@pytest.fixture
def by_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every product takes its factors as TF32."""
    for name in ("mm", "bmm", "matmul", "addmm_", "baddbmm_"):
        monkeypatch.setattr(products, name, _of_cut_off(getattr(products, name)))


def _of_cut_off(product):
    def multiply(*operands, **options):
        *total, a, b = operands
        return product(*total, cut_off(a), cut_off(b), **options)

    return multiply


@pytest.mark.usefixtures("elsewhere", "by_tf32")
@pytest.mark.parametrize(("name", "options", "causal"), CASES)
def test_the_digits_of_tf32_cost_float16_no_more_than_a_few_roundings(name, options, causal):
    module, x = built(name, 131, causal=causal, dtype=torch.float16, **options), sample(131).half()
    exact = built(name, 131, causal=causal, **options)
    exact.load_state_dict({key: value.double() for key, value in module.state_dict().items()})
    results = []
    for function, given in ((module, x), (lambda x: MECHANISMS[name].reference(exact, x), x.double())):
        given.requires_grad_()
        y = function(given)
        direction = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view_as(y)
        results.append((y, *torch.autograd.grad(y, given, direction.to(y.dtype))))
    for found, true in zip(*results, strict=True):
        assert found.dtype == torch.float16
        assert (found.double() - true).norm() < 0.003 * true.norm()  # float32's digits give up to 0.0022


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_fewer_digits_stay_where_they_were_asked_for(precision):
    torch.set_float32_matmul_precision(precision)
    try:
        with FakeTensorMode(), products.as_exact_as(torch.empty(1, device="cuda", dtype=torch.float16)):
            assert torch.get_float32_matmul_precision() == precision
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("terms", [1, 2])
def test_rows_of_scores_on_a_gpu_hold_a_fixed_multiple_of_the_values(terms):
    for n in (4096, 16384, 65536):
        v = torch.empty(8, n, 64, device="meta")
        rows = _rows.tile_rows(v, terms)
        assert terms * rows * n <= _rows.TIMES * v.numel()
        assert rows >= _rows.row_tile(n)


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("name", "causal", "most"),
    [
        ("aft-simple", False, 2.05),
        ("aft-simple", True, 3.05),
        ("linear", False, 4),
        ("linear", True, 4),
        ("aft-conv", False, 4),
        ("aft-conv", True, 4),
        ("synthesizer-factorized-dense", False, 6),
    ],
)
def test_few_tiles_keep_memory_to_a_few_times_the_values(name, causal, most, dtype):
    n, d = 131072, 512
    shape = {"seq": n, "dim": d, "heads": 8, "threads": 1}
    cell = Cell(mechanism=name, level="op", causal=causal, dtype=dtype, **shape)
    peak = prediction.on_fake_tensors(MECHANISMS[name], cell, seconds=60)["peak_bytes"]
    assert peak <= most * n * d * 4

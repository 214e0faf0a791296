"""Counts against closed forms, written here from the definitions and not from the tables."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

from effbench import products
from effbench.errors import EffbenchError
from effbench.mechanisms import _parts
from effbench.mechanisms.mha_tiled import tiled_attention
from effbench.meters.counts import count
from effbench.meters.memory import allocated
from effbench.meters.op_products import causal_pairs, cpu_causal_pairs

B, H, N, E = 2, 3, 96, 16
PAIRS = B * H * N * N


def heads(n=N, *, grad=False):
    return tuple(torch.randn(B, H, n, E, requires_grad=grad) for _ in range(3))


def explicit(q, k, v):
    return torch.softmax(q @ k.mT * E**-0.5, -1) @ v


def work(matmul=0, elementwise=0, transcendental=0, fft=0):
    values = {"matmul": matmul, "elementwise": elementwise, "transcendental": transcendental, "fft": fft}
    return pytest.approx(values)


def test_linear_layer_forward_and_backward():
    layer, x = torch.nn.Linear(24, 40), torch.randn(5, 7, 24, requires_grad=True)
    product = 2 * 5 * 7 * 24 * 40
    assert count(lambda: layer(x))["counted"] == work(product, 5 * 7 * 40)
    both = count(lambda: layer(x).sum().backward())
    assert both["counted"]["matmul"] == 3 * product
    assert both["uncounted_ops"] == {}


def test_linear_layer_in_inference_mode_is_not_missed():
    layer, x = torch.nn.Linear(24, 40, bias=False), torch.randn(5, 24)
    with torch.inference_mode():
        result = count(lambda: layer(x))
    assert result["counted"] == work(2 * 5 * 24 * 40)
    assert result["uncounted_ops"] == {}


def test_attention_forward():
    q, k, v = heads()
    # scale 1, maximum, difference, sum and division 4, exponential 1
    assert count(lambda: explicit(q, k, v))["counted"] == work(4 * PAIRS * E, 5 * PAIRS, PAIRS)


def test_attention_backward_is_four_products():
    q, k, v = heads(grad=True)
    grad = torch.randn(B, H, N, E)
    forward = count(lambda: explicit(q, k, v))["counted"]["matmul"]
    both = count(lambda: explicit(q, k, v).backward(grad))
    assert both["counted"]["matmul"] - forward == 4 * 2 * PAIRS * E
    assert both["uncounted_ops"] == {}


def flops(counted):
    return counted["matmul"] + counted["elementwise"]


def test_fused_attention_counts_as_the_written_out_one():
    q, k, v = (torch.randn(B, H, N, 64) for _ in range(3))
    fused = count(lambda: F.scaled_dot_product_attention(q, k, v))
    written = count(lambda: explicit(q, k, v))
    assert flops(fused["counted"]) == pytest.approx(flops(written["counted"]), rel=0.05)
    assert fused["counted"]["transcendental"] == written["counted"]["transcendental"] == PAIRS
    assert fused["uncounted_ops"] == {}
    assert fused["needed"] is None


def test_fused_attention_backward_computes_the_scores_again():
    q, k, v = heads(grad=True)
    grad = torch.randn(B, H, N, E)
    both = count(lambda: F.scaled_dot_product_attention(q, k, v).backward(grad))
    assert both["counted"]["matmul"] == (4 + 10) * PAIRS * E
    assert both["counted"]["transcendental"] == 2 * PAIRS
    assert both["uncounted_ops"] == {}


def test_causal_attention_as_done_and_as_needed():
    n = 1024  # at 256 queries by 512 keys a tile: 4 * 256 rows, of which half see 512 keys and half 1024
    q, k, v = heads(n)
    result = count(lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True))
    assert result["counted"]["matmul"] == 4 * B * H * (512 * 512 + 512 * 1024) * E
    assert result["needed"]["matmul"] == 4 * B * H * (n * (n + 1) // 2) * E
    assert result["needed"]["transcendental"] == B * H * n * (n + 1) // 2


@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (5, 9), (9, 5), (1000, 700)])
def test_causal_pairs_against_enumeration(queries, keys):
    pairs = sum(min(t + 1, keys) for t in range(queries))
    assert causal_pairs(queries, keys) == pairs
    assert pairs <= cpu_causal_pairs(queries, keys) <= queries * keys


def test_ffts_complex_and_real():
    x = torch.randn(4, 32, 64)
    points = x.numel()
    whole = count(lambda: torch.fft.fft2(x.to(torch.complex64)))
    assert whole["counted"] == work(fft=5 * points * math.log2(32 * 64))
    real = count(lambda: torch.fft.rfft(x))
    assert real["counted"] == work(fft=2.5 * points * math.log2(64))
    there_and_back = count(lambda: torch.fft.irfft(torch.fft.rfft(x)))
    assert there_and_back["counted"] == work(fft=5 * points * math.log2(64))


def test_depthwise_convolution_forward_and_backward():
    x, kernel = torch.randn(2, 12, 50, requires_grad=True), torch.randn(12, 1, 7, requires_grad=True)
    once = 2 * 2 * 12 * 50 * 7
    assert count(lambda: F.conv1d(x, kernel, padding=3, groups=12))["counted"] == work(once)
    both = count(lambda: F.conv1d(x, kernel, padding=3, groups=12).backward(torch.ones(2, 12, 50)))
    assert both["counted"]["matmul"] == 3 * once


def test_dense_and_transposed_convolution():
    x, bias = torch.randn(2, 6, 10), torch.randn(8)
    assert count(lambda: F.conv1d(x, torch.randn(8, 6, 3), bias))["counted"] == work(
        2 * 2 * 8 * 8 * 6 * 3, 2 * 8 * 8
    )
    up = count(lambda: F.conv_transpose1d(x, torch.ones(6, 8, 3)))
    assert up["counted"] == work(2 * 2 * 6 * 10 * 8 * 3)


@pytest.mark.parametrize(
    ("op", "elementwise", "transcendental"),
    [
        (lambda x: x.cumsum(-1), 1, 0),
        (lambda x: x.cummax(-1), 1, 0),
        (lambda x: x.sum(-1), 1, 0),
        (lambda x: x.amax(0), 1, 0),
        (lambda x: x.logsumexp(-1), 3, 1),
        (lambda x: F.layer_norm(x, x.shape[-1:]), 7, 0),
        (lambda x: x + 1, 1, 0),
        (lambda x: x.add_(x), 1, 0),
        (lambda x: torch.mul(x, x, out=x), 1, 0),
        (lambda x: x * 2 > 1, 2, 0),
        (lambda x: x**2, 1, 0),
        (lambda x: x**0.3, 0, 1),
        (lambda x: x.exp(), 0, 1),
        (lambda x: x.exp_(), 0, 1),
        (lambda x: x.sigmoid(), 0, 1),
        (lambda x: x.sqrt(), 0, 1),
        (lambda x: F.silu(x), 1, 1),
        (lambda x: torch.lerp(x, x, 0.3), 3, 0),
        (lambda x: torch.addcmul(x, x, x), 2, 0),
        (lambda x: x.view(-1).clone(), 0, 0),
        (lambda x: torch.cat((x, x.mT.contiguous().mT)), 0, 0),
        (lambda x: x.long() + 1, 0, 0),
    ],
)
def test_one_pass_ops(op, elementwise, transcendental):
    x = torch.rand(8, 16)
    result = count(lambda: op(x), strict=True)
    assert result["counted"] == work(0, elementwise * 128, transcendental * 128)


def test_complex_arithmetic_is_counted_in_real_flops():
    z = torch.randn(6, 6, dtype=torch.complex64)
    assert count(lambda: z @ z)["counted"] == work(8 * 6**3)
    assert count(lambda: z * z + z)["counted"] == work(0, (6 + 2) * 36)


class Double(torch.autograd.Function):
    """An own Function, seen through the ops inside it."""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(weight)
        return x @ weight

    @staticmethod
    def backward(ctx, grad):
        (weight,) = ctx.saved_tensors
        return grad @ weight.mT, None


def test_custom_function_both_ways():
    x, weight = torch.randn(4, 8, requires_grad=True), torch.randn(8, 3)
    result = count(lambda: Double.apply(x, weight).backward(torch.ones(4, 3)))
    assert result["counted"] == work(2 * 2 * 4 * 8 * 3)


def test_onednn_product():
    x, weight, bias = torch.randn(5, 8), torch.randn(6, 8), torch.randn(6)
    linear = torch.ops.mkldnn._linear_pointwise
    assert count(lambda: linear(x, weight, None, "none", [], ""))["counted"] == work(2 * 5 * 8 * 6)
    assert count(lambda: linear(x, weight, bias, "relu", [], ""))["counted"] == work(2 * 5 * 8 * 6, 2 * 30)


@pytest.mark.parametrize("training", [False, True])
def test_fake_tensors_count_the_same(training):
    def everything(q, k, v, layer):
        y = explicit(q, k, layer(v)) + F.scaled_dot_product_attention(q, k, v) + torch.fft.fft(v).real
        y = y.cumsum(2).exp_()
        if training:
            y.sum().backward()

    def counted():
        inputs, layer = heads(grad=training), torch.nn.Linear(E, E)
        return count(lambda: everything(*inputs, layer))

    real = counted()
    with FakeTensorMode():
        fake = counted()
    assert fake == real
    assert real["peak_bytes"] > 0


def test_bytes_count_each_region_once_and_a_broadcast_as_what_it_is():
    x = torch.randn(32, 32)
    size = x.numel() * 4
    assert count(lambda: x * x)["bytes_moved"] == 2 * size
    assert count(lambda: x + x.clone())["bytes_moved"] == 2 * size + 3 * size
    assert count(lambda: x * torch.ones(1, 1).expand(32, 32))["bytes_moved"] == 4 + 2 * size + 4
    assert count(lambda: x.zero_())["bytes_moved"] == size
    assert count(lambda: x.mT.unsqueeze(0)[:, 3:])["bytes_moved"] == 0


def test_peak_of_written_out_attention_is_the_formula():
    def call():
        scores = q @ k.mT
        weights = torch.softmax(scores, -1)
        return scores, weights, weights @ v

    with FakeTensorMode():
        q, k, v = (torch.randn(1, 8, 65536, 64) for _ in range(3))
        result = count(call)
    assert result["peak_bytes"] == 2 * 8 * 65536**2 * 4 + 8 * 65536 * 64 * 4


def test_peak_forgets_what_died():
    def chain():
        x = torch.ones(1000)
        for _ in range(10):
            x = x + 1
        return x

    assert count(chain)["peak_bytes"] == 2 * 4000


@pytest.fixture
def unknown():
    library = torch.library.Library("effbench_test", "FRAGMENT")
    library.define("mystery(Tensor x) -> Tensor")
    library.impl("mystery", lambda x: x.clone(), "CPU")
    yield torch.ops.effbench_test.mystery
    library._destroy()


def test_an_unknown_op_is_named(unknown):
    result = count(lambda: unknown(unknown(torch.ones(3))))
    assert result["uncounted_ops"] == {"effbench_test.mystery": 2}


def test_strict_refuses_an_unknown_op(unknown):
    with pytest.raises(EffbenchError, match=r"effbench_test\.mystery"):
        count(lambda: unknown(torch.ones(3)), strict=True)


def test_an_op_that_registers_its_formula_is_counted(unknown):
    from torch.utils.flop_counter import flop_registry, register_flop_formula

    from effbench.meters.op_costs import classify

    classify.cache_clear()
    register_flop_formula(unknown)(lambda shape, out_shape=None, **_: 7 * shape[0])
    try:
        assert count(lambda: unknown(torch.ones(3)), strict=True)["counted"] == work(21)
    finally:
        del flop_registry[unknown]
        classify.cache_clear()


def test_a_compiled_function_may_be_called_in_the_mode_without_harm():
    """The mode tells the compiler to leave it alone; without that the function runs eagerly ever after."""
    from effbench.meters.counts import OpCounter

    assert OpCounter.ignore_compile_internals() is True


@pytest.mark.parametrize(
    "call",
    [
        lambda x: x.mT.softmax(-1),
        lambda x: x.mT.log_softmax(-1),
        lambda x: x.logsumexp(-1),
        lambda x: F.layer_norm(x.mT, x.shape[1:2]),
        lambda x: F.conv1d(x, torch.ones(x.shape[1], 1, 11), groups=x.shape[1]),
        lambda x: F.conv1d(x.mT, torch.ones(64, x.shape[2], 3)),
        lambda x: F.conv2d(x[:, :, None], torch.ones(2 * x.shape[1], x.shape[1], 1, 3)),
    ],
    ids=["softmax", "log-softmax", "logsumexp", "layer-norm", "depth-wise", "strided", "wider"],
)
def test_the_peak_holds_what_kernels_take_for_themselves(call):
    x = torch.randn(1, 512, 2048)
    call(x)
    with FakeTensorMode(allow_non_fake_inputs=True):
        predicted = count(lambda: call(x))["peak_bytes"]
    assert predicted == pytest.approx(allocated(lambda: call(x)), rel=0.01)


def test_a_trial_of_what_is_faster_is_not_counted(monkeypatch):
    products.use("auto")
    monkeypatch.setattr(products, "_faster", {})
    _parts._exp_wins.cache_clear()
    products._wins_by_heads.cache_clear()
    q, k, v = (torch.randn(1, 2, 600, 16) for _ in range(3))  # several tiles
    first, again = (count(lambda: tiled_attention(q, k, v))["counted"] for _ in range(2))
    assert first == again


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("n", "e"), [(77, 64), (300, 64), (1000, 33), (1024, 32)])
def test_the_peak_holds_the_tiles_of_fused_attention(dtype, n, e):
    q, k, v = (torch.randn(2, 3, n, e).to(dtype) for _ in range(3))
    attention = F.scaled_dot_product_attention
    attention(q, k, v)
    with FakeTensorMode(allow_non_fake_inputs=True):
        predicted = count(lambda: attention(q, k, v))["peak_bytes"]
    assert predicted == allocated(lambda: attention(q, k, v))


@pytest.mark.parametrize("layout", ["by token", "by head"])
def test_the_peak_holds_the_tiles_of_fused_attention_backward(layout):
    shape = (1, 4, 600, 32)
    q, k, v = (torch.randn(shape) for _ in range(3))
    slope = torch.randn(shape) if layout == "by head" else torch.randn(1, 600, 4, 32).transpose(1, 2)
    result, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)
    held = (slope, q, k, v, result, sums, 0.0, False)

    def backward():
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(*held)

    backward()
    with FakeTensorMode(allow_non_fake_inputs=True):
        predicted = count(backward)["peak_bytes"]
    # The profiler does not see the row of sums that a thread of its own asks for.
    assert predicted == pytest.approx(allocated(backward), abs=64 * 4 * torch.get_num_threads())


@pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_fp16_supported(), reason="oneDNN needs instructions for float16"
)
@pytest.mark.parametrize("backward", [False, True])
def test_the_peak_holds_the_copies_of_a_depthwise_convolution_in_half_precision(backward):
    x, slope = torch.randn(2, 2, 128, 1000).half().unbind()
    weights = torch.randn(128, 1, 31).half()
    more = (None, [1], [15], [1], False, [0], 128)

    def call():
        if not backward:
            return torch.ops.aten.convolution(x, weights, *more)
        return torch.ops.aten.convolution_backward(slope, x, weights, *more, [True, True, False])

    call()
    with FakeTensorMode(allow_non_fake_inputs=True):
        predicted = count(call)["peak_bytes"]
    assert predicted == pytest.approx(allocated(call), rel=0.001)

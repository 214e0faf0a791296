"""The attention kernel that torch chose is told apart, the one that it wrote out too."""

from __future__ import annotations

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from effbench import worker
from effbench.attention import kernels_of_call
from effbench.cell import Cell


def watched(call):
    with kernels_of_call() as names:
        call()
    return names


def test_a_fused_kernel_is_named_forward_and_backward():
    q = torch.randn(1, 2, 8, 4, requires_grad=True)
    assert watched(lambda: scaled_dot_product_attention(q, q, q).sum().backward()) == {
        "flash_attention_for_cpu"
    }


def test_a_written_out_one_is_math_and_no_attention_is_nothing():
    q = torch.randn(1, 2, 8, 4)
    with sdpa_kernel(SDPBackend.MATH):
        assert watched(lambda: scaled_dot_product_attention(q, q, q)) == {"math"}
    assert watched(lambda: (q @ q.mT).softmax(-1) @ q) == set()


def test_it_is_named_wherever_torch_calls_it_from():
    x, q = torch.randn(1, 8, 4), torch.randn(1, 2, 8, 4)
    layer = torch.nn.TransformerEncoderLayer(4, 2, batch_first=True)
    layers = torch.nn.MultiheadAttention(4, 2, batch_first=True)
    for call in (
        lambda: torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, q, q),
        lambda: layers(x, x, x, need_weights=False),
        lambda: layer.eval()(x),
    ):
        with torch.no_grad():
            assert watched(call) == {"flash_attention_for_cpu"}


def test_what_an_earlier_visit_saw_is_not_watched_again(monkeypatch):
    cell, q = Cell(mechanism="any", seq=8, dim=4, heads=1, threads=1), torch.randn(1, 2, 8, 4)
    calls = []

    def call():
        calls.append(scaled_dot_product_attention(q, q, q))

    assert worker._kernels(call, cell) == {"flash_attention_for_cpu"}
    monkeypatch.setattr(worker, "kernels_of_call", None)
    assert worker._kernels(call, cell, "flash_attention_for_cpu+math") == {"flash_attention_for_cpu", "math"}
    assert worker._kernels(call, cell, "") == set()
    assert len(calls) == 3

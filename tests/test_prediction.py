"""What is counted on fake tensors: nothing may need moving, since fake parameters cannot be moved."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses import fake_impls
from torch._subclasses.fake_tensor import FakeTensorMode

from effbench import prediction, subject
from effbench.cell import Cell
from effbench.prediction import by_length, on_fake_tensors
from effbench.preheat import use_kernels_for_fake_views
from effbench.registry import MECHANISMS, Registry, load_mechanism

CELL = Cell(mechanism="", level="op", seq=256, dim=64, heads=2, threads=1)


@pytest.mark.parametrize("name", ["mha", "mha-tiled", "aft-full", "aft-simple", "aft-conv", "linear", "fnet"])
def test_cells_of_another_device_are_counted(name: str) -> None:
    mechanism, _ = load_mechanism(Registry.installed(MECHANISMS), name)
    cell = replace(CELL, mechanism=name)
    here, there = (on_fake_tensors(mechanism, replace(cell, device=d), seconds=30) for d in ("cpu", "meta"))
    assert "uncounted" not in there, there
    assert there["live_bytes"] == here["live_bytes"]
    assert there["counted"]["matmul"] == here["counted"]["matmul"]
    assert there["peak_bytes"] > 0


@pytest.fixture
def kernels_for_views(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = fake_impls.op_implementations_dict
    for view in (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default):
        monkeypatch.setitem(rules, view, rules[view])  # so that they are back after the test
    FakeTensorMode.cache_clear()  # or it would say what torch's own rules said
    use_kernels_for_fake_views()


@pytest.mark.usefixtures("kernels_for_views")
@pytest.mark.parametrize(
    ("size", "order", "shape"),
    [
        ((4, 6), (0, 1), (2, 2, 6)),
        ((4, 6), (0, 1), (-1,)),
        ((2, 3, 4), (1, 0, 2), (3, 2, 2, 2)),
        ((2, 3, 4), (2, 0, 1), (4, 6)),
        ((2, 3, 4), (0, 2, 1), (2, 12)),
        ((4, 0), (0, 1), (0, 2)),
        ((4, 6), (0, 1), (5, 5)),
    ],
)
def test_views_of_fake_tensors_are_as_those_of_real_ones(
    size: tuple[int, ...], order: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    def seen() -> object:
        x = torch.empty(size).permute(order)
        try:
            y = x.view(shape)
        except (RuntimeError, ValueError):
            return "refused"
        alias = y.untyped_storage()._cdata == x.untyped_storage()._cdata
        return y.shape, y.stride(), y.storage_offset(), alias

    real = seen()
    with FakeTensorMode():
        assert seen() == real


def test_what_is_counted_does_not_depend_on_whose_rule_views_follow(request: pytest.FixtureRequest) -> None:
    mechanism, _ = load_mechanism(Registry.installed(MECHANISMS), "mha")
    cell = replace(CELL, mechanism="mha", level="layer", mode="train")
    torchs = on_fake_tensors(mechanism, cell, seconds=30)
    request.getfixturevalue("kernels_for_views")
    assert torch.ops.aten.view.default not in fake_impls.op_implementations_dict
    assert on_fake_tensors(mechanism, cell, seconds=30) == torchs


@pytest.mark.parametrize(
    ("made", "asked", "alike"),
    [
        ("cuda:0", "cuda", True),
        ("cuda:0", "cuda:1", False),
        ("cpu", "cuda", False),
        ("cuda:1", "cuda:1", True),
    ],
)
def test_a_tensor_made_on_cuda_says_that_it_is_on_cuda_0(made: str, asked: str, alike: bool) -> None:
    """As on a machine with GPUs: a fake tensor that is where it shall be must not be moved."""
    weight = SimpleNamespace(device=torch.device(made), dtype=torch.float32, is_floating_point=lambda: True)
    module = SimpleNamespace(parameters=lambda: [weight], buffers=list)
    assert subject._is_at(module, replace(CELL, device=asked)) is alike  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("peak", "known"),
    [
        (lambda n: 7 * n + 5, "2048, 3072, 4096"),
        (lambda n: 7 * n + 5 * (n > 1024), "2048, 3072, 4096"),  # one tile, as long as all, is another one
        (lambda n: 3 * n * n + 7 * n + 5, "1024, 2048, 3072, 4096"),
        (lambda n: max(7 * n, 5 * n + 6500) + 5, "4096, 6144, 8192"),
    ],
)
def test_a_regular_peak_is_continued_from_shorter_lengths(peak, known) -> None:  # type: ignore[no-untyped-def]
    found = by_length(peak, 65536)
    assert found == {"peak_bytes": peak(65536), "predicted_method": f"extrapolated from n = {known}"}


def test_an_irregular_peak_and_lengths_near_by_are_not_continued() -> None:
    assert by_length(lambda n: n**3, 65536) == {}
    assert by_length(lambda n: n * n.bit_length(), 65536) == {}
    assert by_length(lambda n: n, 4096) == {}
    assert by_length(lambda n: n, 65537) == {}


def test_what_takes_too_long_to_count_is_predicted_from_shorter_lengths(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mechanism, _ = load_mechanism(Registry.installed(MECHANISMS), "aft-local")
    cell = replace(CELL, mechanism="aft-local", seq=8192)
    whole = on_fake_tensors(mechanism, cell, seconds=30)

    def late(*_: object, **__: object) -> dict[str, object]:
        import signal

        signal.raise_signal(signal.SIGPROF)
        raise AssertionError("the alarm did not go off")

    counted = prediction._counted

    def counted_too_long(*args: object, **more: object) -> dict[str, object]:
        monkeypatch.setattr(prediction.counts, "count", late)
        found = counted(*args, **more)  # type: ignore[arg-type]
        monkeypatch.undo()
        return found

    monkeypatch.setattr(prediction, "_counted", counted_too_long)
    found = on_fake_tensors(mechanism, cell, seconds=30)
    assert found["predicted_method"].startswith("extrapolated from n = 2048")
    assert "counting took more than 15 s" in found["uncounted"]
    assert "counted" not in found
    assert (found["peak_bytes"], found["live_bytes"]) == (whole["peak_bytes"], whole["live_bytes"])

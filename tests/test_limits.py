"""The bound on memory that a child sets for itself."""

from __future__ import annotations

import pytest
import torch

from effbench.dialogue import failure
from effbench.errors import EffbenchError
from effbench.limits import limit_memory


@pytest.mark.parametrize(("built", "why"), [(None, "is not built for CUDA"), ("12.8", "finds no GPU")])
def test_a_gpu_that_is_not_there_is_said(
    built: str | None, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", built)
    with pytest.raises(EffbenchError, match=f"device cuda: torch .* {why}"):
        limit_memory(1 << 30, "cuda")


@pytest.mark.parametrize(
    "said",
    [
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "CUDA error: out of memory",
    ],
)
def test_what_a_gpus_libraries_say_without_memory_is_oom(said: str) -> None:
    assert failure(RuntimeError(said))["status"] == "oom"
    assert failure(ValueError(said))["status"] == "error"

"""effbench from Python: a real notebook with a class of its own, and the frame that comes back."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import effbench
from effbench.errors import BadInput
from effbench.frame import COLUMNS

CELLS = [
    """
import torch
from torch import nn
import effbench

class MeanMixer(nn.Module):
    def __init__(self, dim, *, gain=1.0):
        super().__init__()
        self.out = nn.Linear(dim, dim)
        self.gain = gain

    def forward(self, x):
        return self.out(x.mean(1, keepdim=True).expand_as(x)) * self.gain

def reversed_tokens(shape, *, causal):
    class Reversed(nn.Module):
        def forward(self, x):
            return x.flip(1)
    return Reversed()
""",
    """
frame = effbench.run(
    mechanisms=["fnet", MeanMixer, reversed_tokens], seq=16, dim=8, out="r",
    options={"mean-mixer": {"gain": [1.0, 2.0]}},
)
assert list(frame["status"]) == ["ok"] * 4, frame[["mechanism", "status", "reason"]]
assert set(frame["mechanism"]) == {"fnet", "mean-mixer", "reversed-tokens"}
assert frame["time_s"].gt(0).all()
""",
    """
again = effbench.load("r")
assert again.equals(frame)
resumed = effbench.run(
    mechanisms=["fnet", MeanMixer, reversed_tokens], seq=16, dim=8, out="r",
    options={"mean-mixer": {"gain": [1.0, 2.0]}},
)
assert resumed.equals(frame), "nothing is measured again"
frame
""",
]


def test_a_notebook_runs(tmp_path: Path) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    place = {"metadata": {"path": tmp_path}}
    client = NotebookClient(notebook, timeout=200, kernel_name="python3", resources=place)
    client.execute()
    shown = notebook.cells[-1]["outputs"][0]["data"]["text/plain"]
    assert "mean-mixer" in shown


def test_what_python_refuses() -> None:
    with pytest.raises(BadInput, match="unknown key seqlen; expected one of allocator, batch"):
        effbench.run(seqlen=3)
    with pytest.raises(BadInput, match=r"seq: '4\.\.2' runs backwards"):
        effbench.run(seq="4..2")
    with pytest.raises(BadInput, match="mechanisms: the list is empty"):
        effbench.run(mechanisms=[])
    with pytest.raises(BadInput, match="nowhere"):
        effbench.load("nowhere")


def test_the_frame_of_the_contract() -> None:
    contract = """
        mechanism options level mode causal batch seq dim heads dtype device threads compile gemm precision
        allocator stack status reason time_s time_low_s time_high_s samples tokens_per_s peak_bytes
        alloc_bytes live_bytes flops transcendentals instructions bytes_moved flops_per_s ceiling_fraction
        params flags environment id state_bytes"""
    assert list(COLUMNS) == contract.split()

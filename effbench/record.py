"""A record is the answer to one visit of a cell: one JSON line, raw samples, no statistic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from effbench.cell import Cell

SCHEMA = 1
#: By so much may a closed form of products and transforms be off the count.
AGREEMENT = 0.01

Status = Literal[
    "ok",
    "oom",
    "oom-predicted",
    "timeout",
    "crashed",
    "incorrect",
    "unsupported",
    "skipped",
    "error",
]
STATUSES: tuple[str, ...] = Status.__args__  # type: ignore[attr-defined]

#: Where in a visit something happened.
STAGES = ("load", "build", "check", "predict", "prefill", "time", "memory", "counts")


class Part(BaseModel):
    """A block of a record; unknown keys of later versions are kept."""

    model_config = ConfigDict(extra="allow", frozen=True)


class Time(Part):
    """Seconds of each pass, in the order in which they were taken."""

    samples_s: list[float] = []
    pace_s: list[tuple[float, ...] | None] | None = None  # of fixed works beside each: the cores
    waited: list[float | None] | None = None  # share of each for which its threads had no core, all together
    device_samples_s: list[float] | None = None  # of a GPU, between events on its stream; its L2 cache warm
    cold_device_samples_s: list[float] | None = None  # likewise, the cache full of something else
    gpu_before: dict[str, Any] | None = None  # clocks, temperature and what held them down, by NVML
    gpu_after: dict[str, Any] | None = None
    first_call_s: float | None = None
    compile_s: float | None = None
    minor_faults: float | None = None  # page faults a pass
    method: str = "perf_counter"
    spent_s: float | None = None  # first call, warm-up and samples together
    other_cores: float | None = None  # that other processes kept busy in that time, in cores

    @field_validator("pace_s", mode="before")
    @classmethod
    def _of_one_work(cls, paces: list[Any] | None) -> list[Any] | None:
        """Early runs timed one fixed work: a number beside each sample."""
        return paces and [(pace,) if isinstance(pace, float) else pace for pace in paces]


class Memory(Part):
    """Bytes: the rise above the state just before the call, and what was in place."""

    peak_bytes: int | None = None
    peak_method: str = ""
    peak_resolution_bytes: int | None = None  # by which the resident peak may be off
    alloc_bytes: int | None = None
    alloc_method: str = ""
    live_bytes: int | None = None
    param_bytes: int | None = None  # of what is in place, parameters and buffers
    input_bytes: int | None = None  # likewise the inputs
    state_bytes: int | None = None  # likewise what decoding keeps of the context
    grad_bytes: int | None = None
    saved_bytes: int | None = None
    workspace_bytes: int | None = None
    predicted_bytes: int | None = None
    predicted_method: str = ""  # empty: on fake tensors, at the cell's own length
    device: dict[str, Any] | None = None


class FlopsBlock(Part):
    """FLOPs of one pass by kind (a multiply-add is 2): declared, counted and needed."""

    formula: dict[str, float] | None = None
    counted: dict[str, float] | None = None
    needed: dict[str, float] | None = None
    uncounted_ops: dict[str, int] = {}
    bytes_moved: int | None = None

    @property
    def differs(self) -> bool:
        """Whether products and transforms as declared are more than 1 % off what was counted.

        A form may declare what is needed or what is done, and is right anywhere between the two.
        """
        if self.formula is None or self.counted is None or self.uncounted_ops:
            return False
        done, declared = _large(self.counted), _large(self.formula)
        least = min(done, _large(self.needed)) if self.needed else done
        return not (1 - AGREEMENT) * least <= declared <= (1 + AGREEMENT) * done


def _large(work: Mapping[str, float]) -> float:
    return work.get("matmul", 0) + work.get("fft", 0)


class Record(Part):
    """One visit to one cell."""

    schema_: int = Field(SCHEMA, alias="schema")
    id: str
    cell: dict[str, Any]
    status: Status
    stage: str = ""
    reason: str = ""
    caused_by: str = ""
    flags: list[str] = []
    time: Time | None = None
    memory: Memory | None = None
    flops: FlopsBlock | None = None
    instructions: int | None = None
    missing: dict[str, str] = {}  # why a number is empty, by its column
    path: dict[str, str] = {}
    params: int | None = None
    round: int = 0
    pair: int | None = None  # of a gate: visits of both sides with one number took turns
    side: str = ""  # of a gate: base or head
    source: str = ""
    environment: str = ""
    started: str = ""
    took_s: float = 0.0
    process: str = ""  # the fork server that timed it: the unit of replication
    limits: dict[str, float] = {}  # the limits in force, so that a resumed run knows what they caused

    @model_validator(mode="after")
    def _numbers_only_where_ok(self) -> Record:
        numbers = (self.time, self.memory, self.flops, self.instructions, self.params)
        if self.status != "ok" and any(number is not None for number in numbers):
            raise ValueError(f"status {self.status} carries numbers; only ok may")
        return self

    def line(self) -> str:
        """This record as its line in ``records.jsonl``, without the newline."""
        return self.model_dump_json(by_alias=True)

    @property
    def providers(self) -> list[str]:
        """Who is known to have multiplied matrices: ``torch``, as its fused attention does, or ``onednn``."""
        known = (self.path.get("gemm") or "").split("+") + ["torch"] * bool(self.path.get("attention"))
        return [name for name in ("torch", "onednn") if name in known]

    @property
    def question(self) -> Cell:
        """The cell that this answers."""
        return Cell(**self.cell)

"""Claims held against runs: the rules, on made-up numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from effbench.claims import parse_claims
from effbench.frame import Run, load_run
from effbench.record import Memory
from effbench.reproduction import Outcome, reproduce
from tests.synthetic import failed, make_cell, measured, write_run

SOURCE = "[sources.a]\npaper = 'Someone 2020'\nhardware = 'one TPU'\ndevice = '{device}'\n"
BEGIN = SOURCE + "[[claim]]\nname = 'it is so'\nsource = 'a'\ntable = 'Table 1'\n"
BETWEEN = BEGIN + "kind = 'ratio'\nmetric = '{metric}'\nof.mechanism = 'new'\nto.mechanism = 'old'\n"
EXPONENT = BEGIN + "kind = 'exponent'\nmetric = '{metric}'\nof.mechanism = 'new'\n"
GROUPS = "groups = [[{mechanism = 'new'}], [{mechanism = 'old'}, {mechanism = 'older'}]]"
Seconds = dict[str, Callable[[int], float]]


def a_run(
    folder: Path,
    seconds: Seconds,
    *,
    lengths: tuple[int, ...] = (1024,),
    processes: int = 3,
    flags: dict[str, list[str]] | None = None,
    batch: Callable[[int], int] = lambda n: 1,
    noise: float = 0.004,
    **axes: Any,
) -> Run:
    """Mechanisms whose passes take ``seconds[name](n)`` and hold 4 GB for each second."""
    cells = [make_cell(name, seq=n, batch=batch(n), **axes) for name in seconds for n in lengths]
    records = []
    for cell in cells:
        for number in range(processes):
            time = seconds[cell.mechanism](cell.seq)
            held = int(4e9 * time)
            records.append(
                measured(
                    cell,
                    [time * (1 + noise * (number - 1))] * 3,
                    round=number,
                    process=f"p{number}",
                    flags=(flags or {}).get(cell.mechanism, []),
                    memory=Memory(peak_bytes=held, alloc_bytes=held, live_bytes=2**20),
                )
            )
    return load_run(write_run(folder, cells, records))


def judged(run: Run, text: str, *, device: str = "gpu", metric: str = "speed") -> Outcome:
    text = text.replace("{device}", device).replace("{metric}", metric)
    (found,) = reproduce(run, parse_claims(text, "c.toml"))
    return found


def flat(seconds: float) -> Callable[[int], float]:
    return lambda n: seconds


@pytest.mark.parametrize(
    ("new", "printed", "verdict"),
    [
        (0.05, "printed = 2", "holds"),
        (0.05, "printed = 1.4", "holds"),
        (0.05, "printed = 1.2", "does not hold"),
        (0.05, "printed = 0.5", "does not hold"),
        (0.12, "printed = 1.1", "does not hold"),
        (0.1, "printed = 1.1", "not comparable"),
        (0.1, "printed = 1\nat_least = 0.9\nat_most = 1.1", "holds"),
        (0.01, "printed = 12.2\nat_least = 9", "holds"),
        (0.05, "printed = 12.2\nat_least = 9", "does not hold"),
    ],
)
def test_a_ratio_holds_by_its_interval(tmp_path: Path, new: float, printed: str, verdict: str) -> None:
    run = a_run(tmp_path, {"new": flat(new), "old": flat(0.1)})
    found = judged(run, BETWEEN + printed)
    assert found.verdict == verdict, found
    assert found.measured.startswith(f"{0.1 / new:.3g} [")
    assert ("reaches across 1" in found.reason) == (verdict == "not comparable")


def test_the_direction_of_each_metric(tmp_path: Path) -> None:
    run = a_run(tmp_path, {"new": flat(0.05), "old": flat(0.1)})
    for metric, printed in (("speed", 2), ("tokens_per_s", 2), ("time_s", 0.5), ("peak_bytes", 0.5)):
        found = judged(run, BETWEEN + f"printed = {printed}\nfactor = 1.2", metric=metric)
        assert (found.verdict, found.measured[:3]) == ("holds", f"{printed} [" if printed == 2 else "0.5")
    assert judged(run, BETWEEN + "printed = 2", metric="params").verdict == "does not hold"


def test_speed_is_of_samples_whatever_the_batch(tmp_path: Path) -> None:
    cells = [make_cell("new", batch=4), make_cell("old", batch=1)]
    records = [measured(c, [0.1] * 3, round=n, process=f"p{n}") for c in cells for n in range(2)]
    run = load_run(write_run(tmp_path, cells, records))
    text = BETWEEN + "printed = 4\nof.batch = 4\nto.batch = 1\nalso = [{says = 'none', to.batch = 4}]"
    found = judged(run, text)
    assert (found.verdict, found.measured) == ("holds", "4")
    assert found.reason == "different shapes, as the paper compares them"
    assert found.also[0].measured == "no cell of this run is old batch=4"


def test_different_shapes_stand_beside_the_same_shape(tmp_path: Path) -> None:
    cells = [make_cell(name, dim=dim) for name in ("new", "old") for dim in (64, 128)]
    times = {("new", 64): 0.1, ("old", 64): 0.13, ("new", 128): 0.2, ("old", 128): 0.21}
    records = [
        measured(c, [times[c.mechanism, c.dim] * (1 + 0.002 * n)] * 3, round=n, process=f"p{n}")
        for c in cells
        for n in range(2)
    ]
    run = load_run(write_run(tmp_path, cells, records))
    shapes = "printed = 2\nof.dim = 64\nto.dim = 128\n"
    also = "also = [{says = 'at the same shape', to.dim = 64, printed = 1.31}]"
    found = judged(run, BETWEEN + shapes + also)
    assert (found.verdict, found.measured[:4]) == ("holds", "2.1 ")
    (same,) = found.also
    assert (same.says, same.printed, same.measured[:4]) == ("at the same shape", "1.31", "1.3 ")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"flags": {"new": ["unsteady"]}}, "new: unsteady: the passes of a process drifted or jumped"),
        ({"flags": {"old": ["params-differ"]}}, ""),
        ({"flags": {"old": ["peak-too-low"]}}, ""),
        ({"processes": 1}, "nothing is known of how processes differ: no cell was visited twice"),
        ({"lengths": (1024, 2048)}, "2 cells of this run are new"),
    ],
)
def test_what_may_not_support_a_ratio(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    run = a_run(tmp_path, {"new": flat(0.05), "old": flat(0.1)}, **changes)
    found = judged(run, BETWEEN + "printed = 2")
    assert found.verdict == ("not comparable" if reason else "holds")
    assert found.reason.startswith(reason)


def test_a_cell_that_failed_says_why(tmp_path: Path) -> None:
    cells = [make_cell("new"), make_cell("old")]
    run = load_run(
        write_run(tmp_path, cells, [measured(cells[0], [1.0]), failed(cells[1], "oom", "too big")])
    )
    found = judged(run, BETWEEN + "printed = 2")
    assert (found.verdict, found.measured, found.reason) == ("not comparable", "", "old: oom (too big)")
    found = judged(run, BETWEEN.replace("'old'", "'none'") + "printed = 2")
    assert found.reason == "no cell of this run is none"


def test_models_of_other_capacity_are_compared_and_it_is_said(tmp_path: Path) -> None:
    cells = [make_cell("new", level="block"), make_cell("old", level="block")]
    records = [
        measured(c, [time] * 3, round=n, process=f"p{n}", params=params)
        for c, time, params in zip(cells, (0.05, 0.1), (150, 100), strict=True)
        for n in range(2)
    ]
    found = judged(load_run(write_run(tmp_path, cells, records)), BETWEEN + "printed = 2")
    assert (found.verdict, found.reason) == ("holds", "1.5 times the parameters")


def test_times_of_a_tpu_are_shown_and_not_judged(tmp_path: Path) -> None:
    run = a_run(tmp_path, {"new": flat(0.05), "old": flat(0.1)})
    found = judged(run, BETWEEN + "printed = 2", device="tpu")
    assert found.measured.startswith("2 [")
    assert found.verdict == "not comparable"
    assert found.reason.startswith("printed on one TPU, whose matrix units")
    assert judged(run, BETWEEN + "printed = 0.5", device="tpu", metric="peak_bytes").verdict == "holds"
    found = judged(run, BETWEEN + "printed = 2\nnot_comparable = 'nobody has it'")
    assert (found.verdict, found.reason) == ("not comparable", "nobody has it")
    found = judged(run, BETWEEN.replace("'old'", "'none'") + "printed = 2\nnot_comparable = 'nobody has it'")
    assert found.reason == "nobody has it; no cell of this run is none"


LENGTHS = (1024, 2048, 4096, 8192, 16384)


@pytest.mark.parametrize(
    ("power", "printed", "verdict"), [(2, 2, "holds"), (1, 2, "does not hold"), (1, 1, "holds")]
)
@pytest.mark.parametrize("metric", ["time_s", "alloc_bytes"])
def test_an_exponent_holds_by_its_range(
    tmp_path: Path, power: int, printed: int, verdict: str, metric: str
) -> None:
    run = a_run(tmp_path, {"new": lambda n: 1e-2 * (n / 1024) ** power}, lengths=LENGTHS)
    found = judged(run, EXPONENT + f"printed = {printed}", metric=metric)
    assert found.verdict == verdict, found
    assert found.measured.endswith("(seq 1024 to 16384)")


def test_an_exponent_is_of_one_sample(tmp_path: Path) -> None:
    run = a_run(
        tmp_path, {"new": flat(0.1)}, lengths=LENGTHS, batch=lambda n: 16384 // n
    )  # as long for 16 short ones as for a long one
    assert judged(run, EXPONENT + "printed = 1", metric="time_s").verdict == "holds"


def test_an_exponent_that_has_not_settled(tmp_path: Path) -> None:
    rising = {"new": lambda n: 1e-2 * (n / 1024) + 1e-3 * (n / 1024) ** 2}
    run = a_run(tmp_path, rising, lengths=LENGTHS, noise=1e-4)
    found = judged(run, EXPONENT + "printed = 2", metric="time_s")
    assert found.measured.startswith("still rising: 1.")
    assert (found.verdict, found.reason) == (
        "not comparable",
        "the exponent has not settled at these sizes",
    )
    assert judged(run, EXPONENT + "printed = 1", metric="time_s").verdict == "does not hold"
    few = a_run(tmp_path / "few", rising, lengths=LENGTHS[:3])
    assert judged(few, EXPONENT + "printed = 2", metric="time_s").reason == "3 of at least 4 sizes"


def test_an_exponent_says_what_it_leaves_out(tmp_path: Path) -> None:
    run = a_run(tmp_path, {"new": lambda n: 1e-5 * n}, lengths=LENGTHS, flags={"new": ["loaded"]})
    found = judged(run, EXPONENT + "printed = 1", metric="time_s")
    assert (found.verdict, found.measured) == ("not comparable", "")
    assert found.reason == "0 of at least 4 sizes; 5 with a flag that puts them in doubt"


@pytest.mark.parametrize(
    ("older", "verdict", "reason"),
    [
        (0.2, "holds", ""),
        (0.1, "not comparable", "undecided: new over older is 1 ["),
        (0.05, "does not hold", "new over older is 2 ["),
    ],
)
def test_an_order_holds_pair_by_pair(tmp_path: Path, older: float, verdict: str, reason: str) -> None:
    run = a_run(tmp_path, {"new": flat(0.1), "old": flat(0.2), "older": flat(older)})
    text = BEGIN + "kind = 'order'\nmetric = 'time_s'\nprinted = '1 < 2'\n" + GROUPS
    found = judged(run, text)
    assert found.verdict == verdict, found
    assert found.reason.startswith(reason)
    assert "new 100 ms ±" in found.measured
    assert found.allowed == "new < old ≈ older"


def test_a_missing_cell_leaves_an_order_open_unless_another_pair_breaks_it(tmp_path: Path) -> None:
    text = BEGIN + "kind = 'order'\nmetric = 'peak_bytes'\nprinted = '1 < 2'\n" + GROUPS
    found = judged(a_run(tmp_path / "a", {"new": flat(0.1), "old": flat(0.2)}), text)
    assert (found.verdict, found.reason) == ("not comparable", "no cell of this run is older")
    found = judged(a_run(tmp_path / "b", {"new": flat(0.3), "old": flat(0.2)}), text)
    assert found.verdict == "does not hold"


def test_memory_too_little_to_be_seen_decides_nothing(tmp_path: Path) -> None:
    run = a_run(tmp_path, {"new": flat(1e-10), "old": flat(1e-10)}, level="op")
    found = judged(run, BETWEEN + "printed = 0.5", metric="peak_bytes")
    assert (found.verdict, found.measured) == ("not comparable", "")
    assert "too little to be seen" in found.reason
    half = a_run(tmp_path / "half", {"new": flat(1e-10), "old": flat(0.1)}, level="op")
    assert judged(half, BETWEEN + "printed = 0.5", metric="peak_bytes").verdict == "not comparable"


REACH = BEGIN + "kind = 'reach'\nof.mechanism = 'new'\nto.mechanism = 'old'\n"


@pytest.mark.parametrize(
    ("new", "old", "verdict", "shown", "reason"),
    [
        ("ooooo", "ooMMM", "holds", "≥ 8 (16384 over 2048 tokens)", ""),
        ("ooooP", "oMMMM", "holds", "8 (8192 over 1024 tokens)", ""),
        ("oooMM", "ooPPP", "does not hold", "2 (4096 over 2048 tokens)", ""),
        ("ooooo", "oooMM", "not comparable", "≥ 4 (16384 over 4096 tokens)", "new: how far it goes was not"),
        (
            "ooooo",
            "ooooo",
            "not comparable",
            "≥ 1 (16384 over 16384 tokens)",
            "old: none longer was asked",
        ),
        (
            "ooooo",
            "ooTTT",
            "not comparable",
            "≥ 8 (16384 over 2048 tokens)",
            "old: the next length ended with tim",
        ),
        ("MMMMM", "ooMMM", "not comparable", "", "new: no length ran"),
    ],
)
def test_a_reach_is_of_what_memory_ended(
    tmp_path: Path, new: str, old: str, verdict: str, shown: str, reason: str
) -> None:
    status = {"M": "oom", "P": "oom-predicted", "T": "timeout"}
    cells, records = [], []
    for name, ends in (("new", new), ("old", old)):
        for seq, end in zip(LENGTHS, ends, strict=True):
            cells.append(make_cell(name, seq=seq))
            records.append(
                measured(cells[-1], [1.0] * 3) if end == "o" else failed(cells[-1], status[end], "too big")
            )
    run = load_run(write_run(tmp_path, cells, records))
    found = judged(run, REACH + "printed = 8")
    assert (found.verdict, found.measured) == (verdict, shown)
    assert found.reason.startswith(reason)
    assert found.allowed == "≥ 5.33"


SOONER = (
    BEGIN
    + """kind = 'sooner'
printed = '1 < 2'
first = {says = 'over slow', metric = 'time_s', of.mechanism = 'new', to.mechanism = 'slow'}
second = {says = 'over fast', metric = 'time_s', of.mechanism = 'new', to.mechanism = 'fast'}
"""
)


def power(scale: float, exponent: int) -> Callable[[int], float]:
    return lambda n: scale * (n / 1024) ** exponent


@pytest.mark.parametrize(
    ("slow", "fast", "verdict", "reason"),
    [
        (power(0.03, 2), power(0.007, 2), "holds", ""),
        (power(0.2, 2), power(0.007, 2), "holds", ""),  # over slow from the shortest on
        (power(0.03, 2), power(0.001, 1), "holds", ""),  # over fast never
        (power(0.007, 2), power(0.03, 2), "does not hold", ""),
        (power(0.03, 2), power(0.03, 2), "not comparable", "too close to call"),
        (power(0.2, 2), power(0.3, 2), "not comparable", "too close to call"),
        (power(0.03, 2), power(0.1, 1), "not comparable", "over fast: new and fast cross more than once, or"),
    ],
)
def test_what_comes_sooner(
    tmp_path: Path, slow: Callable[[int], float], fast: Callable[[int], float], verdict: str, reason: str
) -> None:
    run = a_run(tmp_path, {"new": power(0.1, 1), "slow": slow, "fast": fast}, lengths=LENGTHS)
    found = judged(run, SOONER)
    assert found.verdict == verdict, found
    assert found.reason.startswith(reason)
    assert (not found.measured) == reason.startswith("over fast:")


def test_what_is_missing_leaves_the_other_kinds_open(tmp_path: Path) -> None:
    run = a_run(tmp_path, {"new": flat(0.1), "slow": flat(0.2)}, flags={"slow": ["loaded"]})
    found = judged(run, SOONER)
    assert (found.verdict, found.measured) == ("not comparable", "")
    assert "over slow: at no length there is a sound number of both new and slow" in found.reason
    assert "over fast: no cell of this run is fast" in found.reason
    assert judged(run, REACH + "printed = 8").reason == "no cell of this run is old"


def test_a_statement_is_said_with_its_reason(tmp_path: Path) -> None:
    run = a_run(tmp_path, {"new": flat(0.1)})
    found = judged(run, BEGIN + "kind = 'statement'\nprinted = '28 BLEU'\nnot_comparable = 'quality'")
    assert (found.verdict, found.printed, found.reason) == ("not comparable", "28 BLEU", "quality")

"""A verdict as people and GitHub read it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from effbench.announce import github_annotations, markdown, table
from effbench.judgement import Judgement, Verdict

SLOWER = Judgement(
    "1",
    "toy seq=1K dim=256",
    "time_s",
    "slower",
    "the interval lies above",
    1e-3,
    1.2e-3,
    1.15,
    1.25,
    "toy",
    1.2,
)
BROKE = Judgement(
    "2", "toy seq=2K dim=256", "status", "broke", "base ok; head error (a | b\nc)", mechanism="toy"
)
FINE = Judgement("3", "toy seq=4K dim=256", "time_s", "same", "no sign", 1.0, 1.0, 0.99, 1.01, "toy", 1.0)
LET_PASS = Judgement(
    "4", "pet seq=1K dim=256", "flops", "bigger", "grew", 1.0, 2.0, mechanism="pet", excused="intended"
)
VERDICT = Verdict([FINE, LET_PASS, SLOWER, BROKE])


def test_worst_first_with_numbers_and_why() -> None:
    lines = table(VERDICT).splitlines()
    assert [line.split()[0] for line in lines[2:5]] == ["toy", "toy", "pet"]
    assert "broke" in lines[2]
    assert all(part in lines[3] for part in ("slower", "1.00 ms", "1.20 ms", "1.200 [1.150, 1.250]", "above"))
    assert "does not count: intended" in lines[4]
    assert "Time: geometric mean of head / base 1.095 over 2 cells" in lines
    assert lines[-1] == "worse: 1 same, 1 bigger, 1 slower, 1 broke. 1 of them do not count."


def test_an_interval_that_says_nothing_is_not_spelt_out() -> None:
    vague = replace(SLOWER, call="inconclusive", low=0.27, high=2828514.496)
    assert "1.200 ±?" in table(Verdict([vague]))


def test_markdown_is_one_table_whatever_a_reason_holds() -> None:
    text = markdown(VERDICT, ["base is abc"])
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 5
    assert {line.replace("\\|", "").count("|") for line in rows} == {8}
    assert text.startswith("### ❌ effbench gate: worse")
    assert text.endswith("* base is abc\n")


def test_annotations_name_the_file_and_are_escaped(tmp_path: Path) -> None:
    mechanisms = {"toy": {"file": str(tmp_path / "mechanisms" / "toy.py")}}
    found = list(github_annotations(VERDICT, mechanisms, tmp_path))
    assert len(found) == 2, "neither what is the same nor what does not count"
    assert found[0].startswith("::error file=mechanisms/toy.py,title=toy seq=2K dim=256%3A Status broke::")
    assert found[0].endswith("(a | b%0Ac)")
    assert "1.00 ms became 1.20 ms" in found[1]

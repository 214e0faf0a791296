"""``[tool.effbench]``: what is accepted, and the place of what is not."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import pytest

from effbench.errors import BadInput
from effbench.judgement import TOO_GOOD
from effbench.settings import read_settings

TOMORROW, YESTERDAY = (date.today() + timedelta(days=days) for days in (1, -1))

FULL = f"""
[tool.effbench]
mechanisms = ["mine.py:M1"]
suite = "quick"
inconclusive = "warn"

[tool.effbench.thresholds."*"]
time_s = 0.08

[tool.effbench.thresholds.mean]
time_s = 0.2
alloc_bytes = 0.01

[[tool.effbench.waive]]
mechanism = "mean"
metric = "peak_bytes"
reason = "its heap has holes"

[[tool.effbench.accept]]
mechanism = "mean"
metric = "time_s"
up_to = 1.2
reason = "exact now"
expires = {TOMORROW}

[[tool.effbench.accept]]
mechanism = "mean"
metric = "flops"
up_to = 1.5
reason = "long ago"
expires = {YESTERDAY}
"""


def written(folder: Path, text: str) -> Path:
    (folder / "pyproject.toml").write_text(text)
    return folder


def test_all_of_it(tmp_path: Path) -> None:
    settings = read_settings(written(tmp_path, FULL))
    rules = settings.rules({})
    assert (settings.mechanisms, settings.suite, settings.inconclusive) == (["mine.py:M1"], "quick", "warn")
    assert rules.gate("mean", "time_s").relative == 0.2
    assert rules.gate("mean", "alloc_bytes").absolute == rules.gate("other", "alloc_bytes").absolute
    assert rules.gate("other", "time_s").relative == 0.08
    assert rules.gate("other", "time_s").interval
    assert [one.expired for one in rules.excuses] == [False, False, True]


def test_a_project_without_settings_has_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    assert read_settings(tmp_path / "inner").too_good == TOO_GOOD
    assert read_settings(written(tmp_path, "[project]\nname = 'x'\n") / "inner").mechanisms is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[tool.effbench]\nmechanism = ['a']", "unknown key tool.effbench.mechanism; expected one of accept"),
        ("[tool.effbench.thresholds.a]\ntime = 0.1", "tool.effbench.thresholds.a.time"),
        (
            "[tool.effbench.thresholds.a]\ntime_s = -1",
            "tool.effbench.thresholds.a.time_s: Input should be greater",
        ),
        (
            "[tool.effbench]\ninconclusive = 'pass'",
            "tool.effbench.inconclusive: Input should be 'fail' or 'warn'",
        ),
        ("[[tool.effbench.waive]]\nmechanism = 'a'\nmetric = 'flops'", "tool.effbench.waive[0].reason"),
        (
            "[[tool.effbench.accept]]\nmechanism='a'\nmetric='flops'\nreason='r'\nup_to=1.1",
            "tool.effbench.accept[0].expires",
        ),
        (
            "[[tool.effbench.waive]]\nmechanism='a'\nmetric='flops'\nreason='r'\nuntil=1",
            "unknown key tool.effbench.waive[0].until; expected one of mechanism, metric, reason",
        ),
        ("[tool.effbench", "not TOML"),
    ],
)
def test_what_is_not_accepted_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        read_settings(written(tmp_path, text))
    assert message in str(caught.value)
    assert str(tmp_path / "pyproject.toml") in str(caught.value)

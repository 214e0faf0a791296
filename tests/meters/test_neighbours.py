"""Load from others, on a /proc/stat that is written by hand."""

from pathlib import Path

import pytest

from effbench.meters import neighbours as meter

TICKS = 100  # a second


def stat(path: Path, *cores: tuple[int, int, int]) -> Path:
    """user, idle and steal ticks of each core."""
    lines = [f"cpu{i} {user} 0 0 {idle} 5 0 0 {steal} 0 0" for i, (user, idle, steal) in enumerate(cores)]
    path.write_text("\n".join(["cpu 1 2 3 4 5 6 7 8 9 10", *lines, "intr 12 0"]) + "\n")
    return path


@pytest.mark.parametrize(
    ("threads", "own", "user", "steal", "cores", "disturb"),
    [
        (2, 4.0, 400, 0, 0.0, False),  # both cores ours for two seconds
        (2, 3.0, 400, 0, 0.5, True),
        (2, 3.0, 300, 100, 0.5, True),  # the hypervisor took a second
        (2, 3.7, 400, 0, 0.15, False),  # a tenth of a core or two is always taken
        (1, 2.0, 300, 0, 0.5, False),  # half of the other core
        (1, 2.0, 400, 0, 1.0, True),
    ],
)
def test_what_others_took(tmp_path, monkeypatch, threads, own, user, steal, cores, disturb):
    path = stat(tmp_path / "stat", (0, 9, 0), (0, 9, 0), (777, 0, 0))
    spent, clock = iter([0.0, own]), iter([10.0, 12.0])
    monkeypatch.setattr(meter, "_usable", lambda: {0, 1})
    monkeypatch.setattr(meter, "_own_seconds", lambda: next(spent))
    monkeypatch.setattr(meter.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(meter.os, "sysconf", lambda name: TICKS)
    with meter.neighbours(threads, path) as found:
        stat(path, (user // 2, 9, steal), (user - user // 2, 9, 0), (9999, 0, 0))  # the third is not ours
    assert found.cores == pytest.approx(cores)
    assert found.disturb is disturb


def test_a_moment_is_too_short_to_tell(tmp_path, monkeypatch):
    spent, clock = iter([0.0, 0.0]), iter([0.0, 0.05])
    monkeypatch.setattr(meter, "_usable", lambda: {0, 1})
    monkeypatch.setattr(meter, "_own_seconds", lambda: next(spent))
    monkeypatch.setattr(meter.time, "perf_counter", lambda: next(clock))
    path = stat(tmp_path / "stat", (0, 0, 0), (0, 0, 0))
    with meter.neighbours(2, path) as found:
        stat(path, (2, 0, 0), (1, 0, 0))
    assert found.cores == pytest.approx(0.6)
    assert not found.disturb


def test_elsewhere_nothing_is_known(tmp_path):
    with meter.neighbours(1, tmp_path / "none") as found:
        pass
    assert (found.cores, found.disturb) == (None, False)

"""The command line as users meet it: what it imports, what it refuses, its exit codes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from effbench.cli import main

Effbench = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def ran(effbench: Effbench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small run."""
    folder = tmp_path_factory.mktemp("cli")
    words = ["run", "--mechanism", "mha,fnet", "--seq", "16..64", "--dim", "16", "--out", "r"]
    done = effbench(*words, cwd=folder)
    assert done.returncode == 0, done.stderr
    (folder / "stderr").write_text(done.stderr)
    (folder / "binary.toml").write_bytes(b"\xff\xfe")
    return folder


def test_a_run_leaves_its_files_and_a_summary(ran: Path) -> None:
    names = {path.name for path in (ran / "r").iterdir()}
    assert {"records.jsonl", "run.json", "table.csv", "report.md", "report.html"} <= names
    assert any(name.endswith(".png") for name in names)


def test_a_report_answers_at_a_point_and_beside_another_run(effbench: Effbench, ran: Path) -> None:
    question = ["--at", "seq=32,dim=16", "--baseline", "mha", "--memory-limit", "1GiB"]
    done = effbench("report", "r", *question, "--compare", "r", "--as", "csv", cwd=ran)
    assert done.returncode == 0, done.stderr
    shown = " ".join(done.stdout.split())  # however the lines are broken
    for text in ("At length 32 · width 16", "the same function as mha", "Fastest within 1.00 GiB: "):
        assert text in shown


def test_without_a_terminal_there_is_one_line_a_visit(ran: Path) -> None:
    lines = [line for line in (ran / "stderr").read_text().splitlines() if line.startswith("[")]
    visits = len((ran / "r" / "records.jsonl").read_text().splitlines())
    assert 6 <= len(lines) == visits <= 12  # six cells, the fast ones twice
    assert re.match(r"\[1/[67]\] (mha|fnet) seq 16 dim 16: ", lines[0])
    assert lines[-1].startswith(f"[{visits}/{visits}] ")
    assert lines[-1].endswith("0 s left")


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["run", "--help"],
        ["report", "r"],
        ["reproduce", "paper-fnet", "--from", "r"],
        ["compare", "r", "r"],
        ["export", "r", "--to", "csv"],
    ],
    ids=lambda words: words[0] + words[1][:3] if len(words) > 1 else words[0],
)
def test_what_does_not_measure_never_imports_torch(ran: Path, words: list[str]) -> None:
    code = (
        "import sys; from effbench.cli import main; sys.argv = ['effbench', *sys.argv[1:]]\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code in (0, 3), end.code\n"  # 3: too noisy to compare
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=ran, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "False"


def test_help_costs_little_more_than_python(ran: Path) -> None:
    """Counted in modules, not in seconds: pandas, pydantic, rich and torch stay out."""
    code = "import sys; from effbench.cli import app; app(['--help'], standalone_mode=False)"
    code += "; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert not loaded & {"torch", "pandas", "numpy", "pydantic", "rich", "matplotlib", "scipy"}


def test_every_command_has_help(effbench: Effbench, tmp_path: Path) -> None:
    overview = effbench("--help", cwd=tmp_path).stdout
    for command in ("list", "run", "report", "compare", "export", "verify", "doctor", "new"):
        assert effbench(command, "--help", cwd=tmp_path).returncode == 0, command
        assert command in overview


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "nosuch"], "no suite called 'nosuch'"),
        (["run", "--mechanism", "aft-ful"], "did you mean 'aft-full'"),
        (["run", "--with", "missing.py"], "there is no file missing.py"),
        (["run", "--seq", "8..4"], "--seq: '8..4' runs backwards"),
        (["run", "--device", "cpu:1"], "--device: 'cpu:1' is none of cpu, cuda, cuda:N"),
        (["run", "--device", "cuda:x"], "--device: 'cuda:x' is none of"),
        (["run", "binary.toml"], "binary.toml: not TOML: 'utf-8' codec can't decode"),
        (["run", "--mode", "fwd"], "--mode: 'fwd' is none of forward, train, decode, generate"),
        (["run", "--memory-limit", "lots"], "memory-limit: 'lots' is no amount"),
        (["run", "--memory-limit", "8MiB"], "memory-limit: 8MiB is too small, the least is 64MiB"),
        (["run", "--cell-timeout", "0"], "cell-timeout: '0' is no amount"),
        (["run", "--option", "window=3"], "--option: 'window=3' is not of the form"),
        (["run", "--mechanism", "aft-local", "--option", "aft-local.windo=3"], "aft-local has "),
        (["run", "--mechanism", "fnet", "--option", "nosuch.window=3"], "options.nosuch: no such mechanism"),
        (["run", "--mechanism", "mha,mha"], "mha is asked twice"),
        (["run", "--mechanism", "fnet", "--baseline", "mah", "--out", "b"], "baseline: 'mah' is none of"),
        (["run", "--nosuch"], "--nosuch"),
        (["report", "nowhere"], "nowhere"),
        (["report", "r", "--as", "docx"], "'docx'"),
        (["report", "r", "--baseline", "nosuch"], "--baseline: 'nosuch' is none of"),
        (["report", "r", "--at", "seq=7"], "--at: no cell with seq=7; there are 16, 32, 64"),
        (["report", "r", "--at", "length=16"], "--at: no axis 'length'"),
        (["report", "r", "--memory-limit", "much"], "memory-limit"),
        (["report", "r", "--compare", "nowhere"], "nowhere"),
        (["compare", "r", "nowhere"], "nowhere"),
        (["export", "r", "--to", "nosuch"], "nosuch"),
        (["doctor", "--nosuch"], "--nosuch"),
        (["new", "1bad"], "'1bad'"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_a_line_and_exit_code_2(
    ran: Path,
    words: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In this process, which pandas is in already; an exception that is no exit would have a traceback."""
    monkeypatch.chdir(ran)
    monkeypatch.setattr(sys, "argv", ["effbench", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert ended.value.code == 2, said
    assert said.startswith("effbench: ")
    assert message in said


def test_a_file_that_the_system_refuses_is_no_bug(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "mixer.py")

    monkeypatch.setattr("effbench.scaffold.write", refuse)
    monkeypatch.setattr(sys, "argv", ["effbench", "new", "mixer"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert (ended.value.code, capsys.readouterr().err) == (2, "effbench: mixer.py: Permission denied\n")


def test_bad_input_ends_the_process_with_2_and_no_traceback(effbench: Effbench, tmp_path: Path) -> None:
    done = effbench("run", "nosuch", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("effbench: no suite called 'nosuch'")
    assert "Traceback" not in done.stderr


def test_nothing_measured_is_exit_code_3(effbench: Effbench, tmp_path: Path) -> None:
    words = ["run", "--mechanism", "fnet", "--causal", "--seq", "8", "--dim", "8", "--out", "r"]
    done = effbench(*words, cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert "no cell of 1 could be measured" in done.stderr
    assert effbench(*words, cwd=tmp_path).returncode == 3, "also when all had been answered before"


def test_a_dry_run_shows_the_cells_and_measures_nothing(effbench: Effbench, tmp_path: Path) -> None:
    words = ["--mechanism", "mha", "--seq", "64,1M", "--dim", "64", "--mode", "train", "--dry-run"]
    done = effbench("run", *words, "--level", "op", "--dtype", "bfloat16", "--causal", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "does not fit" in done.stdout
    assert re.search("train +causal", done.stdout)
    assert "2 cells" in done.stdout
    assert not list(tmp_path.rglob("records.jsonl"))


def test_a_new_mechanism_runs_and_compares_at_once(effbench: Effbench, tmp_path: Path) -> None:
    assert effbench("new", "my-mixer", cwd=tmp_path).returncode == 0
    again = effbench("new", "my-mixer", cwd=tmp_path)
    assert (again.returncode, "is there already" in again.stderr) == (2, True)
    (tmp_path / "s.toml").write_text(
        """
        mechanisms = ["mha-sdpa"]
        axes = {dim = 16}
        sweep = [
            {seq = "16,32"},
            {seq = 16, causal = true, mode = "train"},
            {seq = 16, level = "op", dtype = "bfloat16"},
        ]
        """
    )
    done = effbench("run", "s.toml", "--with", "my_mixer.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = (tmp_path / "results/s/table.csv").read_text().splitlines()[1:]
    assert len(rows) == 8
    assert all(",ok," in row for row in rows), rows


def test_two_mechanisms_of_one_name_are_refused(effbench: Effbench, tmp_path: Path) -> None:
    effbench("new", "fnet", cwd=tmp_path)
    done = effbench(
        "run", "--mechanism", "fnet", "--with", "fnet.py", "--seq", "8", "--dim", "8", cwd=tmp_path
    )
    assert done.returncode == 2
    assert "two mechanisms are called 'fnet'" in done.stderr


def test_compare_says_worse_with_its_exit_code(effbench: Effbench, ran: Path) -> None:
    """Of times that are known: what a busy machine made of a small run may leave any ratio open."""
    for name, factor in {"before": 1.0, "after": 1.5}.items():
        (ran / name).mkdir()
        (ran / name / "run.json").write_text((ran / "r" / "run.json").read_text())
        lines = [_timed(line, factor) for line in (ran / "r" / "records.jsonl").read_text().splitlines()]
        (ran / name / "records.jsonl").write_text("\n".join(lines) + "\n")
    done = effbench("compare", "before", "before", cwd=ran)
    assert done.returncode == 0, done.stdout + done.stderr
    done = effbench("compare", "before", "after", "--explain", cwd=ran)
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.count("slower") >= 6


def _timed(line: str, factor: float) -> str:
    """A record with times of its cell's length and round."""
    record = json.loads(line)
    level = factor * record["cell"]["seq"] * 1e-6 * (1 + 0.005 * record["round"])
    record["time"] = {"samples_s": [level * (1 + 0.001 * step) for step in range(5)]}
    return json.dumps(record)

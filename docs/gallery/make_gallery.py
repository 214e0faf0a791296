"""Writes this folder and the README's two tables: ``python docs/gallery/make_gallery.py results/scaling``.

From the folder of a finished ``effbench run --seq 1024..65536``; no number is typed.
"""

import sys
from pathlib import Path
from textwrap import wrap

import mechanism_table
from tabulate import tabulate

from effbench.frame import NOT_YET, Run, load_run
from effbench.lines import Row, rows_of
from effbench.metrics import METRICS, seconds, size_label
from effbench.plausibility import sound
from effbench.render import write_reports
from effbench.reports._machine import sentence

HERE = Path(__file__).parent
README = HERE.parents[1] / "README.md"
#: What stands between these two in the README is written here: what was measured, then the mechanisms.
BEGIN, END = "<!-- written by make gallery -->", "<!-- end -->"
LENGTHS, WIDTH = (1024, 4096, 16384, 65536), 256


def main(folder: str) -> None:
    run = load_run(Path(folder))
    left_out = int(run.frame["reason"].isin(["budget", NOT_YET]).sum())
    if left_out:
        sys.exit(f"{folder}: {left_out} cells have no answer yet; run again, it goes on where it stopped")
    for path in (*HERE.glob("*.png"), *HERE.glob("*.md"), *HERE.glob("*.csv")):
        path.unlink()
    write_reports(run, HERE, ["github", "csv"])
    before, *written = README.read_text().split(BEGIN)
    blocks = (block(run), mechanism_table.table())
    for text, old in zip(blocks, written, strict=True):
        before += f"{BEGIN}\n{text}\n{END}{old.split(END, 1)[1]}"
    README.write_text(before)


def block(run: Run) -> str:
    """What the README says of the run: on what it was measured, and times and memory at some lengths."""
    rows = {(row["mechanism"], row["seq"]): row for row in rows_of(run) if row["dim"] == WIDTH}
    last = size_label(LENGTHS[-1])
    header = ["mechanism", *(f"{size_label(n)} tokens" for n in LENGTHS), f"memory at {last}"]
    body = [
        [
            f"`{name}`",
            *(cell(rows[name, n], "time_s") for n in LENGTHS),
            cell(rows[name, LENGTHS[-1]], "total_bytes"),
        ]
        for name in dict.fromkeys(name for name, _ in rows)
    ]
    table = tabulate(body, header, tablefmt="github", disable_numparse=True)
    day = run.info["circumstances"][-1]["date"][:10]
    said = f"{sentence(run.machine).removesuffix('.')}, by `{run.info['command']}`, on {day}."
    said += " † flagged: the report says why." if "†" in table else ""
    return "\n".join([*wrap(said, 116, break_on_hyphens=False), "", table])


def cell(row: Row, name: str) -> str:
    """A number of a row with a mark where a flag puts it in doubt; why there is none."""
    if row["status"] != "ok":
        return {"oom-predicted": "OOM (predicted)"}.get(row["status"], row["status"].upper())
    value = row[name]
    text = seconds([value])(value) if name == "time_s" else METRICS[name].text(value)
    return text + ("" if sound(row, name) else " †")


if __name__ == "__main__":
    main(*sys.argv[1:])

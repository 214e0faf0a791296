"""``effbench doctor``: what this machine can and cannot measure, in words, with a remedy for each.

``system`` reads what the system says of itself, ``gpu`` what NVML says, ``rehearsal`` measures a little in
the processes of a real run; each gives findings. ``shown`` prints them.
"""

from __future__ import annotations

from collections.abc import Iterator

from effbench.doctor.finding import Finding
from effbench.doctor.gpu import gpu_findings
from effbench.doctor.rehearsal import Rehearsal
from effbench.doctor.system import system_findings


def examine() -> Iterator[Finding]:
    """Every finding, as soon as it is known: a few seconds pass before the last ones."""
    yield from system_findings()
    with Rehearsal() as rehearsal:
        yield from rehearsal.times()
        yield rehearsal.products()
        yield from gpu_findings(rehearsal.torch_facts())

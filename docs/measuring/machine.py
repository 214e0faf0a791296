"""Says on what a run was measured, in a line without names or paths of the machine."""


def machine(run):
    """From the facts that the run recorded."""
    facts = run.machine
    cpu, memory = facts["cpu"], facts["memory"]["physical"] / 2**30
    virtual = "" if cpu["governor"] else ", no frequency governor of its own (a virtual machine)"
    date = run.info["circumstances"][-1]["date"][:10]
    return (
        f"{cpu['usable_cores']} cores of {cpu['model']}, {memory:.1f} GiB{virtual}, "
        f"{facts['os']['system']} {facts['os']['kernel'].split('-')[0]}, {facts['os']['libc']}, "
        f"torch {facts['torch']['version']}, {date}"
    )

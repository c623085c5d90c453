"""Whether a run had its machine to itself. Past these bounds none of its time-based figures is
used: `run` warns, validation remarks, the board marks the row and the gap gives no verdict."""

from __future__ import annotations

from equivbench.records.schema import RunRecord

MOST_STALLED = 0.05
"""Part of the wall time in which the process was stopped or waited for a core."""
MOST_STEAL = 0.05
MOST_THROTTLED = 0.05
MOST_SPREAD = 3.0
"""90th over 10th percentile of a step. Undisturbed runs of the pairs here have 1.03 to 1.82
(70 records); a run on a busy machine had 28."""
LEAST_CORES = 0.6
"""CPU seconds a second of a run on a CPU, however many threads it has."""
_SHORTEST = 1.0
"""Seconds of training below which nothing is said."""


def disturbance(record: RunRecord) -> str | None:
    """What kept ``record``'s run from its machine, as part of a sentence; None if nothing did, or
    nobody measured."""
    share, clock = record.machine_share, record.clock
    if share is None or clock.train + clock.data < _SHORTEST:
        return None
    found = []
    if share.stalled_seconds > MOST_STALLED * clock.wall:
        found.append(f"it had to wait for {share.stalled_seconds:.1f} of {clock.wall:.1f} s")
    if share.steal is not None and share.steal > MOST_STEAL:
        found.append(f"a hypervisor gave {share.steal:.0%} of the CPU time to others")
    if share.throttled_seconds > MOST_THROTTLED * clock.wall:
        found.append(f"a container's quota held it back for {share.throttled_seconds:.1f} s")
    if share.p90_over_p10 is not None and share.p90_over_p10 > MOST_SPREAD:
        found.append(f"its slow steps took {share.p90_over_p10:.1f} times as long as its fast ones")
    cores = share.cpu_share * record.environment.threads
    if record.environment.device == "cpu" and cores < LEAST_CORES:
        found.append(f"it got {cores:.2f} CPU seconds a second")
    return f"the machine was busy ({'; '.join(found)})" if found else None

"""Whether a run had its machine to itself. Past these bounds none of its time-based figures is
used: `run` and `tune` warn, validation remarks, the board marks the row and the gap gives no
verdict."""

from __future__ import annotations

from equivbench.records.schema import MachineShare, RunRecord

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
    if record.machine_share is None:
        return None
    clock, environment = record.clock, record.environment
    return busy(
        record.machine_share,
        trained=clock.train + clock.data,
        wall=clock.wall,
        cpu_threads=environment.threads if environment.device == "cpu" else None,
    )


def busy(
    share: MachineShare, *, trained: float, wall: float, cpu_threads: int | None
) -> str | None:
    """The same for the ``share`` of a run that trained for ``trained`` seconds, took ``wall``
    seconds in all, and computed with ``cpu_threads`` threads (None: not on a CPU)."""
    if trained < _SHORTEST:
        return None
    found = []
    if share.stalled_seconds > MOST_STALLED * wall:
        found.append(f"it had to wait for {share.stalled_seconds:.1f} of {wall:.1f} s")
    if share.steal is not None and share.steal > MOST_STEAL:
        found.append(f"a hypervisor gave {share.steal:.0%} of the CPU time to others")
    if share.throttled_seconds > MOST_THROTTLED * wall:
        found.append(f"a container's quota held it back for {share.throttled_seconds:.1f} s")
    if share.p90_over_p10 is not None and share.p90_over_p10 > MOST_SPREAD:
        found.append(f"its slow steps took {share.p90_over_p10:.1f} times as long as its fast ones")
    if cpu_threads is not None and share.cpu_share * cpu_threads < LEAST_CORES:
        found.append(f"it got {share.cpu_share * cpu_threads:.2f} CPU seconds a second")
    return f"the machine was busy ({'; '.join(found)})" if found else None

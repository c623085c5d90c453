"""Whether a run had its machine to itself, from beginning to end. Past these bounds none of its
time-based figures is used: `run` and `tune` warn, validation remarks, the board marks the row and
the gap gives no verdict."""

from __future__ import annotations

from equivbench.records.outline import RecordOutline
from equivbench.records.schema import ClockRecord, Environment, MachineShare, RunRecord
from equivbench.schedule import cooldown_begins

MOST_STALLED = 0.05
"""Part of the wall time in which the process was stopped or waited for a core."""
MOST_STEAL = 0.05
MOST_THROTTLED = 0.05
MOST_SPREAD = 3.0
"""90th over 10th percentile of a step. Undisturbed runs of the pairs here have 1.03 to 1.82
(70 records); a run on a busy machine had 28."""
LEAST_CORES = 0.6
"""CPU seconds a second of a run on a CPU, however many threads it has."""
MOST_UNEVEN = 0.15
"""Part of a run's time, beyond or below their part of its steps, that the steps up to one of them
may take. More: a slow start; less: a long step in the middle. Undisturbed runs of the pairs here
have -0.04 to 0.02 (24 records)."""
READING_SECONDS = 0.25
"""How long an asynchronous device is left alone between two readings of the clock, at most."""
SLOW_STEP = 20.0
"""A step that ends a budget may be this many times as long as the mean step of the run."""
_SHORTEST = 1.0
"""Seconds of training below which nothing is said."""


def disturbance(record: RunRecord) -> str | None:
    """What kept ``record``'s run from its machine or slowed a part of it, as part of a sentence;
    None if nothing did, or nobody measured."""
    if isinstance(record, RecordOutline):
        return record.disturbance
    found = [slowness(record), _late(record)]
    return "; ".join(sentence for sentence in found if sentence is not None) or None


def slowness(record: RunRecord) -> str | None:
    """The same, by more than the lateness of its ends, which one long step explains."""
    trained = record.clock.train + record.clock.data
    found = [
        withheld(record.machine_share, record.clock, record.environment),
        _uneven(record, trained),
    ]
    return "; ".join(sentence for sentence in found if sentence is not None) or None


def longest_step(record: RunRecord) -> float:
    """How far a budget may be overshot, in its own unit, in a run that was not disturbed: by a
    step, and an interval between readings of the clock."""
    if record.budget.kind == "steps":
        return 0.0
    if record.budget.kind == "samples":
        return record.recipe.batch_size - 1.0
    busy_seconds = record.clock.train + record.clock.data
    return READING_SECONDS + SLOW_STEP * busy_seconds / max(1, record.steps)


def _uneven(record: RunRecord, trained: float) -> str | None:
    """The run was much slower in one part than in another."""
    points = [(point.step, point.train_seconds) for point in record.trace]
    points += [(rung.step, rung.train_seconds) for rung in record.rungs[:-1]]
    if not points or record.steps <= 0 or trained < _SHORTEST:
        return None
    step, seconds = max(points, key=lambda point: abs(point[1] / trained - point[0] / record.steps))
    if abs(seconds / trained - step / record.steps) <= MOST_UNEVEN:
        return None
    return (
        f"its steps came unevenly ({step} of {record.steps} took {seconds:.1f} of {trained:.1f} s)"
    )


def _late(record: RunRecord) -> str | None:
    """A budget in seconds ended long after its time, by a step that took so long."""
    if record.budget.kind != "seconds" or record.budget.limit < _SHORTEST:
        return None
    ends = {f"its budget of {record.budget.limit:g} s": record.budget.overshoot}
    for rung in record.rungs[:-1]:
        ends[f"its rung of {rung.budget:g} s"] = rung.train_seconds - rung.budget
    if record.trace:
        begins = cooldown_begins(record.budget.limit)
        ends["the end of its trace"] = record.trace[-1].train_seconds - begins
    what, over = max(ends.items(), key=lambda item: item[1])
    if over <= longest_step(record):
        return None
    return f"a step took long ({what} is {over:.1f} s late)"


def withheld(
    share: MachineShare | None, clock: ClockRecord, environment: Environment
) -> str | None:
    """What kept a run with these from its machine as a whole; None if nothing did, or nobody
    measured."""
    if share is None:
        return None
    return busy(
        share,
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

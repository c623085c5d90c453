"""A ladder's entry made from its log: what each seed took to the target loss, their means, and the
comparison with the entry below."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from equivbench.errors import FailedError
from equivbench.gap.intervals import Quantity
from equivbench.gap.pairing import ArmRun
from equivbench.gap.target import (
    CostedLoss,
    TimesCompared,
    TimeToLoss,
    compare_times,
    mean_time,
    time_to_loss,
)
from equivbench.records.disturbed import disturbance
from equivbench.records.ladder import (
    LadderEntry,
    LadderSide,
    LoggedPoint,
    LoggedRun,
    SeedTime,
)
from equivbench.records.schema import Git, RunRecord
from equivbench.request import DEFAULT_KERNELS


@dataclass(frozen=True)
class EntryNumbers:
    """All of an entry that follows from its log."""

    times: list[SeedTime]
    against_times: list[SeedTime]
    seconds: Quantity
    steps: Quantity
    samples: Quantity
    compared: TimesCompared | None
    """None where nothing was run beside it."""

    @property
    def fields(self) -> dict[str, Any]:
        """The same by the entry's fields."""
        compared = self.compared
        speed_up = Quantity() if compared is None else compared.speed_up
        return {
            "times": self.times,
            "against_times": self.against_times,
            "seconds": self.seconds.value,
            "seconds_low": self.seconds.low,
            "seconds_high": self.seconds.high,
            "censored": self.seconds.censored,
            "steps": self.steps.value,
            "samples": self.samples.value,
            "speed_up": speed_up.value,
            "speed_up_low": speed_up.low,
            "speed_up_high": speed_up.high,
            "speed_up_censored": speed_up.censored,
            "p": None if compared is None else compared.p,
        }


def logged(record: RunRecord) -> LoggedRun:
    """What the log keeps of ``record``: all but its traces, parts and the errors of its test
    groups."""
    results = ArmRun(record).results()
    budgets = {rung.step: rung.budget for rung in record.rungs}
    same = (each.name for each in msgspec.structs.fields(LoggedRun))
    kept = {name: getattr(record, name) for name in same if name not in ("points", "final")}
    return LoggedRun(
        **kept,
        points=[
            LoggedPoint(
                budget=budgets[each.step],
                step=each.step,
                samples=each.samples,
                train_seconds=each.train_seconds,
                total=each.test.total,
            )
            for each in results
        ],
        final=None if record.final is None else record.final.total,
    )


def side_of(run: LoggedRun) -> LadderSide:
    """What ``run`` is a run of."""
    return LadderSide(str(run.git.commit), run.model.kernels)


def unusable(record: RunRecord) -> str | None:
    """Why nothing can be timed by ``record``: it did not come to its end, or not with the machine
    to itself; None if it can."""
    if record.status != "completed":
        return f"it is {record.status}" + (f": {record.reason}" if record.reason else "")
    return disturbance(record)


def numbers_of(
    runs: Sequence[LoggedRun], side: LadderSide, against: LadderSide | None, loss: float
) -> EntryNumbers:
    """The numbers of the entry of ``side`` whose log is ``runs``.

    Raises ``FailedError`` where a seed of one side is missing or there twice, or has no curve.
    """
    own = _times(runs, side, loss)
    others = {} if against is None else _times(runs, against, loss)
    if against is not None and own.keys() != others.keys():
        raise FailedError(
            f"the log has the seeds {sorted(own)} of {side.text} and {sorted(others)} of "
            f"{against.text}"
        )
    if not own:
        raise FailedError(f"the log has no run of {side.text}")
    sides = [each.censored for each in own.values()]
    means = {
        name: mean_time([getattr(each, name) for each in own.values()], sides)
        for name in ("seconds", "steps", "samples")
    }
    return EntryNumbers(
        times=_seed_times(own),
        against_times=_seed_times(others),
        compared=None if against is None else compare_times([*own.values()], [*others.values()]),
        **means,
    )


def _times(runs: Iterable[LoggedRun], side: LadderSide, loss: float) -> dict[int, TimeToLoss]:
    found: dict[int, TimeToLoss] = {}
    for run in sorted(runs, key=lambda each: each.seed):
        if side_of(run) != side:
            continue
        if run.seed in found:
            raise FailedError(f"the log has seed {run.seed} of {side.text} twice")
        points = [
            CostedLoss(each.train_seconds, each.step, each.samples, each.total or 0.0)
            for each in run.points
        ]
        taken = time_to_loss(points, loss)
        if taken is None:
            raise FailedError(f"the log has no curve of seed {run.seed} of {side.text}")
        found[run.seed] = taken
    return found


def _seed_times(times: dict[int, TimeToLoss]) -> list[SeedTime]:
    return [
        SeedTime(
            seed=seed,
            seconds=each.seconds,
            steps=each.steps,
            samples=each.samples,
            censored=each.censored,
        )
        for seed, each in times.items()
    ]


@dataclass(frozen=True, kw_only=True)
class EntryFacts:
    """All of an entry that does not follow from its log."""

    created: str
    command: str
    budget: str
    target: float
    change: str
    git: Git
    """The commit that was measured."""
    kernels: str
    against: LadderSide | None
    """What was run beside it."""
    not_compared: str | None
    """Why none was."""


def make_entry(runs: Sequence[LoggedRun], facts: EntryFacts) -> tuple[LadderEntry, bytes]:
    """The entry whose log is ``runs``, one or more, and the content of the log; raises as
    :func:`numbers_of`."""
    first = runs[0]
    side = LadderSide(str(facts.git.commit), facts.kernels)
    numbers = numbers_of(runs, side, facts.against, facts.target)
    log = b"".join(msgspec.json.encode(run) + b"\n" for run in runs)
    digest = hashlib.sha256(log).hexdigest()
    entry = LadderEntry(
        created=facts.created,
        command=facts.command,
        task=first.task,
        pair=first.pair,
        arm=first.arm,
        preset=first.preset,
        budget=facts.budget,
        target=facts.target,
        change=facts.change,
        kernels=facts.kernels,
        against=None if facts.against is None else facts.against.commit,
        against_kernels=DEFAULT_KERNELS if facts.against is None else facts.against.kernels,
        log=f"{first.task}-{first.pair}-{first.arm}-{side.commit[:12]}-{digest[:8]}.jsonl",
        log_sha256=digest,
        environment=first.environment,
        git=facts.git,
        **numbers.fields,
    )
    entry.reasons = _reasons(entry, numbers, facts)
    return entry, log


def _reasons(entry: LadderEntry, numbers: EntryNumbers, facts: EntryFacts) -> dict[str, str]:
    compared = numbers.compared
    found = {}
    if compared is None:
        found = dict.fromkeys(("against", "p"), facts.not_compared or "nothing was run beside it")
    elif compared.reason is not None:
        found["p"] = compared.reason
    for name in ("seconds", "steps", "samples"):
        if getattr(entry, name) is None:
            found[name] = "some seeds give an upper bound, others a lower one"
    return found

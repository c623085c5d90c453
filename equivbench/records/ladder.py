"""How long one commit takes to a pair's target loss: a line of ``ladder.jsonl`` beside the run
records of a machine, the log that it comes from, and which lines count. Imports no torch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import msgspec

from equivbench.records.schema import (
    BudgetRecord,
    ClockRecord,
    DatasetRecord,
    Environment,
    Git,
    MachineShare,
    ModelRecord,
    Number,
    RecipeRecord,
)
from equivbench.request import DEFAULT_KERNELS

LADDER_SCHEMA_VERSION = 1
LADDER_NAME = "ladder.jsonl"
LOGS = "ladder"
"""The folder of the logs, beside the file."""
LEAST_SEEDS = 6
"""With fewer an entry does not count, however small its p-value."""
SIGNIFICANT = 0.01
"""An entry counts where the p-value of being no faster than the one below is smaller."""
Bound = Literal["above", "below"]
Placing = Literal[
    "first", "faster", "not faster", "not compared", "beside", "few seeds", "not reached"
]
"""What an entry is on its ladder: the first; faster than the entry below, or not shown to be; not
compared with it; compared with another commit (``beside``); of too few seeds, or with a run that
did not come down to the target loss."""
COUNTING: tuple[Placing, ...] = ("first", "faster", "not compared")
"""What the next entry is compared with is the last of these."""


class LadderSide(NamedTuple):
    """What an entry times, or is compared with."""

    commit: str
    kernels: str
    """The backend of the arm's operations."""

    @property
    def text(self) -> str:
        """In words, for messages."""
        backend = "" if self.kernels == DEFAULT_KERNELS else f" on {self.kernels}"
        return f"{self.commit[:12]}{backend}"


class SeedTime(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What one seed took to the target loss."""

    seed: int
    seconds: float
    """Of training and data."""
    steps: float
    samples: float
    censored: Bound | None = None
    """``above``: the run ended before it came down to the loss, and the numbers are those of its
    end; ``below``: its first rung was below the loss, and they are those of that."""


class LadderEntry(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One arm of a pair at one commit: what it takes to the target loss, and whether that is less
    than at the entry below, timed again on the same machine."""

    schema_version: int = LADDER_SCHEMA_VERSION
    created: str
    """UTC, ISO 8601."""
    command: str
    task: str
    pair: str
    arm: str
    preset: str
    budget: str
    """Of each run, such as ``60s``."""
    target: float
    """The loss; board metric of annealed weights on the part of the test set that rungs are read
    on."""
    change: str
    """What the commit changed, in one sentence."""
    kernels: str = DEFAULT_KERNELS
    """The backend of the arm's operations."""
    times: list[SeedTime]
    seconds: Number
    """Geometric mean over seeds; a bound where ``censored`` says so."""
    seconds_low: Number
    seconds_high: Number
    """The 95% interval over seeds; null where it is not known."""
    censored: Bound | None
    steps: Number
    samples: Number
    """Geometric means over seeds."""
    against: str | None
    """The commit of the entry below, or of another that was asked for, run again beside this one;
    null where none was."""
    against_kernels: str = DEFAULT_KERNELS
    """The backend that it was run on."""
    against_times: list[SeedTime]
    """What it took, seed by seed."""
    speed_up: Number
    """Its seconds over this one's: geometric mean over seeds."""
    speed_up_low: Number
    speed_up_high: Number
    speed_up_censored: Bound | None
    """``above``: the number is a lower bound, for some of its runs did not come down to the loss,
    or some of this one's were below it at their first rung."""
    p: Number
    """One-sided, paired by seed, of the test that this commit takes no less time."""
    log: str
    """Name of the file in the folder ``ladder`` beside this one that has the curves of all runs."""
    log_sha256: str
    reasons: dict[str, str] = {}
    """Why a value is null, by its name."""
    environment: Environment
    git: Git
    """The commit that was measured."""

    @property
    def ladder(self) -> tuple[object, ...]:
        """What the entries of one ladder share."""
        where = self.environment.machine_key
        return (self.task, self.pair, self.arm, self.preset, where, self.target)

    @property
    def identity(self) -> tuple[str, ...]:
        """The arm, the commit, the backend, and where it was timed."""
        names = (self.task, self.pair, self.arm, self.preset)
        return (*names, self.environment.machine_key, *self.side)

    @property
    def side(self) -> LadderSide:
        """What was measured."""
        return LadderSide(str(self.git.commit), self.kernels)

    @property
    def against_side(self) -> LadderSide | None:
        """What was run beside it."""
        return None if self.against is None else LadderSide(self.against, self.against_kernels)


class LoggedPoint(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The annealed result of one rung."""

    budget: float
    step: int
    samples: int
    train_seconds: float
    total: Number
    """Board metric on the part of the test set that rungs are read on."""


class LoggedRun(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A line of the log: a run of one seed and commit, as its record had it."""

    run_id: str
    created: str
    status: str
    command: str
    task: str
    pair: str
    arm: str
    preset: str
    variant: dict[str, str]
    seed: int
    dataset: DatasetRecord
    model: ModelRecord
    recipe: RecipeRecord
    budget: BudgetRecord
    clock: ClockRecord
    machine_share: MachineShare | None
    points: list[LoggedPoint]
    final: Number
    """Board metric of the whole budget, on the whole test set."""
    environment: Environment
    git: Git


@dataclass(frozen=True)
class PlacedEntry:
    """An entry and what it is on its ladder."""

    entry: LadderEntry
    placing: Placing

    @property
    def counts(self) -> bool:
        """Whether later entries are compared with it."""
        return self.placing in COUNTING


def placed(entries: Iterable[LadderEntry]) -> list[list[PlacedEntry]]:
    """The ladders that ``entries`` make, each in order of time."""
    ladders: dict[tuple[object, ...], list[PlacedEntry]] = defaultdict(list)
    for entry in sorted(entries, key=lambda each: each.created):
        own = ladders[entry.ladder]
        own.append(PlacedEntry(entry, _placing(entry, top_of(own))))
    return [ladders[key] for key in sorted(ladders, key=repr)]


def top_of(ladder: Iterable[PlacedEntry]) -> LadderEntry | None:
    """The last entry of ``ladder`` that counts: the one that the next is compared with."""
    counting = [each.entry for each in ladder if each.counts]
    return counting[-1] if counting else None


def _placing(entry: LadderEntry, below: LadderEntry | None) -> Placing:
    if len(entry.times) < LEAST_SEEDS:
        return "few seeds"
    if any(each.censored == "above" for each in entry.times):
        return "not reached"
    if below is None:
        return "first"
    if entry.against is None:
        return "not compared"
    if entry.against_side != below.side:
        return "beside"
    return "faster" if entry.p is not None and entry.p < SIGNIFICANT else "not faster"

"""What several records say of one another: one run that is there twice, a contest that two seeds
claim, one test set on which the same predictor does differently. Each record is reduced to a
digest, so that thousands of them can be compared."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from equivbench.errors import FailedError, IncomparableError
from equivbench.records.curves import curve
from equivbench.records.declared import SAME_BASELINE
from equivbench.records.requested import CONTEST_NAME
from equivbench.records.schema import RunRecord


@dataclass
class Report:
    """What was found in one file: its problems (it is refused) and remarks (it deserves a look)."""

    path: str
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    incomparable: bool = False
    """Whether another version of the rules is among the problems."""

    @property
    def valid(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    @property
    def refusal(self) -> str:
        """The first problem, as a sentence that names the file."""
        reason = self.problems[0]
        return reason if self.path in reason else f"{self.path}: {reason}"

    @property
    def exit_codes(self) -> list[int]:
        """The exit codes that the problems ask for."""
        refused = len(self.problems) > self.incomparable
        return [FailedError.exit_code] * refused + [IncomparableError.exit_code] * self.incomparable


class RecordDigest(msgspec.Struct, frozen=True, array_like=True):
    """What of one record the others are compared with, wherever it lies."""

    created: str
    run: bytes
    """Machine, task, pair, arm and run id."""
    curve: bytes | None
    """Task, data and every loss; None where there are too few to tell runs apart."""
    times: bytes
    """When these losses were measured."""
    of: tuple[int, str]
    """Seed and arm."""
    contest: str | None
    """None where the record names none, or by no name that a contest has."""
    seat: bytes
    """All that the arms of one contest share but the arm and its options."""
    turn: bytes
    """All that tells the runs of one contest apart."""
    unit: str | None
    work: bytes
    """All that the runs of one unit share."""
    test_set: bytes | None
    """Data, samples, rotations and training split; None for a run without a result."""
    baselines: dict[str, float]


@dataclass(frozen=True, slots=True)
class Filed:
    """The digest of a record, and the report on its file, where what is found goes."""

    digest: RecordDigest
    report: Report
    rank: int = 0
    """Of two, that of the lower rank comes first, then what was created first, then what lies first
    in the folder."""

    @property
    def order(self) -> tuple[int, str, tuple[str, ...]]:
        """What they are sorted by."""
        place = os.path.splitext(self.report.path)[0].split(os.sep)
        return self.rank, self.digest.created, tuple(place)


def digest_of(record: RunRecord) -> RecordDigest:
    """The digest of ``record``."""
    where = record.environment.machine_key
    # A seed decides the initial weights and the order of the samples: with two of them no two
    # losses agree.
    points = [*curve(record), *curve(record, "raw")]
    losses = [point.test.total for point in points]
    told_apart = len(losses) >= 2 and None not in losses
    final, data = record.final, record.dataset
    pair = (record.task, record.pair)
    return RecordDigest(
        created=record.created,
        run=_hash(where, *pair, record.arm, record.run_id),
        curve=_hash(record.task, data.sha256, losses) if told_apart else None,
        times=_hash([point.train_seconds for point in points]),
        of=(record.seed, record.arm),
        contest=record.contest if CONTEST_NAME.fullmatch(record.contest or "") else None,
        seat=_hash(where, *pair, record.seed, record.preset),
        unit=record.unit,
        work=_hash(
            *(*pair, record.seed, record.preset, data.sha256),
            # An extension belongs to the contest that it prolongs.
            *(record.budget.kind, record.budget.extends or record.budget.limit),
        ),
        turn=_hash(where, *pair, record.seed, record.arm, record.variant, record.budget.limit),
        test_set=None
        if final is None
        else _hash(
            *(record.task, data.name, data.sha256, data.sizes),
            # Noise is drawn for as many samples as are evaluated at once, more on a GPU.
            *(final.group, final.samples, final.rotations, record.environment.device == "cpu"),
        ),
        baselines=record.baselines,
    )


def compare(filed: Iterable[Filed]) -> None:
    """Put into the reports what contradicts an earlier record: one run twice, its curve as another
    seed's or arm's, a second run of one arm in its contest, other predictors on its test set."""
    runs: dict[bytes, Filed] = {}
    curves: dict[bytes, Filed] = {}
    seats: dict[str, Filed] = {}
    turns: dict[tuple[str, bytes], Filed] = {}
    sets: dict[bytes, Filed] = {}
    units: dict[str, Filed] = {}
    for one in sorted(filed, key=lambda each: each.order):
        say, mine = one.report.problems.append, one.digest
        first = runs.setdefault(mine.run, one)
        if first is not one:
            say(f"it is the same run as {first.report.path}")
            continue
        if mine.curve is not None:
            other = curves.setdefault(mine.curve, one)
            its = other.digest
            if other is not one and (mine.of != its.of or mine.times == its.times):
                say(
                    f"its losses are those of {other.report.path}, number for number: "
                    "one run cannot count twice"
                )
        if mine.contest is not None:
            other = seats.setdefault(mine.contest, one)
            if other.digest.seat != mine.seat:
                say(
                    f"its contest {mine.contest} is that of {other.report.path}, which has another "
                    "machine, pair, preset or seed"
                )
            other = turns.setdefault((mine.contest, mine.turn), one)
            if other is not one:
                say(
                    f"its contest {mine.contest} has a run of this arm and budget already, "
                    f"{other.report.path}"
                )
        if mine.unit is not None:
            other = units.setdefault(mine.unit, one)
            if other.digest.work != mine.work:
                say(
                    f"its unit {mine.unit} is that of {other.report.path}, which has another pair, "
                    "preset, seed, budget or data"
                )
        if mine.test_set is not None:
            other = sets.setdefault(mine.test_set, one)
            for name in mine.baselines.keys() & other.digest.baselines.keys():
                found, known = mine.baselines[name], other.digest.baselines[name]
                if not math.isclose(found, known, rel_tol=SAME_BASELINE):
                    say(
                        f"baselines.{name} is {found:.9g}, on the same test set it is {known:.9g} "
                        f"in {other.report.path}"
                    )


def _hash(*parts: Any) -> bytes:
    return hashlib.blake2b(msgspec.json.encode(parts, order="sorted"), digest_size=16).digest()

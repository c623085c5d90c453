"""All that a results folder has to show, made once, as data: boards, curves, gaps, frontiers,
kernels, each with its provenance."""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from equivbench.errors import FailedError
from equivbench.gap.efficiency import PairGap, measure_matched
from equivbench.gap.frontier import PairFrontier
from equivbench.gap.frontier import frontiers as frontiers_of
from equivbench.gap.intervals import Quantity, student
from equivbench.gap.ladder_file import LADDER_FILE
from equivbench.gap.pairing import Pairing, pair_up
from equivbench.gap.remembered import gaps_of
from equivbench.records.curves import ResultWeights, common_curves
from equivbench.records.files import read_bounded
from equivbench.records.ladder import LadderEntry
from equivbench.records.line_files import (
    KERNEL_FILE,
    PRETRAINED_FILE,
    KernelSamples,
    L,
    LineFile,
)
from equivbench.records.pretrained import PretrainedMeasurement
from equivbench.records.schema import RunRecord
from equivbench.records.store import InvalidRecordWarning
from equivbench.records.submission import admit, review
from equivbench.report.board import (
    Board,
    BoardSetting,
    Row,
    boards_of,
    finished_runs,
    rank_runs,
)
from equivbench.report.kernel_axis import ArmSteps, arm_steps
from equivbench.report.provenance import Provenance, provenance
from equivbench.report.race import Race, races_of
from equivbench.report.study_tables import study_tables
from equivbench.report.table import Table

MOST_CURVES = 200
"""Rows with curves on one page: those of more make it larger than a page may be."""


@dataclass(frozen=True)
class CurvePoint:
    """The same rung, or the same point of the trace, of every finished seed.

    Coordinates and loss are geometric means: points of one power law average to a point of it,
    though the seeds do not make quite the same steps in the same time.
    """

    seconds: float
    """Seconds of training and data behind the evaluated weights."""
    samples: float
    steps: float
    total: Quantity
    """The board metric, with its 95% Student interval over seeds on the logarithm; open with one
    seed."""
    share: Quantity
    """Mean over seeds of the equivariance error as a share of the total; unknown where a seed has
    none."""


@dataclass(frozen=True)
class Curve:
    """The annealed results of the row ``row`` of the board of ``setting`` by budget; no points
    where no seed finished."""

    setting: BoardSetting
    row: Row
    points: tuple[CurvePoint, ...]


@dataclass(frozen=True)
class PublishedGap:
    """A gap (per pair, setting and kernel backend) with the runs of both arms behind it."""

    gap: PairGap
    unit: str
    """Of the losses; empty where the task is not known."""
    provenance: Provenance


@dataclass(frozen=True)
class Publication:
    """What a page about results shows. Rows of ``boards`` carry their own provenance, as do kernel
    samples."""

    boards: tuple[Board, ...]
    curves: tuple[Curve, ...]
    """One a row of ``boards``, in the same order; none of more than :data:`MOST_CURVES` rows."""
    gaps: tuple[PublishedGap, ...]
    """Leads are corrected over all of them (Holm)."""
    left_out: tuple[str, ...]
    """Why settings of which only one arm is there, or no common seed, have no gap: a sentence
    each."""
    kernels: tuple[KernelSamples, ...]
    """By machine, case, mode and backend. ``min(rounds)`` are the seconds; ``operations`` over
    these against ``operations / bytes_fused`` is the place on the roofline, whose slopes and top
    are the rates of ``roofline.bounds``."""
    pretrained: tuple[PretrainedMeasurement, ...] = ()
    """As they lie in their files, a file a machine."""
    ladder: tuple[LadderEntry, ...] = ()
    """Likewise."""
    frontiers: tuple[PairFrontier, ...] = ()
    """In the order of their pairs and machines; none of more than :data:`MOST_CURVES` rows."""
    races: tuple[Race, ...] = ()
    """Of settings with more than two arms; none of more than :data:`MOST_CURVES` rows."""
    steps: tuple[ArmSteps, ...] = ()
    """The training steps of arms that take their operations from a kernel backend."""
    studied: tuple[Table, ...] = ()
    """What studies have to say of the folder, such as verdicts on claims; nothing of more than
    :data:`MOST_CURVES` rows."""


def publish(
    results: str | Path,
    *,
    units: Mapping[str, str] | None = None,
    invalid: Literal["raise", "warn"] = "raise",
) -> Publication:
    """The publication of the records at or below ``results`` and of the ``kernels.jsonl``,
    ``pretrained.jsonl`` and ``ladder.jsonl`` among them.

    ``units`` gives the board unit of each task. An invalid file raises ``FailedError`` naming it,
    or with ``invalid="warn"`` is left out with a warning; so does a place with nothing to show.
    """
    kernels = load_kernels(Path(results), invalid=invalid)
    pretrained = load_pretrained(Path(results), invalid=invalid)
    ladder = load_ladder(Path(results), invalid=invalid)
    found = admit(results, invalid=invalid, needed=not (kernels or pretrained or ladder))
    pairing = pair_up(found.outlines)
    publication = _publication(
        found.outlines,
        pairing,
        gaps_of(found, pairing),
        found.record,
        kernels,
        pretrained,
        ladder,
        units or {},
    )
    if not found.outlines or not publication.curves:
        return publication
    return replace(publication, studied=tuple(study_tables(Path(results))))


def make_publication(
    records: Sequence[RunRecord],
    kernels: Sequence[KernelSamples] = (),
    *,
    units: Mapping[str, str] | None = None,
    pretrained: Sequence[PretrainedMeasurement] = (),
    ladder: Sequence[LadderEntry] = (),
) -> Publication:
    """The publication of ``records``, ``kernels``, ``pretrained`` and ``ladder``; raises
    ``FailedError`` where there are none, and as :func:`build_boards` does."""
    pairing = pair_up(records)
    gaps = [each.gap for each in measure_matched(pairing.matched)]
    return _publication(
        records, pairing, gaps, lambda record: record, kernels, pretrained, ladder, units or {}
    )


def _publication(
    records: Sequence[RunRecord],
    pairing: Pairing,
    gaps: Sequence[PairGap],
    whole: Callable[[RunRecord], RunRecord],
    kernels: Sequence[KernelSamples],
    pretrained: Sequence[PretrainedMeasurement],
    ladder: Sequence[LadderEntry],
    units: Mapping[str, str],
) -> Publication:
    """That of ``records``, which may be outlines: ``whole`` gives the record of each."""
    beside = (*kernels, *pretrained, *ladder)
    ranked = rank_runs(records) if records or not beside else {}
    drawn = sum(map(len, ranked.values())) <= MOST_CURVES
    return Publication(
        boards=tuple(boards_of(ranked, units)),
        curves=tuple(
            Curve(setting, row, curve_points([whole(run) for run in finished_runs(runs)]))
            for setting, rows in ranked.items()
            for row, runs in rows
            if drawn
        ),
        gaps=tuple(
            PublishedGap(
                gap,
                units.get(gap.task, ""),
                provenance([run.record for run in (*both.equivariant, *both.augmented)]),
            )
            for gap, both in zip(gaps, pairing.matched, strict=True)
        ),
        left_out=tuple(map(str, pairing.problems)),
        kernels=tuple(
            sorted(kernels, key=lambda one: (one.environment.machine_key, *one.key, one.dtype))
        ),
        pretrained=tuple(pretrained),
        ladder=tuple(ladder),
        frontiers=tuple(_frontiers(records, whole)) if drawn else (),
        races=tuple(races_of(ranked, records, units, whole)) if drawn else (),
        steps=tuple(arm_steps(records)),
    )


def _frontiers(
    records: Sequence[RunRecord], whole: Callable[[RunRecord], RunRecord]
) -> list[PairFrontier]:
    """Those of ``records``, a pair and a machine at a time: their curves are most of the bytes."""
    apart: dict[tuple[str, str, str], list[RunRecord]] = defaultdict(list)
    for record in records:
        apart[record.task, record.pair, record.environment.machine_key].append(record)
    return [
        each
        for key in sorted(apart)
        for each in frontiers_of([whole(record) for record in apart[key]]).found
    ]


def load_kernels(
    results: Path, *, invalid: Literal["raise", "warn"] = "raise"
) -> list[KernelSamples]:
    """The samples of every ``kernels.jsonl`` below the folder ``results``, as :func:`load_lines`
    reads them."""
    return load_lines(results, KERNEL_FILE, invalid)


def load_pretrained(
    results: Path, *, invalid: Literal["raise", "warn"] = "raise"
) -> list[PretrainedMeasurement]:
    """The measurements of every ``pretrained.jsonl`` below the folder ``results``, likewise."""
    return load_lines(results, PRETRAINED_FILE, invalid)


def load_ladder(results: Path, *, invalid: Literal["raise", "warn"] = "raise") -> list[LadderEntry]:
    """The entries of every ``ladder.jsonl`` below the folder ``results``, likewise."""
    return load_lines(results, LADDER_FILE, invalid)


def load_lines(results: Path, kind: LineFile[L], invalid: Literal["raise", "warn"]) -> list[L]:
    """The lines of every file of ``kind`` below the folder ``results``, hidden ones left out, or of
    ``results``, if it is such a file.

    A file in which :func:`equivbench.records.submission.review` finds anything wrong raises
    ``FailedError``, or with ``invalid="warn"`` is left out with a warning; a link is not followed.
    """
    samples: list[L] = []
    itself = results.is_file() and results.name == kind.name
    for file in [results] if itself else sorted(results.rglob(kind.name)):
        if any(part.startswith(".") for part in file.relative_to(results).parts):
            continue
        try:
            read_bounded(file, follow=False)
            (report,) = review([file])
            if report.problems:
                raise FailedError(
                    f"{report.path}: {report.problems[0]}; "
                    "`equivbench results validate` says all that is wrong"
                )
            samples += kind.read(file)
        except FailedError as error:
            if invalid == "raise":
                raise
            warnings.warn(f"left out: {error}", InvalidRecordWarning, stacklevel=2)
    return samples


def curve_points(
    finished: Sequence[RunRecord], weights: ResultWeights = "annealed"
) -> tuple[CurvePoint, ...]:
    """The means over the runs ``finished``, evaluation by evaluation, of those that all of them
    have; points without a place on logarithmic axes are left out."""
    points = [
        each
        for each in zip(*common_curves(finished, weights), strict=True)
        if min(min(at.train_seconds, at.samples, at.test.total or 0.0) for at in each) > 0
    ]
    if not points:
        return ()

    def tested(name: str) -> NDArray[np.float64]:
        values = [[getattr(at.test, name) for at in each] for each in points]
        return np.array(values, dtype=np.float64).T  # None becomes NaN

    where = [[np.log([at.train_seconds, at.samples, at.step]) for at in each] for each in points]
    means = np.exp(np.mean(where, axis=1)).tolist()
    loss, share = _over_seeds(tested("total"), geometric=True), _over_seeds(tested("share"))
    return tuple(CurvePoint(*at, *rest) for at, *rest in zip(means, loss, share, strict=True))


def _over_seeds(values: NDArray[np.float64], *, geometric: bool = False) -> list[Quantity]:
    """The mean of each column of ``values`` [seeds, points] with its Student interval; NaN is
    unknown.

    :func:`equivbench.gap.intervals.over_seeds` for many points at once, which is what makes a page
    of a thousand runs quick.
    """
    shown = np.log(values) if geometric else values
    band = student(shown.mean(axis=0), shown)
    ends = np.stack([band.mid, band.low, band.high])
    if not geometric:  # a share: its interval ends where the truth can lie, an open end stays open
        ends = np.where(np.isinf(ends), ends, np.clip(ends, np.minimum(0, band.mid), 1))
    else:
        with np.errstate(over="ignore"):  # seeds that differ wildly leave an end open
            ends = np.where(np.isfinite(ends), np.exp(ends), np.inf)
    return [
        Quantity(*(end if math.isfinite(end) else None for end in point))
        for point in ends.T.tolist()
    ]

"""Gathers the evidence for the claims, part by part: runs that are finished and analyses that are
made are not repeated."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from equivbench.errors import EquivbenchError, FailedError
from equivbench.execution.estimates import PastRuns, records_in
from equivbench.execution.executors import Callback, find_executor
from equivbench.execution.plan import RunPlan, check_writable, make_plan, this_machine
from equivbench.execution.state import finished_record
from equivbench.execution.subcommand import call, path_from_here
from equivbench.execution.sweep import SweepRequest, make_sweep
from equivbench.records.store import read_record
from equivbench.request import RunRequest
from equivbench.studies.claims.parts import (
    DEFAULT,
    FULL,
    AnalysisKind,
    AnalysisWork,
    EvidencePart,
    ReproduceRequest,
    TrainingWork,
    chosen_parts,
)
from equivbench.studies.gradients.record import GRADIENTS
from equivbench.studies.landscape.record import LANDSCAPES
from equivbench.studies.record import RunAnalysis
from equivbench.training.job import Job


@dataclass(frozen=True)
class PlannedPart:
    """A part with the runs it trains or analyses, those that are still to do, and what they are
    expected to take."""

    part: EvidencePart
    plan: RunPlan | None
    """Of the runs that are trained; None for an analysis."""
    jobs: tuple[Job, ...]
    todo: tuple[Job, ...]
    seconds: float | None
    """Of ``todo``; None where nothing says how long."""


@dataclass(frozen=True)
class Reproduction:
    """Every piece of a request, in the order they are gathered."""

    request: ReproduceRequest
    pieces: tuple[PlannedPart, ...]
    device: str
    threads: int

    @property
    def seconds(self) -> float:
        """What is to do takes at least this long; pieces of unknown length are left out."""
        return sum(piece.seconds or 0.0 for piece in self.pieces)

    @property
    def open_ended(self) -> bool:
        """Whether a piece's length is unknown."""
        return any(piece.seconds is None for piece in self.pieces)


@dataclass
class GatherResult:
    """What came of a reproduction: one plain sentence for each piece that is missing."""

    failures: list[str] = field(default_factory=list)
    interrupted: bool = False


def make_reproduction(
    request: ReproduceRequest,
    parts: Sequence[EvidencePart] | None = None,
    now: datetime | None = None,
) -> Reproduction:
    """Expand ``request`` over ``parts`` (default: those of :mod:`equivbench.studies.claims.parts`),
    and see what is there.

    Raises :class:`UsageError` for names and numbers that make no sense, :class:`FailedError` where
    a file of analyses in the results folder cannot be read.
    """
    now = now or datetime.now(UTC)
    chosen = chosen_parts(parts or (FULL if request.full else DEFAULT), request.claims)
    plans = {
        part: _plan(part.work, request, now)
        for part in chosen
        if isinstance(part.work, TrainingWork)
    }
    first = next(iter(plans.values()))
    machine = first.machine or this_machine(first.request)
    made = list(_analyses(Path(request.out)))
    past = PastRuns(first, records_in(request.out))
    declared = [
        plan
        for part, plan in plans.items()
        if isinstance(part.work, TrainingWork) and part.work.as_declared
    ]
    pieces = []
    for part in chosen:
        if isinstance(part.work, TrainingWork):
            plan = plans[part]
            todo = tuple(job for job in plan.jobs if finished_record(job) is None)
            pieces.append(PlannedPart(part, plan, tuple(plan.jobs), todo, past.seconds(plan, todo)))
        else:
            jobs = tuple(_analysed_jobs(part.work, declared))
            todo = tuple(job for job in jobs if not _is_made(part.work.kind, job, made))
            each = _analysis_seconds(part.work, made, past)
            pieces.append(
                PlannedPart(
                    part,
                    None,
                    jobs,
                    todo,
                    0.0 if not todo else None if each is None else each * len(todo),
                )
            )
    return Reproduction(request, tuple(pieces), machine.device, machine.threads)


def gather(
    reproduction: Reproduction, callback: Callback, announce: Callable[[str], None]
) -> GatherResult:
    """Train and analyse what is not there yet, one thing at a time; a piece that fails leaves the
    others alone.

    ``announce`` is told each piece as it begins. Raises :class:`FailedError` before anything starts
    if the results folder cannot be written.
    """
    check_writable(reproduction.request.out)
    outcome = GatherResult()
    for number, piece in enumerate(reproduction.pieces, 1):
        if piece.todo:
            announce(f"{number} of {len(reproduction.pieces)}: {piece.part.title}")
        try:
            if piece.plan is not None:
                _train(piece.plan, callback, outcome)
            else:
                _analyse(piece, reproduction, callback, outcome)
        except KeyboardInterrupt:
            outcome.interrupted = True
        except EquivbenchError as error:
            outcome.failures.append(f"{piece.part.title}: {error}")
        if outcome.interrupted:
            break
    return outcome


def _plan(work: TrainingWork, request: ReproduceRequest, now: datetime) -> RunPlan:
    shared: dict[str, Any] = {
        "pairs": (work.pair,),
        "arms": work.arms,
        "budget": request.budget or work.budget,
        "seeds": request.chosen_seeds[:1] if work.first_seed_only else request.chosen_seeds,
        "preset": request.preset,
        "device": request.device,
        "threads": request.threads,
        "out": request.out,
        # A sweep's points are not analysed.
        "snapshots": work.as_declared,
    }
    plan = (
        make_plan(RunRequest(**shared, resume=True), now)
        if work.axis is None
        else make_sweep(SweepRequest(**shared, over=work.axis, values=work.values), now)
    )
    return find_executor(plan.request.executor).resolve(plan)


def _train(plan: RunPlan, callback: Callback, outcome: GatherResult) -> None:
    # Also where all is finished: that a run diverged is said every time.
    result = find_executor(plan.request.executor).run(plan, callback)
    outcome.failures += [*result.failures, *result.diverged]
    outcome.interrupted = result.interrupted


def _analysed_jobs(work: AnalysisWork, plans: Iterable[RunPlan]) -> Iterable[Job]:
    """The runs that ``work`` is about, by seed."""
    jobs = [
        job for plan in plans for job in plan.jobs if job.pair == work.pair and job.arm == work.arm
    ]
    return jobs[:1] if work.first_seed_only else jobs


def _analyse(
    piece: PlannedPart, reproduction: Reproduction, callback: Callback, outcome: GatherResult
) -> None:
    """Each run by the ordinary command in a process of its own, which gives its memory back."""
    assert isinstance(piece.part.work, AnalysisWork)
    for job in piece.todo:
        path = finished_record(job)
        if path is None:
            outcome.failures.append(
                f"{piece.part.title}: {job.title} has no finished run to analyse"
            )
            continue
        if read_record(path).status == "diverged":
            continue  # said with the runs; it has no weights to analyse
        words = [
            "analyze",
            piece.part.work.kind,
            path_from_here(path),
            "--device",
            job.device,
            "--out",
            reproduction.request.out,
        ]
        try:
            call(words, callback)
        except FailedError as error:
            outcome.failures.append(f"{piece.part.title}: {error}")


def _analysis_seconds(
    work: AnalysisWork, made: Iterable[tuple[AnalysisKind, RunAnalysis]], past: PastRuns
) -> float | None:
    """Wall seconds of one analysis, from those made on this machine, else from the declaration of
    the pair; None where neither says."""
    own = (work.kind, work.pair, past.machine_key, past.preset)
    taken = [
        each.seconds
        for kind, each in made
        if (kind, f"{each.task}/{each.pair}", each.environment.machine_key, each.preset) == own
    ]
    return median(taken) if taken else past.declared(work.pair, work.kind)


def _analyses(out: Path) -> Iterable[tuple[AnalysisKind, RunAnalysis]]:
    """Every analysis below ``out`` of what a reproduction asks for: averaged weights, the test
    split, all parameters."""
    for path in sorted(out.glob(f"*/{GRADIENTS.name}")):
        yield from (("gradients", each) for each in GRADIENTS.read(path) if _is_usual(each))
    for path in sorted(out.glob(f"*/{LANDSCAPES.name}")):
        yield from (
            ("landscape", each)
            for each in LANDSCAPES.read(path)
            if _is_usual(each) and each.layers == "*"
        )


def _is_usual(analysis: RunAnalysis) -> bool:
    return analysis.weights == "ema" and analysis.split == "test"


def _is_made(
    kind: AnalysisKind, job: Job, made: Iterable[tuple[AnalysisKind, RunAnalysis]]
) -> bool:
    """Whether this very run was analysed; a run that was trained anew has another id."""
    own = (kind, job.pair, job.arm, job.run_id)
    return any(
        (what, f"{each.task}/{each.pair}", each.arm, each.run_id) == own for what, each in made
    )

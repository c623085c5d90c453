"""Gathers the evidence for the claims, part by part: runs that are finished and analyses that are
made are not repeated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from equivbench.axes import SweepRequest
from equivbench.errors import EquivbenchError, FailedError
from equivbench.execution.estimates import PastRuns, records_in, wall_seconds
from equivbench.execution.executors import Callback, find_executor
from equivbench.execution.plan import RunPlan, check_writable, make_plan, this_machine
from equivbench.execution.state import finished_record
from equivbench.execution.subcommand import call, path_from_here
from equivbench.execution.sweep import make_sweep
from equivbench.records.line_files import LineFile
from equivbench.records.store import read_record
from equivbench.request import RunRequest
from equivbench.studies.claims.analyses import weights_of
from equivbench.studies.claims.parts import (
    DEFAULT,
    FULL,
    AnalysisKind,
    EvidencePart,
    ReproduceRequest,
    chosen_parts,
)
from equivbench.studies.gradients.record import GRADIENTS
from equivbench.studies.landscape.record import LANDSCAPES
from equivbench.studies.record import RunAnalysis
from equivbench.training.job import Job

ANALYSES: Mapping[AnalysisKind, LineFile[Any]] = {"gradients": GRADIENTS, "landscape": LANDSCAPES}


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
    plans = {part: _plan(part, request, now) for part in chosen if part.kind == "runs"}
    first = next(iter(plans.values()))
    machine = first.machine or this_machine(first.request)
    records = records_in(request.out)
    past = PastRuns(first, records)
    runs = {(f"{each.task}/{each.pair}", each.arm, each.run_id): each for each in records}
    made = [
        (kind, weights_of(each, runs[_run(each)]), each)
        for kind, file in ANALYSES.items()
        for path in sorted(Path(request.out).glob(f"*/{file.name}"))
        for each in file.read(path)
        if _is_usual(each) and _run(each) in runs
    ]
    pieces = []
    for part in chosen:
        if part in plans:
            plan = plans[part]
            jobs = tuple(plan.jobs)
            todo = tuple(job for job in jobs if finished_record(job) is None)
            seconds = wall_seconds(past.of_contests(plan, todo), len(plan.machines))
            pieces.append(PlannedPart(part, plan, jobs, todo, seconds))
            continue
        jobs = tuple(
            job
            for base, plan in plans.items()
            for job in plan.jobs
            if base.as_declared and job.pair == part.pair and job.arm in part.arms
        )
        jobs = jobs[:1] if part.first_seed_only else jobs
        alike = [
            each
            for kind, weights, each in made
            if (kind, weights, _run(each)[0]) == (part.kind, part.weights, part.pair)
        ]
        # A run that was trained anew has another id.
        done = {(each.arm, each.run_id) for each in alike}
        todo = tuple(job for job in jobs if (job.arm, job.run_id) not in done)
        # As long as those made on this machine, else as the pair declares.
        here = (past.machine_key, past.preset)
        taken = [
            each.seconds for each in alike if (each.environment.machine_key, each.preset) == here
        ]
        each = median(taken) if taken else past.declared(part.pair, part.kind)
        seconds = 0.0 if not todo else None if each is None else each * len(todo)
        pieces.append(PlannedPart(part, None, jobs, todo, seconds))
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
                # Also where all is finished: that a run diverged is said every time.
                result = find_executor(piece.plan.request.executor).run(piece.plan, callback)
                outcome.failures += [*result.failures, *result.diverged]
                outcome.interrupted = result.interrupted
            else:
                _analyse(piece, reproduction.request.out, callback, outcome.failures)
        except KeyboardInterrupt:
            outcome.interrupted = True
        except EquivbenchError as error:
            outcome.failures.append(f"{piece.part.title}: {error}")
        if outcome.interrupted:
            break
    return outcome


def _plan(part: EvidencePart, request: ReproduceRequest, now: datetime) -> RunPlan:
    shared: dict[str, Any] = {
        "pairs": (part.pair,),
        "arms": part.arms,
        "budget": request.budget or part.budget,
        "seeds": request.chosen_seeds[:1] if part.first_seed_only else request.chosen_seeds,
        "preset": request.preset,
        "device": request.device,
        "devices": request.devices,
        "threads": request.threads,
        "out": request.out,
        # A sweep's points are not analysed.
        "snapshots": part.as_declared,
    }
    plan = (
        make_plan(RunRequest(**shared, resume=True), now)
        if part.axis is None
        else make_sweep(SweepRequest(**shared, over=part.axis, values=part.values), now)
    )
    return find_executor(plan.request.executor).resolve(plan)


def _analyse(piece: PlannedPart, out: str, callback: Callback, failures: list[str]) -> None:
    """Each run by the ordinary command in a process of its own, which gives its memory back."""
    for job in piece.todo:
        path = finished_record(job)
        if path is None:
            failures.append(f"{piece.part.title}: {job.title} has no finished run to analyse")
            continue
        if read_record(path).status == "diverged":
            continue  # said with the runs; it has no weights to analyse
        how = ["--device", job.device, "--out", out]
        try:
            which = _which(piece.part, path)
            call(["analyze", piece.part.kind, path_from_here(path), *which, *how], callback)
        except FailedError as error:
            failures.append(f"{piece.part.title}: {error}")


def _which(part: EvidencePart, record: Path) -> list[str]:
    """The options that name the weights which ``part`` is about, of the run with this ``record``:
    those of a landscape that are not annealed are its last snapshot's."""
    averaged = ["--weights", "ema"] if part.weights == "ema" else []
    if part.kind == "gradients" or part.weights == "annealed":
        return averaged
    return ["--step", str(last_snapshot(record)), *averaged]


def last_snapshot(record: Path) -> int:
    """The step of the last snapshot of the run with this ``record``; raises ``FailedError`` where
    it kept none."""
    # They import torch, which nothing else here needs.
    from equivbench.execution.loading import find_snapshots
    from equivbench.training.checkpoint import step_of

    return step_of(find_snapshots(str(record)).snapshots[-1])


def _is_usual(analysis: RunAnalysis) -> bool:
    """Whether it is what a reproduction asks for: the test split, all parameters."""
    return analysis.split == "test" and getattr(analysis, "layers", "*") == "*"


def _run(analysis: RunAnalysis) -> tuple[str, str, str]:
    """Pair, arm and id of the run that was analysed."""
    return f"{analysis.task}/{analysis.pair}", analysis.arm, analysis.run_id

"""The audit of a record: its weights are put into the network that its pair declares and measured
again on the test set; on request its seed is trained again."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import msgspec
import torch

from equivbench.axes import SweepRequest
from equivbench.budget import Budget
from equivbench.counted import counted
from equivbench.environment import computed_in, usable_cores
from equivbench.errors import EquivbenchError, FailedError, InterruptedRunError
from equivbench.execution.executors import Callback, find_executor
from equivbench.execution.plan import make_plan, resolve_device, with_threads
from equivbench.execution.sweep import make_sweep
from equivbench.records.declared import LABELS, relabelled
from equivbench.records.files import shown
from equivbench.records.requested import request_of
from equivbench.records.schema import RunRecord, Test
from equivbench.records.weight_files import find_weights
from equivbench.registry import PAIRS
from equivbench.request import DEFAULT_KERNELS
from equivbench.tasks.splits import with_fraction
from equivbench.training.arm import Arm, build_arm, resolve_arm, use_precision
from equivbench.training.clock import clock_of
from equivbench.training.job import Job
from equivbench.training.weights import load_weights

AuditVerdict = Literal["agrees", "differs", "not audited"]
TOLERANCE: Mapping[str, float] = {"float32": 1e-4, "tf32": 1e-2, "bf16": 5e-2}
"""Relative, of a loss: float32 sums in another order are off by some 1e-6 on another machine, TF32
and bfloat16 round each product to 2^-11 and 2^-9."""
SAME_TRAINING = 1e-6
"""Relative, of a loss after the same steps on the same machine with the same torch and the same
code, where training repeats itself to the bit."""
FIRST_STEPS, ELSEWHERE = 10, 0.05
"""Elsewhere rounding differs and grows as a network learns: the loss is compared after that many
steps at most, and may be off by this, relative."""
SAME_RESULT = 0.25
"""Of the logarithm of a final loss: that of a run whose cooldown is counted in steps. Seeds differ
by 0.12 at most."""


@dataclass
class Audit:
    """What came of one record."""

    path: str
    verdict: AuditVerdict
    differences: list[str] = field(default_factory=list)
    """A sentence each; for a record that was not audited, why."""
    recorded: float | None = None
    """The total of ``final``, and what was ``measured`` of the weights."""
    measured: float | None = None
    share: float | None = None
    parameters: int | None = None
    weights: str | None = None
    """Where the weights lay: ``beside`` the record, or in the ``cache``."""
    rerun: list[str] = field(default_factory=list)
    """What the seed that was trained again gave."""


def audit(record: RunRecord, path: Path, device: str = "auto") -> Audit:
    """Measure the weights of ``record``, which is at ``path``, again and compare.

    Weights are those beside the record, else those of the cache. A record without weights, and one
    whose data are not here, is not audited.
    """
    found = Audit(shown(path), "not audited")
    if record.final is None:
        found.differences.append(f"a {record.status} run has no result to measure")
        return found
    weights = find_weights(record, path)
    if weights is None:
        found.differences.append(
            "its weights are neither beside it nor in this cache; ask for a run with --keep-weights"
        )
        return found
    found.weights = "beside" if weights.parent == path.parent else "cache"
    try:
        arm = _arm_of(record, resolve_device(device))
    except EquivbenchError as error:
        # No data, no such pair or no such kernels here: that says nothing of the record.
        found.differences.append(str(error))
        return found
    try:
        sha256 = load_weights(arm.model, weights)
    except FailedError as error:
        found.verdict, found.differences = "differs", [str(error)]
        return found
    if record.weights_sha256 not in (None, sha256):
        found.differences.append(
            f"the file of weights has SHA-256 {sha256[:12]}..., the record names "
            f"{str(record.weights_sha256)[:12]}..."
        )
    if arm.card.sha256 != record.dataset.sha256:
        found.differences.append(
            f"the data here have SHA-256 {arm.card.sha256[:12]}..., not the record's"
        )
        return found
    try:
        found.differences += _compared(record, arm, found)
    except EquivbenchError as error:
        # A network that does not run here was not looked at to its end.
        found.differences.append(f"it cannot be measured here: {error}")
        return found
    found.verdict = "differs" if found.differences else "agrees"
    return found


def _arm_of(record: RunRecord, device: str) -> Arm:
    """The arm of ``record`` as its pair declares it, with its test set, on ``device``."""
    job = job_of(record, device)
    declared = resolve_arm(job)
    use_precision(computed_in(declared.recipe.precision, torch.device(device).type))
    clock = clock_of(torch.device(device))
    with clock.running(), with_threads(job.threads):
        data = with_fraction(declared.dataset().load(), job.fraction)
        return build_arm(declared, job, data, clock)


def job_of(record: RunRecord, device: str) -> Job:
    """The job that ``record`` is of, on ``device``; raises ``UsageError`` where nothing that is
    registered is it."""
    pair = PAIRS.get(f"{record.task}/{record.pair}")
    labels = {name: record.variant[name] for name in LABELS if name in record.variant}
    job = Job(
        request=request_of(record),
        pair=pair.key,
        arm=record.arm,
        seed=record.seed,
        budget="1steps",
        run_id=record.run_id,
        device=device,
        threads=_threads(record),
        kernels=None if record.model.kernels == DEFAULT_KERNELS else record.model.kernels,
        variant={name: value for name, value in record.variant.items() if name not in labels},
        labels=labels,
    )
    return msgspec.structs.replace(job, **relabelled(record, pair.arm(record.arm)))


def _threads(record: RunRecord) -> int:
    """Those of the run, as far as this machine has them: a stranger's number may be more than it
    survives."""
    return max(1, min(record.environment.threads, usable_cores()))


def _compared(record: RunRecord, arm: Arm, found: Audit) -> Iterator[str]:
    """A sentence for everything that the weights do not give again."""
    evaluators = {"final": arm.evaluator, "final_on_part": arm.part_evaluator}
    evaluators |= {
        f"out_of_distribution.{name}": each for name, each in arm.further_evaluators().items()
    }
    tests = {"final": record.final, "final_on_part": record.final_on_part}
    tests |= {f"out_of_distribution.{name}": t for name, t in record.out_of_distribution.items()}
    parameters = sum(parameter.numel() for parameter in arm.model.parameters())
    found.parameters = parameters
    if parameters != record.model.parameters:
        yield f"the network has {parameters} parameters, the record {record.model.parameters}"
    for where, test in tests.items():
        if test is None or where not in evaluators:
            continue
        with with_threads(_threads(record)):
            measured = evaluators[where].evaluate(arm.module, floor=False).to_record()
        if where == "final" and record.final is not None:
            found.recorded = record.final.total
            found.measured, found.share = measured.total, measured.share
        yield from _unlike(where, test, measured, TOLERANCE.get(record.recipe.precision, 5e-2))


def _unlike(where: str, claimed: Test, measured: Test, tolerance: float) -> Iterator[str]:
    counts = ((test.samples, test.rotations) for test in (claimed, measured))
    if len(set(counts)) > 1:
        yield f"{where}: the test set here has other samples or rotations"
        return
    scale = abs(measured.total or 0.0)
    for name in ("total", "twirled", "equivariance"):
        mine, its = getattr(claimed, name), getattr(measured, name)
        if mine is None or its is None or abs(mine - its) > tolerance * scale:
            yield f"{where}: {name} is {_written(mine)}, its weights give {_written(its)}"
    for name in ("objective", "over_best_untrained"):
        mine, its = getattr(claimed, name), getattr(measured, name)
        if mine is None or its is None or not math.isclose(mine, its, rel_tol=10 * tolerance):
            yield f"{where}: {name} is {_written(mine)}, its weights give {_written(its)}"
    for name, mine in claimed.errors.items():
        its = measured.errors.get(name)
        if mine is None or its is None or not math.isclose(mine, its, rel_tol=10 * tolerance):
            yield f"{where}: errors.{name} is {_written(mine)}, its weights give {_written(its)}"


def _written(value: float | None) -> str:
    return "null" if value is None else f"{value:.9g}"


def rerun(record: RunRecord, found: Audit, callback: Callback, device: str = "auto") -> None:
    """Train the arm and seed of ``record`` again, as many steps as it made, and compare what does
    not depend on the clock: the trace, step by step, and the final loss. What is found goes into
    ``found``.
    """
    try:
        again = _trained_again(record, callback, device)
    except InterruptedRunError:
        raise
    except EquivbenchError as error:
        found.verdict = "not audited"
        found.differences.append(f"it cannot be trained again here: {error}")
        return
    exact = _made_by(record) == _made_by(again)
    points = {point.step: point for point in again.trace}
    shared = [(point, points[point.step]) for point in record.trace if point.step in points]
    judged = shared if exact else [pair for pair in shared if pair[0].step <= FIRST_STEPS]
    worst = max((_relative(mine.test, its.test) for mine, its in judged), default=math.inf)
    most = SAME_TRAINING if exact else ELSEWHERE
    where = "this machine" if exact else "another machine, or with other code"
    found.rerun.append(
        f"trained again on {where}: {counted(len(judged), 'point')} of the trace to step "
        f"{judged[-1][0].step if judged else 0}, off by {worst:.2g} at most"
    )
    if not worst <= most:
        found.verdict = "differs"
        found.differences.append(
            f"trained again, its losses after the same steps are off by {worst:.2g}, "
            f"more than {most:g}"
        )
    elif found.verdict == "not audited":
        found.verdict = "agrees"
    if again.final is None or record.final is None or not again.final.total:
        return
    ratio = (record.final.total or 0.0) / again.final.total
    found.rerun.append(
        f"final loss {record.final.total:.6g}, trained again {again.final.total:.6g}"
    )
    if not (ratio > 0 and abs(math.log(ratio)) <= SAME_RESULT):
        found.verdict = "differs"
        found.differences.append(f"its final loss is {ratio:.3g} times that of the run made again")


def _made_by(record: RunRecord) -> tuple[object, ...]:
    """Machine and code, which decide the last bits of a training."""
    where, git = record.environment, record.git
    return where.machine_key, where.packages.get("torch"), git.tree, git.dirty


def _relative(mine: Test, its: Test) -> float:
    if not mine.total or not its.total:
        return math.inf
    return abs(mine.total / its.total - 1)


def _trained_again(record: RunRecord, callback: Callback, device: str) -> RunRecord:
    request = request_of(record)
    # The trunk is the same whatever the unit, and whether it was extended; a budget in seconds is
    # counted in the steps it made.
    budget = Budget(record.budget.kind, record.budget.limit)
    if budget.kind == "seconds":
        budget = Budget("steps", record.steps)
    with tempfile.TemporaryDirectory() as folder:
        request = replace(
            request,
            pairs=(f"{record.task}/{record.pair}",),
            arms=(record.arm,),
            seeds=(record.seed,),
            n_seeds=None,
            budget=budget.text,
            rungs=0,
            extend=None,
            device=device,
            threads=record.environment.threads,
            out=folder,
        )
        if isinstance(request, SweepRequest):
            plan = make_sweep(replace(request, values=(record.variant.get("value", ""),)))
        else:
            plan = make_plan(request)
        executor = find_executor("local")
        plan = executor.resolve(plan)
        try:
            result = executor.run(plan, callback)
        finally:
            # Nobody can resume what was written into a folder that is gone.
            for job in plan.jobs:
                shutil.rmtree(job.state_dir, ignore_errors=True)
    if result.interrupted:
        raise InterruptedRunError("the audit was interrupted; start it again")
    if result.failures or not result.kept:
        raise FailedError("; ".join(result.failures) or "it left no record")
    return result.kept[0].record

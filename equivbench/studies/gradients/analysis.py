"""The gradients of both parts of the error along a run that kept snapshots, as what an analysis
leaves on disk."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from typing import Literal

from equivbench.environment import environment
from equivbench.errors import UsageError, unknown_name
from equivbench.execution.machine import resolve_device, with_threads
from equivbench.execution.runs import find_snapshots
from equivbench.gap.intervals import Quantity
from equivbench.records.schema import TracePoint
from equivbench.studies.analysed import analysed_run, split_of
from equivbench.studies.fixed_loss import FixedLoss
from equivbench.studies.gradients.deviation import deviation
from equivbench.studies.gradients.measuring import PartGradients, part_gradients
from equivbench.studies.gradients.record import GradientPoint, Gradients
from equivbench.studies.gradients.trends import correlations
from equivbench.studies.record import Estimate
from equivbench.training.arm import ResolvedArm, resolve_arm
from equivbench.training.assembly import load_model
from equivbench.training.checkpoint import read_checkpoint

Weights = Literal["ema", "model"]
WEIGHTS: tuple[Weights, ...] = ("ema", "model")
CHUNKS, ROTATIONS = 8, 2
"""Defaults: few rotations and many samples, since two draws already make both parts unbiased."""
SAMPLES = 128
"""Most samples by default. A pair whose evaluations judge few, because each costs much, is given
half of those."""


def analyse_gradients(
    run: str,
    *,
    weights: str = "ema",
    split: str = "test",
    samples: int | None = None,
    chunks: int = CHUNKS,
    rotations: int = ROTATIONS,
    seed: int = 0,
    device: str = "auto",
) -> Gradients:
    """Gradients of the twirled and the equivariance error at every snapshot of ``run``.

    Parameters
    ----------
    run
        A record, run id, checkpoint or snapshot, as
        :func:`equivbench.execution.runs.find_snapshots` takes it.
    weights
        ``ema`` (averaged, what the board judges) or ``model`` (raw, what the optimiser moves).
    split, samples, chunks, rotations, seed
        What the error is of: ``samples`` (default: see :data:`SAMPLES`) dealt into ``chunks`` that
        are independent of each other, under ``rotations`` Haar draws each. The same at every
        snapshot.
    device
        As ``run`` takes it. Threads are the run's, so that the analysis lies beside the record of
        the run.

    Raises
    ------
    UsageError
        For names that do not exist and numbers that do not fit.
    FailedError
        For a run without snapshots, or files that cannot be read.
    """
    kind: Weights = "model" if weights == "model" else "ema"
    if weights not in WEIGHTS:
        raise unknown_name("kind of weights", weights, WEIGHTS)
    if chunks < 2:
        raise UsageError(
            f"a norm without bias is a product of independent chunks: it takes at least 2, not {chunks}"
        )
    began = time.monotonic()
    found = find_snapshots(run)
    job, where = found.job, resolve_device(device)
    declared = resolve_arm(job)
    points, reasons = [], {}
    with with_threads(job.threads):
        part = split_of(declared, job, split)
        loss = FixedLoss(
            declared.task,
            part,
            requires=declared.requires(load_model(found.at(None), kind)[0]),
            samples=_affordable(declared, len(part), chunks) if samples is None else samples,
            chunks=chunks,
            rotations=rotations,
            group=declared.pair_preset.group or declared.task.group,
            seed=seed,
            device=where,
        )
        for index, path in enumerate(found.snapshots):
            model = load_model(path, kind)[0].to(where)
            measured = part_gradients(model, loss)
            point, missing = _point(
                read_checkpoint(path).facts.trace[-1],
                measured,
                deviation(model, measured.unused),
                kind,
            )
            points.append(point)
            reasons.update({f"points.{index}.{name}": reason for name, reason in missing.items()})
    machine = environment(where, job.threads)
    analysis = Gradients(
        **analysed_run(declared, job, machine),
        command=_command(
            f"results/{machine.machine_key}/{found.name}.json",
            {
                "weights": kind,
                "split": split,
                "samples": samples,
                "chunks": chunks,
                "rotations": rotations,
                "seed": seed,
            },
        ),
        dataset_sha256=found.dataset_sha256,
        weights=kind,
        split=split,
        samples=loss.samples,
        chunks=chunks,
        rotations=rotations,
        group=loss.group,
        analysis_seed=seed,
        seconds=time.monotonic() - began,
        reasons=reasons,
        points=points,
        correlations={},
    )
    for name, judged in correlations([analysis]).items():
        analysis.correlations[name] = _estimate(judged.quantity)
        if judged.reason is not None:
            reasons[f"correlations.{name}"] = judged.reason
    return analysis


def _affordable(declared: ResolvedArm, there: int, chunks: int) -> int:
    """How many of the samples that are ``there`` are judged by default: at least two a chunk."""
    evaluated = declared.pair_preset.test_samples or there
    return min(there, max(2 * chunks, min(SAMPLES, evaluated // 2)))


def _point(
    at: TracePoint, measured: PartGradients, apart: float | None, weights: Weights
) -> tuple[GradientPoint, dict[str, str]]:
    """The point, and why what it lacks is missing."""
    judged = {
        "twirled_norm": measured.twirled_norm,
        "equivariance_norm": measured.equivariance_norm,
        "ratio": measured.ratio,
    }
    reasons = {name: each.reason for name, each in judged.items() if each.reason is not None}
    if apart is None:
        reasons["deviation"] = (
            "the model gives no symmetric projection of parameters that the error depends on"
        )
    # Runs judge their averaged weights only; what raw ones come to is measured here, on the
    # analysis's own samples.
    judged_by_run = weights == "ema"
    point = GradientPoint(
        step=at.step,
        samples=at.samples,
        train_seconds=at.train_seconds,
        total=at.test.total if judged_by_run else measured.total,
        share=at.test.share if judged_by_run else measured.equivariance / measured.total,
        twirled_norm=_estimate(judged["twirled_norm"].quantity),
        equivariance_norm=_estimate(judged["equivariance_norm"].quantity),
        ratio=_estimate(judged["ratio"].quantity),
        deviation=apart,
    )
    return point, reasons


def _estimate(quantity: Quantity) -> Estimate:
    return Estimate(value=quantity.value, low=quantity.low, high=quantity.high)


def _command(record: str, options: Mapping[str, object]) -> str:
    """The command line that asks for the same; options at their defaults are left out."""
    defaults = {
        "weights": "ema",
        "split": "test",
        "samples": None,
        "chunks": CHUNKS,
        "rotations": ROTATIONS,
        "seed": 0,
    }
    words = ["equivbench", "analyze", "gradients", record]
    for name, value in options.items():
        if value != defaults[name]:
            words += [f"--{name}", str(value)]
    return shlex.join(words)

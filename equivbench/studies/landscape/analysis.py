"""The landscape around the weights of a run, as what an analysis leaves on disk."""

from __future__ import annotations

import dataclasses
import shlex
import time
from collections.abc import Mapping
from typing import Any, Literal, cast

import numpy as np
import torch
from scipy import special

from equivbench.environment import environment
from equivbench.errors import UsageError, unknown_name
from equivbench.execution.machine import resolve_device, with_threads
from equivbench.execution.runs import checkpoint_of, find_snapshots
from equivbench.studies.analysed import analysed_run, split_of
from equivbench.studies.landscape.draws import Draws
from equivbench.studies.landscape.measuring import FIXED, PROBES, Measured, Shape, measure_landscape
from equivbench.studies.landscape.record import Curvature, Landscape
from equivbench.studies.record import ERROR_PARTS, ErrorPart, Estimate
from equivbench.training.arm import resolve_arm
from equivbench.training.assembly import load_model
from equivbench.training.checkpoint import SNAPSHOTS, read_checkpoint
from equivbench.training.job import read_job

Precision = Literal["float32", "float64"]
ROUNDING: Mapping[Precision, float] = {"float32": 1e-9, "float64": 1e-20}
"""Share of the total below which a part is rounding: the square of the precision's step (1e-14,
1e-32) and room for signals larger than their error and the many operations of a network."""
_DEFAULTS: Mapping[str, Any] = {
    "layers": "*",
    "along": "total",
    "seed": 0,
    "eigenvalues": 1,
    "weights": "ema",
    "split": "test",
    "precision": "float32",
}


def analyse_landscape(
    run: str,
    *,
    layers: str = "*",
    along: str = "total",
    step: int | None = None,
    points: int | None = None,
    radius: float | None = None,
    samples: int | None = None,
    rotations: int | None = None,
    seed: int = 0,
    eigenvalues: int = 1,
    weights: str = "ema",
    split: str = "test",
    precision: str = "float32",
    device: str = "auto",
    repeat: bool = True,
) -> Landscape:
    """The landscape of every part of the error around the weights of ``run``.

    Parameters
    ----------
    run
        A record, run id, checkpoint or snapshot, as
        :func:`equivbench.execution.runs.checkpoint_of` takes it.
    layers, along, points, radius, eigenvalues, repeat
        As :func:`equivbench.studies.landscape.measuring.measure_landscape` takes them.
    step
        Of a snapshot of the run; None: its end, or where the named snapshot was taken.
    samples, rotations
        What the error is of. None for these and ``points``: by what judging costs
        (``Draws.affordable``).
    seed
        Of samples, noise, rotations, the first Lanczos vector and the probes.
    weights
        ``ema`` (averaged) or ``model`` (raw).
    precision
        Of the model; sums over its predictions are in float64 either way.
    device
        As ``run`` takes it. Threads are the run's, so that the analysis lies beside the record of
        the run.

    Raises
    ------
    UsageError
        For names that do not exist and numbers that do not fit.
    FailedError
        For a run that is not here, files that cannot be read, and eigenvalues that do not converge.
    """
    for what, name, known in (
        ("kind of weights", weights, ("ema", "model")),
        ("part of the error", along, ERROR_PARTS),
        ("precision", precision, tuple(ROUNDING)),
    ):
        if name not in known:
            raise unknown_name(what, name, known)
    if seed < 0:
        raise UsageError(f"--seed must be at least 0, not {seed}")
    began = time.monotonic()
    path = checkpoint_of(run) if step is None else find_snapshots(run).at(step)
    facts = read_checkpoint(path).facts
    job, where = read_job(facts.job), resolve_device(device)
    declared = resolve_arm(job)
    group = declared.pair_preset.group or declared.task.group
    exact = cast(Precision, precision)
    with with_threads(job.threads):
        model = load_model(path, weights)[0].to(
            where, torch.float64 if exact == "float64" else torch.float32
        )
        part = split_of(declared, job, split)
        draws = Draws(declared.task, part, declared.requires(model), group, where, exact, seed)
        size = draws.affordable(model)
        asked = {"samples": samples, "rotations": rotations, "points": points}
        given = {name: value for name, value in asked.items() if value is not None}
        size = dataclasses.replace(size, **given)
        measured = measure_landscape(
            model,
            lambda index: draws.draw(index, size),
            layers=layers,
            along=along,
            points=size.points,
            radius=radius,
            eigenvalues=eigenvalues,
            seed=seed,
            repeat=repeat,
            rounding=ROUNDING[exact],
        )
        judged = draws.draw(FIXED, size).samples
    machine = environment(where, job.threads)
    # The command names the run by its record, from where a snapshot is found by its step.
    at = facts.step if path.parent.name == SNAPSHOTS else None
    settings = {
        "layers": layers,
        "along": along,
        "step": at,
        "radius": radius,
        **given,
        "seed": seed,
    }
    settings |= {
        "eigenvalues": eigenvalues,
        "weights": weights,
        "split": split,
        "precision": precision,
    }
    reasons: dict[str, str] = {}
    return Landscape(
        **analysed_run(declared, job, machine),
        command=_command(
            f"results/{machine.machine_key}/{job.pair}/{job.arm}/{job.run_id}.json",
            settings,
            repeat,
        ),
        dataset_sha256=str(facts.identity["dataset"]),
        weights=cast(Any, weights),
        split=split,
        samples=judged,
        rotations=size.rotations,
        group=group,
        analysis_seed=seed,
        seconds=time.monotonic() - began,
        reasons=reasons,
        step=facts.step,
        layers=layers,
        parameters=measured.size,
        precision=exact,
        along=cast(ErrorPart, along),
        axes=[axis.tolist() for axis in measured.plane.axes],
        grids={name: grid.tolist() for name, grid in measured.grids.items()},
        parts={name: _curvature(name, measured, repeat, reasons) for name in ERROR_PARTS},
    )


def _curvature(name: str, measured: Measured, repeat: bool, reasons: dict[str, str]) -> Curvature:
    """The part as it is kept; why it lacks something goes into ``reasons``."""
    shape = measured.shapes[name]
    bowl, spectrum = shape.bowl, shape.spectrum
    trace, condition = _trace(shape), _condition(shape, measured.size)
    missing = {
        "effective_condition": "the trace is not positive" if condition.value is None else None,
        "in_plane_condition": "a saddle or flat: a curvature in the plane is not positive"
        if bowl.condition is None
        else None,
        "quadratic_r2": "the slice is flat to rounding" if bowl.r2 is None else None,
        "roughness": "the quadratic leaves nothing but rounding"
        if bowl.roughness is None
        else None,
        "fresh_r2": None if repeat else "without a repeat",
        "repeated": None if repeat else "without a repeat",
    }
    if spectrum is None:
        nothing = "this part is the rounding of the model's arithmetic"
        missing |= dict.fromkeys(
            ("residual", "trace", "effective_condition", "fresh_r2", "repeated"), nothing
        )
    reasons |= {
        f"parts.{name}.{field}": reason for field, reason in missing.items() if reason is not None
    }
    return Curvature(
        value=shape.value,
        largest=[] if spectrum is None else spectrum.largest.tolist(),
        smallest=[] if spectrum is None else spectrum.smallest.tolist(),
        largest_again=[] if shape.again is None else shape.again[0].tolist(),
        smallest_again=[] if shape.again is None else shape.again[1].tolist(),
        residual=None if spectrum is None else spectrum.residual,
        products=shape.products,
        trace=trace,
        effective_condition=condition,
        in_plane=list(bowl.curvatures),
        in_plane_condition=bowl.condition,
        quadratic_r2=bowl.r2,
        roughness=bowl.roughness,
        fresh_r2=shape.fresh_r2,
        repeated=shape.repeated,
    )


def _trace(shape: Shape) -> Estimate:
    """With the Student interval over its probes."""
    if shape.trace is None:
        return Estimate(value=None)
    value, error = shape.trace
    half = float(special.stdtrit(PROBES - 1, 0.975)) * error
    return Estimate(value=value, low=value - half, high=value + half)


def _condition(shape: Shape, size: int) -> Estimate:
    """Largest eigenvalue over the mean one: at least 1, as a maximum over a mean."""
    trace = _trace(shape)
    if (
        shape.spectrum is None
        or trace.value is None
        or trace.low is None
        or trace.high is None
        or trace.value <= 0
    ):
        return Estimate(value=None)
    largest = float(shape.spectrum.largest[0])
    least = largest if shape.again is None else float(np.minimum(shape.again[0][0], largest))
    return Estimate(
        value=max(1.0, largest * size / trace.value),
        low=max(1.0, least * size / trace.high),
        high=max(1.0, largest * size / trace.low) if trace.low > 0 else None,
    )


def _command(record: str, settings: Mapping[str, Any], repeat: bool) -> str:
    """The command line that asks for the same; options at their defaults are left out."""
    words = ["equivbench", "analyze", "landscape", record]
    for name, value in settings.items():
        if value is not None and value != _DEFAULTS.get(name):
            words += [f"--{name}", str(value)]
    return shlex.join([*words, *([] if repeat else ["--no-repeat"])])

"""Made-up evidence for the claims: runs whose share goes as told, landscapes and gradient analyses
of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from factories import PART, make_run, make_test

from equivbench.records.declared import effective_variant
from equivbench.records.schema import RunRecord
from equivbench.studies.gradients.record import GradientPoint, Gradients
from equivbench.studies.landscape.record import Curvature, Landscape
from equivbench.studies.record import Estimate

PAIRS = {"forcefield": "vector", "flow": "vector-head", "voxel": "steerable"}
GPU = {"machine_key": "toy-gpu", "device": "NVIDIA Toy"}
Shares = Sequence[tuple[int, float]]
FALLS: Shares = ((100, 0.5), (1000, 0.05), (3000, 0.01), (9000, 0.001))


def make_shared(
    shares: Shares = FALLS,
    *,
    task: str = "forcefield",
    loss: Callable[[float], float] | None = None,
    **more: Any,
) -> RunRecord:
    """A run with ``shares`` at its steps, whichever weights are looked at; its loss falls from 8 to
    1 (explained: 20 to 90%) unless ``loss(place)`` says else."""
    fall = loss or (lambda place: 8.0 - 7.0 * place)
    losses = {step: fall(k / max(len(shares) - 1, 1)) for k, (step, _) in enumerate(shares)}
    tau, batch = 0.1, 32

    def test(step: int, share: float) -> dict[str, Any]:
        total = losses[step]
        # Of groups that are all alike, so that the interval of one seed is a point.
        groups = {"total": [total] * 3, "equivariance": [share * total] * 3}
        return make_test(total, share, {"weights": [1.0] * 3, **groups})

    rungs = [
        {
            "budget": tau * step,
            "step": step,
            "samples": batch * step,
            "train_seconds": tau * step,
            "test": {**test(step, share), **PART},
        }
        for step, share in shares
    ]
    trace = [
        {name: rung[name] for name in ("step", "samples", "train_seconds", "test")}
        | {"ema": rung["test"]}
        for rung in rungs[:-1]
    ]
    end = test(*shares[-1])
    rungs[-1]["test"] = end
    more = {"limit": tau * shares[-1][0], "epochs": batch * shares[-1][0] / 1000, **more}
    seed, arm = more.get("seed", 0), more.pop("arm", "augmented")
    more.setdefault(
        "run_id",
        f"{more.get('preset', 'small')}-seed{seed}-{task}-{arm}-"
        f"{'-'.join(more.get('variant', {}).values())}",
    )
    pair = more.pop("pair", PAIRS.get(task, "pair"))
    return make_run(
        arm,
        losses.__getitem__,
        list(losses),
        tau=tau,
        batch_size=batch,
        task=task,
        pair=pair,
        **{"trace": trace, "rungs": rungs, "final_raw": end, "final_ema": end, **more},
    )


def all_tasks(
    shares: Shares = FALLS, seeds: Sequence[int] = (0, 1, 2), **more: Any
) -> list[RunRecord]:
    """The augmented arm of a pair per task; seeds differ a little in their shares."""
    return [
        make_shared(
            [(step, share * (1 + 0.01 * seed)) for step, share in shares],
            task=task,
            seed=seed,
            **more,
        )
        for task in PAIRS
        for seed in seeds
    ]


def curvature(condition: float, **more: Any) -> Curvature:
    """Of a part whose condition numbers are both ``condition``, in a slice that repeats."""
    fields: dict[str, Any] = {
        "value": 1.0,
        "largest": [condition],
        "smallest": [1.0],
        "residual": 1e-6,
        "products": 10,
        "trace": Estimate(value=1.0),
        "effective_condition": Estimate(value=condition, low=0.9 * condition, high=1.1 * condition),
        "in_plane": [condition, 1.0],
        "in_plane_condition": condition,
        "quadratic_r2": 0.99,
        "roughness": 0.01,
        "fresh_r2": 0.04,
        "repeated": 0.95,
    }
    return Curvature(**{**fields, **more})


def landscape(
    record: RunRecord, equivariance: Curvature, twirled: Curvature, **more: Any
) -> Landscape:
    """A slice around the end of ``record``."""
    fields: dict[str, Any] = {
        "step": record.steps,
        "layers": "*",
        "parameters": 10,
        "precision": "float64",
        "along": "total",
        "axes": [[0.0], [0.0]],
        "grids": {},
        "parts": {"total": twirled, "twirled": twirled, "equivariance": equivariance},
    }
    return Landscape(**{**_analysed(record, "equivbench analyze landscape"), **fields, **more})


def gradients(record: RunRecord, points: Sequence[tuple[int, float, float]]) -> Gradients:
    """An analysis with ``points`` of (step, share, gradient ratio)."""
    one = Estimate(value=1.0)
    made = [
        GradientPoint(
            step=step,
            samples=step,
            train_seconds=float(step),
            total=1.0,
            share=share,
            twirled_norm=one,
            equivariance_norm=one,
            ratio=Estimate(value=ratio),
            deviation=None,
        )
        for step, share, ratio in points
    ]
    return Gradients(
        **_analysed(record, "equivbench analyze gradients"), chunks=8, points=made, correlations={}
    )


def _analysed(record: RunRecord, command: str) -> dict[str, Any]:
    return {
        "created": "2026-01-02T03:04:05Z",
        "command": command,
        "run_id": record.run_id,
        "task": record.task,
        "pair": record.pair,
        "arm": record.arm,
        "model": record.model.name,
        "preset": record.preset,
        "seed": record.seed,
        "variant": effective_variant(record),
        "dataset_sha256": record.dataset.sha256,
        "weights": "model",
        "split": "test",
        "samples": 8,
        "rotations": 2,
        "group": "so3",
        "analysis_seed": 0,
        "seconds": 1.0,
        "environment": record.environment,
        "git": record.git,
    }

"""Gradient analyses for tests: a run whose ratio, deviation and share fall along training, changed
by keyword."""

from __future__ import annotations

from typing import Any

import numpy as np
from factories import make_record

from equivbench.studies.gradients.record import GradientPoint, Gradients
from equivbench.studies.record import Estimate


def point(step: int, **changes: Any) -> GradientPoint:
    """A snapshot at ``step``; ``ratio`` is its value, with an interval of a tenth."""
    ratio = changes.pop("ratio", 0.5)
    estimate = (
        Estimate(value=None)
        if ratio is None
        else Estimate(value=ratio, low=0.9 * ratio, high=1.1 * ratio)
    )
    settings: dict[str, Any] = {
        "step": step,
        "samples": 32 * step,
        "train_seconds": 0.1 * step,
        "total": 2.0,
        "share": 0.1,
        "twirled_norm": Estimate(value=2.0, low=1.8, high=2.2),
        "equivariance_norm": Estimate(value=None if ratio is None else 2.0 * ratio),
        "ratio": estimate,
        "deviation": 0.25,
    }
    return GradientPoint(**{**settings, **changes})


def analysis(seed: int = 0, *, deviates: bool = True, **changes: Any) -> Gradients:
    """Gradients at ten snapshots of run ``seed``, whose residuals are its own."""
    generator = np.random.default_rng(seed)
    points = []
    for step in np.geomspace(3, 3000, 10).round().astype(int).tolist():
        ratio, share, apart = step**-0.5 * np.exp(0.3 * generator.standard_normal(3))
        points.append(
            point(
                step,
                ratio=float(ratio),
                share=float(share),
                deviation=float(apart) if deviates else None,
            )
        )
    record = make_record()
    settings: dict[str, Any] = {
        "created": "2026-01-02T03:04:05Z",
        "command": "equivbench analyze gradients results/run.json",
        "run_id": f"small-seed{seed}",
        "task": "toy",
        "pair": "pair",
        "arm": "augmented",
        "model": "toy-net",
        "preset": "small",
        "seed": seed,
        "variant": {},
        "dataset_sha256": "0" * 64,
        "weights": "model",
        "split": "test",
        "samples": 64,
        "chunks": 8,
        "rotations": 2,
        "group": "so3",
        "analysis_seed": 0,
        "seconds": 1.0,
        "environment": record.environment,
        "git": record.git,
        "points": points,
        "correlations": {},
    }
    return Gradients(**{**settings, **changes})

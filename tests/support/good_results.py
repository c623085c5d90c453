"""Good results that bad submissions are made from: records and kernel samples as shipped, analyses
made up."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from spoil import MACHINE

from equivbench.records.schema import RunRecord
from equivbench.studies.gradients.record import GradientPoint, Gradients
from equivbench.studies.landscape.record import Curvature, Landscape
from equivbench.studies.record import Estimate

RESULTS = Path(__file__).parents[2] / "results"
PAIRS = ("flow/frames", "forcefield/vector", "voxel/octahedral")


def good_files() -> list[Path]:
    """Both arms' seed 0 of a pair a task, on the first machine that has it."""
    return [
        min(RESULTS.glob(f"*/{pair}/{arm}/*-seed0-*.json"))
        for pair in PAIRS
        for arm in ("augmented", "equivariant")
    ]


def analysed(record: RunRecord) -> dict[str, Any]:
    return {
        **{
            name: getattr(record, name)
            for name in ("created", "run_id", "task", "pair", "arm", "preset", "seed", "variant")
        },
        "command": "equivbench analyze",
        "model": record.model.name,
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


def gradients_of(record: RunRecord) -> Gradients:
    def at(value: float) -> Estimate:
        return Estimate(value=value, low=0.9 * value, high=1.1 * value)

    points = [
        GradientPoint(
            step=point.step,
            samples=point.samples,
            train_seconds=point.train_seconds,
            total=point.test.total,
            share=point.test.share,
            twirled_norm=at(4.0),
            equivariance_norm=at(2.0),
            ratio=at(0.5),
            deviation=0.1,
        )
        for point in record.trace[:3]
    ]
    return Gradients(
        **analysed(record),
        chunks=8,
        points=points,
        correlations={"ratio": Estimate(value=0.5, low=-0.1, high=0.8)},
    )


def landscape_of(record: RunRecord) -> Landscape:
    part = Curvature(
        value=1.0,
        largest=[2.0, 1.0],
        smallest=[-1.0, -0.5],
        residual=1e-4,
        products=60,
        trace=Estimate(value=5.0, low=4.0, high=6.0),
        effective_condition=Estimate(value=40.0, low=30.0, high=50.0),
        in_plane=[2.0, 1.0],
        in_plane_condition=2.0,
        quadratic_r2=0.99,
        roughness=0.01,
        fresh_r2=0.1,
        repeated=0.9,
    )
    return Landscape(
        **analysed(record),
        step=10,
        layers="*",
        parameters=100,
        precision="float64",
        along="total",
        axes=[[0.0, 1.0], [0.0, 1.0]],
        grids={"total": [[1.0, 2.0], [2.0, 3.0]]},
        parts={"total": part},
    )


def copy_good(out: Path) -> Path:
    for file in good_files():
        target = out / file.relative_to(RESULTS)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    shutil.copy(RESULTS / MACHINE / "kernels.jsonl", out / MACHINE)
    return out

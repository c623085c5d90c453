"""Run records for tests: valid by the schema, every field set to something plausible, changed by
keyword."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from equivbench.records.schema import RULES_VERSION, SCHEMA_VERSION, RunRecord

PART = {"samples": 50, "rotations": 2, "floor": None}
"""What an evaluation on a part of the test set has instead."""
BASELINE = 10.0
"""Board metric of the constant predictor that ``explained`` is relative to in these records."""


def make_record(**overrides: Any) -> RunRecord:
    """A completed run of a made-up pair. ``overrides`` name fields; a mapping is merged into the
    part it names.

    ``make_record(arm="augmented", budget={"limit": 10.0})`` keeps the other fields of ``budget``.
    ``trace``, ``rungs``, ``dataset.sizes`` and other leaves are replaced whole; ``final`` and
    ``final_on_part`` follow ``rungs`` unless they are given.
    """
    plain = copy.deepcopy(_DEFAULTS)
    seed, arm = overrides.get("seed", 0), overrides.get("arm", "equivariant")
    # No two seeds or arms have the same losses: records that did would be copies of one run.
    shift = 1 + 1e-13 * (seed + 100 * (arm != "equivariant"))
    steps = [10, 30, 100, 300, 1000]
    plain["trace"] = make_trace(lambda step: shift * 6.0 * step**-0.5, steps[:-1], 0.1, 32)
    plain["rungs"] = make_rungs(lambda step: shift * 5.0 * step**-0.5, steps, 0.1, 32)
    plain["run_id"] = f"small-seed{seed}-{arm}"
    for name, value in overrides.items():
        value = msgspec.to_builtins(value)
        if isinstance(plain.get(name), dict) and isinstance(value, dict) and name not in _WHOLE:
            plain[name].update(value)
        else:
            plain[name] = value
    last = plain["rungs"][-1]["test"] if plain["rungs"] else None
    if "final" not in overrides:
        plain["final"] = last
    if "final_on_part" not in overrides:
        plain["final_on_part"] = None if last is None else {**last, **PART}
    return msgspec.convert(plain, RunRecord)


def make_test(
    total: float, share: float = 0.1, groups: dict[str, list[float]] | None = None
) -> dict[str, Any]:
    """An evaluation on the whole test set with the given board metric and share."""
    return {
        "samples": 100,
        "rotations": 4,
        "objective": 10 * total,
        "total": total,
        "twirled": (1 - share) * total,
        "equivariance": share * total,
        "share": share,
        "floor": 1e-2,
        "group": "so3",
        "explained": 1 - total / BASELINE,
        "over_best_untrained": total / BASELINE,
        "by": {},
        "errors": {},
        "groups": groups,
    }


def _point(step: int, tau: float, batch_size: int, total: float, share: float) -> dict[str, Any]:
    """What a rung and a trace point have in common: an evaluation on a part of the test set after
    ``step`` steps of ``tau`` seconds."""
    return {
        "step": step,
        "samples": step * batch_size,
        "train_seconds": step * tau,
        "test": {**make_test(total, share), **PART},
    }


def make_rungs(
    loss: Callable[[float], float],
    steps: Sequence[int],
    tau: float,
    batch_size: int,
    share: float = 0.1,
) -> list[dict[str, Any]]:
    """Annealed results ``loss(step)`` of budgets of ``steps`` steps, which take ``tau`` seconds
    each; the budgets are in seconds."""
    rungs = [
        {"budget": step * tau, **_point(step, tau, batch_size, loss(step), share)} for step in steps
    ]
    if rungs:
        rungs[-1]["test"] = make_test(loss(steps[-1]), share)
    return rungs


def make_trace(
    loss: Callable[[float], float],
    steps: Sequence[int],
    tau: float,
    batch_size: int,
    share: float = 0.1,
) -> list[dict[str, Any]]:
    """Trace points at ``steps`` of a curve ``loss(step)`` whose steps take ``tau`` seconds; that of
    the averaged weights is a tenth lower."""
    return [
        {
            **_point(step, tau, batch_size, loss(step), share),
            "ema": {**make_test(0.9 * loss(step), share), **PART},
        }
        for step in steps
    ]


def make_run(
    arm: str,
    loss: Callable[[float], float],
    steps: Sequence[int],
    *,
    tau: float,
    batch_size: int = 32,
    compile_seconds: float = 0.0,
    share: float = 0.1,
    limit: float = 100.0,
    **overrides: Any,
) -> RunRecord:
    """A run of ``arm`` whose annealed loss after ``step`` of ``steps`` is ``loss(step)``, at
    ``tau`` seconds a step; the last of ``steps`` ends its budget, at whose end ``limit`` is
    reached. That of the weights before they are annealed is a fifth higher."""
    trace = make_trace(lambda step: 1.2 * loss(step), steps[:-1], tau, batch_size, share)
    rungs = make_rungs(loss, steps, tau, batch_size, share)
    spent = steps[-1] * tau
    clock = {
        "train": 0.9 * spent,
        "data": 0.1 * spent,
        "compile": compile_seconds,
        "wall": spent + compile_seconds + 3.0,
    }
    settings = {
        "arm": arm,
        "trace": trace,
        "rungs": rungs,
        "steps": steps[-1],
        "samples": steps[-1] * batch_size,
        "budget": {"limit": limit, "spent": spent, "overshoot": max(0.0, spent - limit)},
        "clock": clock,
        "recipe": {
            "batch_size": batch_size,
            "augmentation": "haar" if arm == "augmented" else "none",
        },
        "throughput": {
            "samples_per_second": batch_size / tau,
            "step_seconds": {"p10": tau, "p50": tau, "p90": tau},
            "blocks": [tau] * 8,
        },
    }
    for name, value in overrides.items():
        merged = (
            {**settings[name], **value}  # type: ignore[dict-item]
            if isinstance(settings.get(name), dict) and isinstance(value, dict)
            else value
        )
        settings[name] = merged
    return make_record(**settings)


_WHOLE = {"variant", "reasons", "out_of_distribution"}
_DEFAULTS: dict[str, Any] = {
    "schema_version": SCHEMA_VERSION,
    "rules_version": RULES_VERSION,
    "run_id": "small-seed0",
    "created": "2026-01-02T03:04:05Z",
    "status": "completed",
    "reason": None,
    "preset": "small",
    "command": "equivbench run toy/pair",
    "task": "toy",
    "dataset": {
        "name": "toy-set",
        "version": "1",
        "sha256": "0" * 64,
        "sizes": {"train": 1000, "validation": 100, "test": 100},
    },
    "pair": "pair",
    "arm": "equivariant",
    "matching": {
        "what": "everything but the symmetry",
        "hardware": None,
        "target": "parameters within 15%",
        "measured": {"equivariant": 1000.0, "augmented": 1000.0},
    },
    "model": {
        "name": "toy-net",
        "symmetry": "so3",
        "symmetry_verified": True,
        "parameters": 1000,
        "kernels": "default",
        "config": {},
        "wrapper": None,
    },
    "recipe": {
        "optimizer": "adamw",
        "learning_rate": 1e-3,
        "batch_size": 32,
        "augmentation": "none",
        "precision": "float32",
        "compile": None,
        "ema": 0.999,
        "tuned_at": None,
        "tuning_log_sha256": None,
        "weight_decay": 0.01,
        "warmup_steps": 50,
        "clip_norm": 10.0,
    },
    "variant": {},
    "seed": 0,
    "budget": {
        "kind": "seconds",
        "limit": 100.0,
        "spent": 100.0,
        "overshoot": 0.0,
        "extends": None,
    },
    "clock": {
        "train": 90.0,
        "compile": 0.0,
        "data": 10.0,
        "rungs": 0.0,
        "evaluate": 2.0,
        "checkpoint": 0.5,
        "timing": 0.4,
        "other": 0.1,
        "stalled": 0.0,
        "wall": 103.0,
    },
    "restarts": 0,
    "lost_seconds": 0.0,
    "steps": 1000,
    "samples": 32000,
    "epochs": 32.0,
    "throughput": {
        "samples_per_second": 320.0,
        "step_seconds": {"p10": 0.1, "p50": 0.1, "p90": 0.1},
        "alternated_with": "augmented",
        "blocks": [0.1] * 8,
    },
    "inference": {"samples_per_second": 1000.0, "twirl": {"2": 500.0, "4": 250.0, "8": 125.0}},
    "memory": {"peak_bytes": 100_000_000},
    "flops_per_sample": None,
    "energy_joules": None,
    "rungs": [],
    "trace": [],
    "final": None,
    "final_on_part": None,
    "final_raw": make_test(0.2),
    "final_ema": make_test(0.18),
    "out_of_distribution": {},
    "environment": {
        "machine_key": "toy-cpu-2t",
        "device": "cpu",
        "driver": None,
        "cpu": "Toy CPU",
        "threads": 2,
        "python": "3.11.0",
        "packages": {"torch": "2.11.0"},
    },
    "git": {"commit": "0" * 40, "dirty": False, "tree": "1" * 40},
    "contest": "0123456789ab",
    "machine_share": {
        "cpu_share": 0.98,
        "switches": 5.0,
        "load": 2.0,
        "steal": 0.0,
        "throttled_seconds": 0.0,
        "p90_over_p10": 1.1,
        "stalled_seconds": 0.0,
    },
    "reasons": {
        "flops_per_sample": "not counted",
        "energy_joules": "the device reports no energy",
    },
}

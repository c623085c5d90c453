"""The trainer of a job: its declarations looked up, its arm built, and what an earlier process left
of it put back."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
import torch

from equivbench.budget import Budget
from equivbench.errors import UsageError
from equivbench.ranks import Ranks
from equivbench.tasks.splits import with_fraction
from equivbench.training.arm import Arm, build_arm, resolve_arm
from equivbench.training.checkpoint import Facts
from equivbench.training.clock import clock_of
from equivbench.training.follower import Follower
from equivbench.training.job import Job
from equivbench.training.loop import Trainer
from equivbench.training.machine_share import Stalls
from equivbench.training.steps import Steps


def build_trainer(
    job: Job, alive: Callable[[], None] = lambda: None, ranks: Ranks | None = None
) -> Trainer:
    """The trainer of ``job``; restored from its last checkpoint if it is to be resumed and there
    is one. Evaluations call ``alive`` as they go on. ``ranks``, of which this is the first, train
    the arm together.

    Raises ``UsageError`` for names that are not registered, a budget that cannot be read, and more
    ranks than a batch has samples; ``FailedError`` for data or checkpoints that cannot be read.
    """
    declared = resolve_arm(job)
    devices = 1 if ranks is None else ranks.count
    if declared.recipe.batch_size < devices:
        raise UsageError(
            f"--devices-per-arm {devices}: a training step of {job.label} has "
            f"{declared.recipe.batch_size} samples, too few for so many devices"
        )
    clock = clock_of(torch.device(job.device), Stalls().taken, devices)
    with clock.running():
        data = with_fraction(declared.dataset().load(), job.fraction)
        arm = build_arm(declared, job, data, clock, alive, ranks)
        tried, rungs = job.split == "validation", job.request.rungs
        trainer = Trainer(
            arm,
            Budget.parse(job.extends or job.budget),
            # A trial of a tuning is judged at its end alone.
            rungs=0 if tried else declared.pair_preset.rungs if rungs is None else rungs,
            traced=not tried,
            seed=job.seed,
            threads=job.threads,
            clock=clock,
            job=msgspec.to_builtins(job),
            identity=_identity(job, arm),
            folder=Path(job.state_dir),
            snapshots=job.request.snapshots,
            ranks=ranks,
        )
        if job.request.resume:
            trainer.restore()
        else:
            trainer.clear()
        budget = Budget.parse(job.budget)
        if budget != trainer.budget:
            trainer.extend(budget)
    return trainer


def build_follower(job: Job, ranks: Ranks) -> Follower:
    """The rank of ``job`` that this one of ``ranks`` is and that is not the first; ``job`` has its
    own device."""
    declared = resolve_arm(job)
    clock = clock_of(torch.device(job.device))
    data = with_fraction(declared.dataset().load(), job.fraction)
    arm = build_arm(declared, job, data, clock, ranks=ranks)
    facts = Facts(identity={}, job={}, budget=job.budget)
    steps = Steps(arm, Budget.parse(job.budget), job.seed, clock, facts, ranks)
    return Follower(steps, ranks, Path(job.state_dir) / f"rank-{ranks.number}")


def _identity(job: Job, arm: Arm) -> dict[str, Any]:
    """What must agree for a checkpoint to go on in this run."""
    declared = arm.declared
    recipe = msgspec.json.encode(asdict(declared.recipe))
    return {
        "pair": job.pair,
        "arm": job.arm,
        "preset": job.request.preset,
        "variant": dict(declared.variant),
        "kernels": job.kernels,
        "recipe": hashlib.sha256(recipe).hexdigest(),
        "config": msgspec.json.encode(declared.config, order="deterministic").decode(),
        "dataset": arm.card.sha256,
        "fraction": job.fraction,
        "labels": job.labels,
        "split": job.split,
        "device": arm.device.type,
        "threads": job.threads,
        "devices_per_arm": len(job.replicas) + 1,
    }

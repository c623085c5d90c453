"""A trained run as an analysis finds it, and the parts of its error as differentiable functions of
its parameters, on samples, noise and rotations that stay fixed."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from equivbench.environment import computed_in, environment, git_state, machine_key
from equivbench.errors import UsageError
from equivbench.execution.plan import resolve_device, with_threads
from equivbench.measure.caller import Caller
from equivbench.measure.elements import elements_for
from equivbench.measure.precision import EvaluationPrecision
from equivbench.measure.rotated_set import (
    Chunk,
    Placement,
    RotatedSet,
    spread,
)
from equivbench.records.declared import without_usual
from equivbench.specs import Group
from equivbench.studies.record import AnalysisRequest
from equivbench.symmetry.decomposition import decompose
from equivbench.tasks.base import Split, Task
from equivbench.tasks.splits import with_fraction
from equivbench.training.arm import ResolvedArm, resolve_arm
from equivbench.training.checkpoint import read_checkpoint
from equivbench.training.job import Job, read_job

_ROTATIONS = 1 << 29
"""Keeps the generator of rotations apart from that of noise."""


@dataclass(frozen=True)
class ErrorParts:
    """Means over weighted rows, in the unit of the board metric; float64 scalars that can be
    differentiated."""

    total: Tensor
    twirled: Tensor
    equivariance: Tensor


class FixedLoss:
    """Twirled and equivariance error of models on one fixed set of chunks.

    The same seed gives the same samples, noise and rotations, so that the error is a deterministic,
    smooth function of the parameters. Chunks share no sample group, rotation or noise: what two of
    them give is independent. Both parts are unbiased at two or more rotations
    (:func:`equivbench.symmetry.decomposition.decompose`), and so are their gradients.

    ``requires`` are derived inputs that the models take, with their parameter; ``samples`` are
    spread over all groups (None: all of them), which are dealt into ``chunks`` parts of about equal
    size; ``rotations`` are draws per sample, at least 2, and for ``octahedral`` 24 is the whole
    group. The rest is as for :class:`equivbench.measure.evaluator.Evaluator`.
    """

    def __init__(
        self,
        task: Task,
        split: Split,
        *,
        requires: Mapping[str, float],
        samples: int | None = None,
        chunks: int = 1,
        rotations: int = 4,
        group: Group = "so3",
        seed: int = 0,
        device: torch.device | str = "cpu",
        precision: EvaluationPrecision = "float32",
    ) -> None:
        if rotations < 2:
            raise UsageError(f"the parts of an error take at least 2 rotations, not {rotations}")
        self.task, self.group = task, group
        self._placement = Placement(task, requires, torch.device(device), precision)
        chosen = spread(split.groups, samples, seed)
        names = torch.unique(split.groups[chosen])
        if not 1 <= chunks <= len(names):
            raise UsageError(
                f"{len(chosen)} samples of {len(names)} independent groups cannot be dealt into "
                f"{chunks} chunks"
            )
        self._drawn_from: int | None = None
        self.chunks: Sequence[Chunk] = [
            self._chunk(split, each, rotations, seed, k)
            for k, each in enumerate(_dealt(split, chosen, chunks))
        ]
        self.samples = len(chosen)

    def parts(self, model: nn.Module, chunk: Chunk) -> ErrorParts:
        """The parts of the error of ``model`` on one of ``chunks``: a forward pass for each
        rotation."""
        placement = self._placement
        caller = Caller(self.task, model, placement.precision, placement.device, True)
        errors = decompose(
            caller.predictions(chunk),
            chunk.target,
            weights=chunk.weights,
            groups=chunk.groups,
            drawn_from=self._drawn_from,
        )
        weight = chunk.row_weights.sum()
        return ErrorParts(
            errors.total.sum() / weight,
            errors.twirled.sum() / weight,
            errors.equivariance.sum() / weight,
        )

    def weights(self) -> list[float]:
        """How much each chunk counts in a mean over all rows; they add up to 1."""
        rows = [float(chunk.row_weights.sum()) for chunk in self.chunks]
        return [each / sum(rows) for each in rows]

    def _chunk(self, split: Split, samples: Tensor, rotations: int, seed: int, k: int) -> Chunk:
        # A seed of its own for each chunk, so that no two share noise or rotations.
        own = seed * 1009 + k
        elements = elements_for(
            self.group, rotations, len(samples) * self.task.test_points, _ROTATIONS + own
        )
        self._drawn_from = elements.drawn_from
        rotated = RotatedSet(
            self._placement,
            split,
            samples,
            elements.matrices,
            len(samples),
            own,
            posed=self.group == "octahedral",
        )
        return next(iter(rotated.kept()))


def _dealt(split: Split, samples: Tensor, chunks: int) -> Iterator[Tensor]:
    """``samples`` [n] in ``chunks`` parts that share no group, dealt in turn."""
    _, index = torch.unique(split.groups[samples], return_inverse=True)
    for k in range(chunks):
        yield samples[index % chunks == k]


@contextlib.contextmanager
def still(model: nn.Module) -> Iterator[None]:
    """Evaluation mode (no dropout) with gradients inside the block; afterwards every module is in
    the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.enable_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


@dataclass(frozen=True)
class TrainedRun:
    """The run that a checkpoint belongs to, as ``request`` analyses it on ``device``."""

    request: AnalysisRequest
    job: Job
    arm: ResolvedArm
    dataset_sha256: str
    """Checksum of the data that it was trained on."""
    step: int
    """Of the checkpoint."""
    device: str
    began: float
    """When the analysis began, on the monotonic clock."""

    @property
    def group(self) -> Group:
        """The group of the equivariance error in the run's own evaluations."""
        return self.arm.pair_preset.group or self.arm.task.group

    @functools.cached_property
    def split(self) -> Split:
        """The samples that are asked for, of the data that the run was trained on, cut as it
        was."""
        data = with_fraction(self.arm.dataset().load(), self.job.fraction)
        return data.split(self.request.split)

    def losses(self, model: nn.Module) -> Callable[..., FixedLoss]:
        """Makes a :class:`FixedLoss` of these samples for models like ``model``."""
        return functools.partial(
            FixedLoss,
            self.arm.task,
            self.split,
            requires=self.arm.requires(model),
            group=self.group,
            device=self.device,
        )

    def described(self, asked: Callable[[str], AnalysisRequest]) -> dict[str, Any]:
        """The fields of :class:`equivbench.studies.record.RunAnalysis` that follow from the run,
        the request and the machine.

        ``asked`` makes the request that is kept from the path at which the run's record lies if
        this machine trained it: it names no folder of this machine.
        """
        job, request = self.job, self.request
        machine = environment(self.device, job.threads)
        key = machine_key(self.device, job.threads, len(job.replicas) + 1)
        record = f"results/{key}/{job.pair}/{job.arm}/{job.run_id}.json"
        declared = self.arm.arm.presets[job.request.preset].recipe
        computed, usual = (
            computed_in(each.precision, job.device) for each in (self.arm.recipe, declared)
        )
        return {
            "created": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            "command": asked(record).command(recorded=True),
            "run_id": job.run_id,
            "task": self.arm.task.name,
            "pair": self.arm.pair.name,
            "arm": job.arm,
            "model": self.arm.spec.name,
            "preset": job.request.preset,
            "seed": job.seed,
            "variant": without_usual({**self.arm.variant, **job.labels}, computed, usual),
            "dataset_sha256": self.dataset_sha256,
            "weights": request.weights,
            "split": request.split,
            "group": self.group,
            "analysis_seed": request.seed,
            "seconds": time.monotonic() - self.began,
            "environment": machine,
            "git": git_state(),
        }


@contextlib.contextmanager
def trained_run(checkpoint: Path, request: AnalysisRequest) -> Iterator[TrainedRun]:
    """The run of ``checkpoint``; inside the block torch has the threads of the run, so that the
    analysis lies beside its record. Raises ``FailedError`` for a file that cannot be read."""
    began = time.monotonic()
    facts = read_checkpoint(checkpoint).facts
    job = read_job(facts.job)
    sha256, device = str(facts.identity["dataset"]), resolve_device(request.device)
    with with_threads(job.threads):
        yield TrainedRun(request, job, resolve_arm(job), sha256, facts.step, device, began)

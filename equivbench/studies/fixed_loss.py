"""The parts of a model's error as differentiable functions of its parameters, on samples, noise and
rotations that stay fixed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from equivbench.errors import UsageError
from equivbench.measure.rotated_set import (
    Caller,
    Chunk,
    EvaluationPrecision,
    Placement,
    RotatedSet,
    draw_rotations,
    spread,
)
from equivbench.specs import Group
from equivbench.symmetry.decomposition import decompose
from equivbench.tasks.base import Split, Task

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

    Parameters
    ----------
    task, split
        The task, and the samples of it.
    requires
        Derived inputs that the models take, with their parameter.
    samples
        How many samples, spread over all groups; None is all.
    chunks
        Into how many parts of about equal size the sample groups are dealt.
    rotations
        Draws per sample, at least 2; for ``octahedral``, 24 is the whole group.
    group, seed, device, precision
        As for :class:`equivbench.measure.evaluator.Evaluator`.
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
        self._exhaustive = False
        self.chunks: Sequence[Chunk] = [
            self._chunk(split, each, rotations, seed, k)
            for k, each in enumerate(_dealt(split, chosen, chunks))
        ]
        self.samples = len(chosen)

    def parts(self, model: nn.Module, chunk: Chunk) -> ErrorParts:
        """The parts of the error of ``model`` on one of ``chunks``: a forward pass for each
        rotation."""
        caller = Caller(self.task, model, self._placement.precision, self._placement.device)
        errors = decompose(
            caller.predictions(chunk),
            chunk.target,
            weights=chunk.weights,
            groups=chunk.groups,
            exhaustive=self._exhaustive,
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
        drawn, self._exhaustive = draw_rotations(
            self.group, rotations, len(samples) * self.task.test_points, _ROTATIONS + own
        )
        rotated = RotatedSet(
            self._placement,
            split,
            samples,
            drawn,
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

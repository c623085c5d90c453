"""The sets of samples, noise and rotations that a landscape is measured on, and how large they may
be for what they cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from equivbench.measure.rotated_set import EvaluationPrecision, evaluating
from equivbench.specs import Group
from equivbench.studies.fixed_loss import FixedLoss
from equivbench.studies.landscape.measuring import DRAWS
from equivbench.tasks.base import Split, Task

WORK = 3e9
"""Floating-point operations of a pass over the set, by default (one sample may take twice that); an
analysis is some 1,200."""
ROTATIONS = 4
"""By default. Few rotations leave some of the equivariance error's curvature in the sampled twirled
error, with either sign; it falls as 1 / rotations."""
POINTS, FEW_POINTS = 11, 9
_COUNTED_ROTATIONS = 2


@dataclass(frozen=True)
class DrawSize:
    """How much is judged."""

    samples: int
    rotations: int
    points: int
    """Along each axis of the slice."""


@dataclass(frozen=True)
class Draws:
    """Sets that follow from a seed and a number alone; fields as
    :class:`equivbench.studies.fixed_loss.FixedLoss` takes them."""

    task: Task
    split: Split
    requires: Mapping[str, float]
    group: Group
    device: torch.device | str
    precision: EvaluationPrecision
    seed: int

    def draw(self, index: int, size: DrawSize) -> FixedLoss:
        """The set number ``index`` (< ``DRAWS``), in one chunk."""
        return FixedLoss(
            self.task,
            self.split,
            requires=self.requires,
            samples=size.samples,
            rotations=size.rotations,
            group=self.group,
            seed=self.seed * DRAWS + index,
            device=self.device,
            precision=self.precision,
        )

    def affordable(self, model: nn.Module) -> DrawSize:
        """What a pass of about :data:`WORK` operations can judge, from those counted for one sample
        of the split.

        A network whose single sample costs more is judged under fewer rotations and on a coarser
        slice.
        """
        one = self.draw(0, DrawSize(1, _COUNTED_ROTATIONS, POINTS))
        counter = FlopCounterMode(display=False)
        with evaluating(model), counter:
            one.parts(model, one.chunks[0])
        # A network of element-wise operations alone has none that are counted.
        each = max(counter.get_total_flops(), 1) / _COUNTED_ROTATIONS
        rotations = ROTATIONS if ROTATIONS * each <= 2 * WORK else 2
        samples = int(min(max(1, WORK // (rotations * each)), len(self.split)))
        return DrawSize(
            samples, rotations, POINTS if samples * rotations * each <= 2 * WORK else FEW_POINTS
        )

"""Whether a model knows left from right: its loss on mirrored samples against that on the same samples as they are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from equivbench.analysis.evaluator import Evaluator
from equivbench.analysis.measurement import Measurement, Part
from equivbench.analysis.rotated_set import Precision
from equivbench.symmetry.decomposition import ratio_interval
from equivbench.tasks.base import Split, Task


@dataclass(frozen=True, eq=False)
class Comparison:
    """The board metric on samples as they are (``native``) and on their mirror images, sample by sample alike otherwise."""

    native: Part
    mirrored: Part

    @property
    def difference(self) -> float:
        """Mirrored minus native, in the task's board unit."""
        return self.mirrored.total - self.native.total

    @property
    def ratio(self) -> float:
        """Mirrored over native: 1 for a model of O(3); NaN where the native loss is 0."""
        return self.mirrored.total / self.native.total if self.native.total else math.nan

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """(low, high) of the ratio, by a bootstrap over the groups, each drawn with its mirror image; NaN for fewer than two."""
        weights = self.native.group_weights
        return ratio_interval(self.mirrored.group_total * weights, self.native.group_total * weights, level)


@dataclass(frozen=True, eq=False)
class Handedness(Comparison):
    """What :func:`handedness` finds."""

    native: Measurement
    mirrored: Measurement

    @property
    def by(self) -> dict[str, Comparison]:
        """The same by stratum (flow time, element), in the task's order."""
        return {name: Comparison(part, self.mirrored.by[name]) for name, part in self.native.by.items()}

    @property
    def resolution(self) -> float:
        """How far from 1 the ratio of a model of O(3) may come to lie by rounding, or by interpolation on a grid.

        A share f of the loss due to those changes the loss by at most 2 sqrt(f) of it (Cauchy-Schwarz); f is the largest
        share that a model that holds its symmetry may show.
        """
        allowed = self.native.allowed
        return math.nan if allowed is None else 2 * math.sqrt(max(allowed, 0.0))

    def tells_hands(self, level: float = 0.95) -> bool:
        """Whether the interval of the ratio excludes 1, by more than the resolution."""
        low, high = self.interval(level)
        return low > 1 + self.resolution or high < 1 - self.resolution


def handedness(
    model: nn.Module,
    task: Task,
    split: Split,
    *,
    requires: Mapping[str, float],
    seed: int = 0,
    device: str = "cpu",
    samples: int | None = None,
    rotations: int = 2,
    batch_size: int = 64,
    precision: Precision = "float32",
) -> Handedness:
    """Judge ``model`` on the samples of ``split`` and on their mirror images x -> -x.

    Every declared tensor, noise included, is mirrored by the parity of its type (``o`` or ``e``), and both sides share noise,
    conditions and rotations: the difference is the model's alone. A model that feeds on its own first prediction makes one on
    each side.

    Parameters
    ----------
    requires
        Derived inputs that the model takes, with their parameter.
    samples
        How many samples, spread over all groups; None is all.
    rotations
        Haar draws per sample, at least 2; for a model of SO(3) they make no difference.

    Raises
    ------
    UsageError
        As :class:`Evaluator` does.
    """
    native, mirrored = (
        Evaluator(
            task,
            split,
            requires=requires,
            rotations=rotations,
            seed=seed,
            device=device,
            samples=samples,
            batch_size=batch_size,
            precision=precision,
            mirrored=side,
        ).evaluate(model, floor=not side)
        for side in (False, True)
    )
    return Handedness(native, mirrored)

"""Whether a model knows left from right: its loss on mirrored samples against that on the same
samples as they are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import nn

from equivbench.measure.evaluator import Evaluator
from equivbench.measure.measurement import Measurement, Part
from equivbench.symmetry.decomposition import ratio_interval
from equivbench.tasks.base import Split, Task


@dataclass(frozen=True, eq=False)
class MirrorComparison:
    """The board metric on samples as they are (``native``) and on their mirror images, sample by
    sample alike otherwise."""

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
        """(low, high) of the ratio, by a bootstrap over the groups, each drawn with its mirror
        image; NaN for fewer than four."""
        weights = self.native.group_weights
        return ratio_interval(
            self.mirrored.group_total * weights, self.native.group_total * weights, level
        )


@dataclass(frozen=True, eq=False)
class Handedness(MirrorComparison):
    """What :func:`handedness` finds."""

    native: Measurement
    mirrored: Measurement

    @property
    def by(self) -> dict[str, MirrorComparison]:
        """The same by stratum (flow time, element), in the task's order."""
        return {
            name: MirrorComparison(part, self.mirrored.by[name])
            for name, part in self.native.by.items()
        }

    def resolution(self, part: MirrorComparison) -> float:
        """How far from 1 the ratio of ``part`` may come to lie in a model of O(3), by rounding or
        by interpolation on a grid.

        Errors that make up a share f of a loss change it by at most 2 sqrt(f) of it
        (Cauchy-Schwarz). f is the largest share that a model that holds its symmetry may show,
        taken to be as large an error in every part.
        """
        if self.native.allowed is None or not part.native.total:
            return math.nan
        return 2 * math.sqrt(max(self.native.allowed, 0.0) * self.native.total / part.native.total)

    def told_apart(self) -> dict[str, MirrorComparison]:
        """The parts (``all`` and the strata) whose ratio differs from 1, by more than the
        resolution.

        95% hold for all parts together (Bonferroni): a model of O(3) is found to differ anywhere in
        5% of cases.
        """
        parts: dict[str, MirrorComparison] = {"all": self, **self.by}
        each = 1 - (1 - 0.95) / len(parts)
        found = {}
        for name, part in parts.items():
            low, high = part.interval(each)
            if low > 1 + self.resolution(part) or high < 1 - self.resolution(part):
                found[name] = part
        return found


def handedness(
    model: nn.Module, task: Task, split: Split, *, rotations: int = 2, **how: Any
) -> Handedness:
    """Judge ``model`` on the samples of ``split`` and on their mirror images x -> -x.

    Every declared tensor, noise included, is mirrored by the parity of its type (``o`` or ``e``),
    and both sides share noise, conditions and rotations: the difference is the model's alone. A
    model that feeds on its own first prediction makes one on each side. ``rotations`` are at least
    2 Haar draws per sample, which make no difference for a model of SO(3). What else is given, and
    what is raised, is as for :class:`Evaluator`.
    """
    native, mirrored = (
        Evaluator(task, split, rotations=rotations, mirrored=side, **how).evaluate(
            model, floor=not side
        )
        for side in (False, True)
    )
    return Handedness(native, mirrored)

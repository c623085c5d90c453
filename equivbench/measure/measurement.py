"""What a measurement of a model says: its error, and how much of it is a symmetry error."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from equivbench.counted import counted
from equivbench.records.schema import GroupErrors, Number, Test, TestPart
from equivbench.specs import Group
from equivbench.symmetry.decomposition import Decomposition, ratio_interval, sum_by_group
from equivbench.tabular import Tabular


@dataclass(frozen=True)
class Verdict:
    """Whether a symmetry holds, and why that is said."""

    holds: bool | None
    """None: it cannot be decided."""
    reason: str
    """What was measured, or why nothing could be; no full stop."""


_HOLDS = {True: "holds", False: "does not hold", None: "is not decided"}


@dataclass(frozen=True, eq=False)
class Part:
    """The error of some rows (a stratum, or all of them) in the task's board unit."""

    total: float
    twirled: float
    equivariance: float
    share: float
    """equivariance / total; NaN where the total is 0."""
    floor: float | None
    """The share that rounding, or interpolation on a grid, alone would cause; None if it was not
    measured."""
    compare_untrained: Callable[[], float]
    """Gives ``over_best_untrained``."""
    group_weights: Tensor
    """[G] rows behind each independent group (molecule), on the host."""
    group_total: Tensor
    """[G] mean total of each group's rows."""
    group_equivariance: Tensor
    """[G] mean equivariance error of each group's rows."""

    def __repr__(self) -> str:
        return f"<Part: total {self.total:.4g}, share {self.share:.2g}>"

    @property
    def over_best_untrained(self) -> float:
        """total over that of the best predictor that needs no training, on the same rows; not
        finite where that is 0. Such predictors are fitted when this is first asked for."""
        return self.compare_untrained()

    def to_part(self) -> TestPart:
        """As it goes into a record; what is not a finite number becomes null."""
        return TestPart(**_numbers(self, TestPart.__struct_fields__))

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """(low, high) of the share, within 0 and 1, by bootstrap over the groups; (NaN, NaN) for
        fewer than four groups."""
        return ratio_interval(
            self.group_equivariance * self.group_weights,
            self.group_total * self.group_weights,
            level,
            most=1.0,
        )


@dataclass(frozen=True, eq=False)
class OutputPart(Part):
    """The error of a further output, in the square of its own unit."""

    unit: str
    """Of that error."""


@dataclass(frozen=True, eq=False)
class SignedPart(Part):
    """A part whose equivariance error is estimated as a difference, so that it and its groups may
    come out below 0."""

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """(low, high) of the share, as for any part; where all of it lies below 0 both are 0."""
        return ratio_interval(
            self.group_equivariance * self.group_weights,
            self.group_total * self.group_weights,
            level,
            most=1.0,
            signed=True,
        )


@dataclass(frozen=True)
class Doubling:
    """A quadrature held against one of twice the degree, on the same few samples."""

    degree: int
    """The doubled one."""
    samples: int
    share: float
    """At the doubled degree."""
    change: float
    """Of the equivariance error, over that at the doubled degree; 0 where both are 0."""
    agrees: bool
    """Whether it changed by no more than a hundredth, or by what rounding explains: whether the
    degree resolves how predictions vary with the rotation."""


@dataclass(frozen=True, eq=False)
class Measurement(Part, Tabular):
    """The symmetry decomposition of a model's error on a fixed, rotated test set."""

    table_factory: ClassVar[str] = "equivbench.report.measurements:measurement_page"

    objective: float
    """The training objective, averaged over samples and draws."""
    explained: float
    """1 - total / baseline, with the task's declared baseline; NaN where that is 0."""
    samples: int
    rotations: int
    """Of each sample."""
    group: Group
    allowed: float | None
    """The share that rounding, or interpolation on a grid, explains; measured with the floor."""
    verdict: Verdict | None = None
    """On the declared symmetry, or where none is declared on the group measured
    (:mod:`equivbench.measure.verification`); None if the floor was not asked for."""
    errors: Mapping[str, float] = field(default_factory=dict)
    """Mean squared errors of the further outputs that the task reports, of those that the model
    gives."""
    beside: Mapping[str, OutputPart] = field(default_factory=dict)
    """The decomposition of those of them that turn with the sample (the stress of a force field),
    without a floor and a verdict."""
    by: Mapping[str, Part] = field(default_factory=dict)
    """The same by stratum (element, flow time), in the task's order, or by what was asked for
    (:data:`equivbench.specs.By`); parts without a row are left out."""
    proper: Part | None = None
    """Under ``o3``: as if only the part of the equivariance error that rotations cause were one,
    averaged over samples and their mirror images. With ``parity`` it adds up to the whole."""
    parity: Part | None = None
    """Likewise the part that only a reflection causes: what is left when predictions are averaged
    over all rotations. None under other groups and for fewer than three rotations."""
    doubled: Doubling | None = None
    """For a quadrature: what twice its degree gives."""
    unit: str = ""
    """The task's board unit, of every error."""

    def __repr__(self) -> str:
        says = "" if self.verdict is None else f", symmetry {_HOLDS[self.verdict.holds]}"
        floor = "" if self.floor is None else f", floor {self.floor:.2g}"
        return (
            f"<Measurement of {counted(self.samples, 'sample')}, "
            f"{counted(self.rotations, 'rotation')} of {self.group}: "
            f"total {self.total:.4g}, share {self.share:.2g}{floor}{says}>"
        )

    @property
    def at_floor(self) -> bool:
        """Whether the share is no more than what the floor explains; False without one."""
        if self.allowed is None:
            return False
        # No error at all, so none of symmetry.
        return self.equivariance == 0 or self.share <= self.allowed

    def to_record(self) -> Test:
        """As it goes into a run record; what is not a finite number becomes null."""
        names = (*TestPart.__struct_fields__, "objective", "floor", "explained")
        by = {name: part.to_part() for name, part in self.by.items()}
        return Test(
            **_numbers(self, names),
            samples=self.samples,
            rotations=self.rotations,
            group=self.group,
            by=by,
            errors={
                name: value if math.isfinite(value) else None for name, value in self.errors.items()
            },
            groups=self._groups(),
        )

    def _groups(self) -> GroupErrors | None:
        columns = (self.group_weights, self.group_total, self.group_equivariance)
        if not all(bool(column.isfinite().all()) for column in columns):
            return None
        # Nine digits: more than sums of errors need, and half the size of a record.
        weights, total, equivariance = (
            [float(f"{value:.9g}") for value in column.tolist()] for column in columns
        )
        return GroupErrors(weights=weights, total=total, equivariance=equivariance)


def part_of(
    errors: Decomposition,
    row_weights: Tensor,
    floor: float | None,
    best_untrained: Callable[[], Tensor],
) -> Part:
    """The part that the rows of ``errors`` make up, each counting with its ``row_weights`` [rows]
    in the means. ``best_untrained`` gives the summed error there of the best predictor
    without training."""
    weight = row_weights.sum()
    weights = sum_by_group(row_weights, errors.groups)
    # A group whose rows all have weight 0 has no error either: 0 / 1.
    divisor = weights.where(weights > 0, 1.0)
    return Part(
        total=float(errors.total.sum() / weight),
        twirled=float(errors.twirled.sum() / weight),
        equivariance=float(errors.equivariance.sum() / weight),
        share=errors.share,
        floor=floor,
        compare_untrained=lambda: float(errors.total.sum() / best_untrained()),
        group_weights=weights.cpu(),
        group_total=(sum_by_group(errors.total, errors.groups) / divisor).cpu(),
        group_equivariance=(sum_by_group(errors.equivariance, errors.groups) / divisor).cpu(),
    )


def _numbers(part: Part, names: Iterable[str]) -> dict[str, Number]:
    values = {name: getattr(part, name) for name in names}
    return {
        name: value if value is not None and math.isfinite(value) else None
        for name, value in values.items()
    }

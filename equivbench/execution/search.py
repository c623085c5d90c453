"""Which learning rate, batch size and width a tuning tries next, and which may be taken: a search
by coordinates around each arm's best, the same number of points for each arm. No training here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, product
from typing import Literal, NamedTuple

from equivbench.errors import FailedError
from equivbench.specs import ArmSpec

Coordinate = Literal["rate", "batch", "width"]
SEARCHED: Mapping[str, tuple[Coordinate, ...]] = {
    "seconds": ("rate", "batch", "width"),
    "samples": ("rate", "batch"),
    "steps": ("rate",),
}
"""What is searched at a budget of which kind: what costs none of the budget would only grow (a
batch at a budget in steps, a network at one in samples)."""
CLIFF = 2.0
"""A neighbour whose loss is this many times the point's own, or that diverged, is a cliff."""
_STEP: Mapping[Coordinate, tuple[int, int, int]] = {
    "rate": (2, 0, 0),
    "batch": (0, 1, 0),
    "width": (0, 0, 1),
}
_SIDES: Mapping[tuple[Coordinate, int], str] = {
    ("rate", 1): "a higher rate",
    ("rate", -1): "a lower rate",
    ("batch", 1): "a larger batch",
    ("batch", -1): "a smaller batch",
    ("width", 1): "a wider network",
    ("width", -1): "a narrower network",
}
_SHRINKING: tuple[Coordinate, ...] = ("batch", "width")
"""What takes less memory when it is smaller, in the order in which it is tried."""
_MOST_HALVINGS = 8
"""Widths are searched up to a factor of 16 either way."""


class GridPoint(NamedTuple):
    """Half steps of the rate and steps of the batch size and of the width from the declared
    recipe: one step doubles the rate or the batch."""

    rate: int = 0
    batch: int = 0
    width: int = 0

    def moved(self, rate: int = 0, batch: int = 0, width: int = 0) -> GridPoint:
        """The point that far away."""
        return GridPoint(self.rate + rate, self.batch + batch, self.width + width)


class Setup(NamedTuple):
    """What an arm is trained with at a point of its grid."""

    learning_rate: float
    batch_size: int
    width: float
    """Factor on the arm's declared widths."""

    def __str__(self) -> str:
        return f"rate {self.learning_rate:g}, batch {self.batch_size}, width x{self.width:g}"


@dataclass(frozen=True)
class TrialGrid:
    """The points at which an arm may be tried, around its declared recipe."""

    learning_rate: float
    batch_size: int
    widths: Mapping[int, float] = field(default_factory=lambda: {0: 1.0})
    """Factor at each number of steps."""
    searched: tuple[Coordinate, ...] = SEARCHED["seconds"]

    def __contains__(self, point: object) -> bool:
        """Whether there is such a batch size and such a width."""
        return (
            isinstance(point, GridPoint) and point.width in self.widths and self._batch(point) >= 1
        )

    def setup(self, point: GridPoint) -> Setup:
        """What ``point`` stands for; rates have three digits."""
        rate = self.learning_rate * 2 ** (point.rate / 2) if point.rate else self.learning_rate
        return Setup(float(f"{rate:.3g}"), self._batch(point), self.widths[point.width])

    def neighbour(self, point: GridPoint, along: Coordinate, sign: int) -> GridPoint | None:
        """The point one step away; None where the grid ends: a batch of one sample, a network that
        cannot be narrower."""
        found = point.moved(*(sign * each for each in _STEP[along]))
        return found if found in self else None

    def _batch(self, point: GridPoint) -> int:
        if point.batch > 0:
            return self.batch_size << point.batch
        return self.batch_size >> -point.batch


def width_factors(arms: Sequence[ArmSpec], preset: str) -> dict[int, float]:
    """By their number of steps, the factors on the widths of ``arms``: steps of sqrt(2), or of as
    much as it takes to change the network of every arm. The declared size alone where an arm
    declares no widths."""
    factors = {0: 1.0}
    if not all(arm.widths for arm in arms):
        return factors
    for sign in (1, -1):
        width, before = 0, [dict(arm.presets[preset].config) for arm in arms]
        for halvings in range(1, _MOST_HALVINGS + 1):
            factor = float(f"{2 ** (sign * halvings / 2):.4g}")
            configs = [
                {**arm.presets[preset].config, **arm.resized(preset, factor)} for arm in arms
            ]
            if all(new != old for new, old in zip(configs, before, strict=True)):
                width, before = width + sign, configs
                factors[width] = factor
    return factors


class Search:
    """What is known of each arm's grid, and what to try next.

    An arm *stands* at its best point that is not ruled out: one that is lowest along a coordinate
    and has a cliff there. It is settled where a neighbour on both sides along every coordinate is
    measured: each is worse, or ruled out itself.

    Parameters
    ----------
    grids
        Each arm's.
    one_width
        Whether all arms have one factor on their widths, the one with the lowest sum over arms of
        the logarithm of the loss; else each arm has its own.
    """

    def __init__(self, grids: Mapping[str, TrialGrid], *, one_width: bool) -> None:
        self.grids = grids
        self.one_width = one_width
        self.losses: dict[str, dict[GridPoint, float]] = {arm: {} for arm in grids}
        """Infinite where training diverged."""
        self.too_large: dict[str, set[GridPoint]] = {arm: set() for arm in grids}
        """Points that do not fit into the memory of the device: there the grid ends."""

    @property
    def points(self) -> int:
        """How many points each arm has been tried at."""
        return min(map(len, self.losses.values()))

    @property
    def settled(self) -> bool:
        """Whether every arm is."""
        return not any(self.open_questions(arm) for arm in self.grids)

    def next_points(self) -> dict[str, GridPoint]:
        """A point for each arm at which it was not tried yet."""
        return {arm: self._next_point(arm) for arm in self.grids}

    def smaller(self, arm: str, point: GridPoint) -> GridPoint:
        """What ``arm`` tries in place of ``point``, which does not fit into the memory: half
        the batch, or the next narrower network where there is none and widths are its own.

        Raises ``FailedError`` where neither is searched, or there is none that is smaller.
        """
        self.too_large[arm].add(point)
        grid, losses = self.grids[arm], self.losses[arm]
        for along in _SHRINKING[: 1 if self.one_width else 2]:
            found: GridPoint | None = point
            while along in grid.searched and found is not None:
                found = grid.neighbour(found, along, -1)
                if found is not None and found not in losses and self._fits(arm, found):
                    return found
        raise FailedError(
            f"{arm} does not fit into the memory of the device at {grid.setup(point)}, and nothing "
            "smaller is left to try; declare a smaller network or batch"
        )

    def standing(self, arm: str) -> GridPoint | None:
        """The best point of ``arm`` that is not ruled out; None where there is none."""
        return self._best(arm, self._allowed(arm))

    def open_questions(self, arm: str) -> list[str]:
        """Why no point of ``arm`` can be taken yet, in words; empty once it is settled."""
        here, losses, grid = self.standing(arm), self.losses[arm], self.grids[arm]
        if here is not None:
            sides = [
                _SIDES[along, sign]
                for along in grid.searched
                for sign in self._unmeasured(arm, here, along)
            ]
            if sides:
                edge = f"its best point, {grid.setup(here)}, lies at the edge of what was tried"
                return [f"{edge}: {' and '.join(sides)} may be better"]
            undecided = [each for each in self.grids if each != arm and self._width_is_open(each)]
            return [
                f"the width that both arms share is open as long as {each} has not been tried at "
                "its neighbours"
                for each in undecided
            ]
        best = self._best(arm, losses)
        if best is None or math.isinf(losses[best]):
            return ["every trial diverged"]
        return [f"every point is beside a cliff: {self.cliff_at(arm, best)}"]

    def _width_is_open(self, arm: str) -> bool:
        """Whether ``arm`` must yet be tried at other widths before all arms' one is known."""
        if not self.one_width or "width" not in self.grids[arm].searched:
            return False
        here = self.standing(arm)
        return here is None or bool(self._unmeasured(arm, here, "width"))

    def cliff_at(self, arm: str, point: GridPoint) -> str:
        """In words, the cliff that ``point`` is beside."""
        grid, losses = self.grids[arm], self.losses[arm]
        steep = max(self._cliffs(arm, point), key=lambda each: losses[each], default=point)
        there = losses[steep] / losses[point]
        how = f"is {there:.1f} times as bad" if math.isfinite(there) else "diverged"
        return f"{grid.setup(steep)} {how} beside {grid.setup(point)}"

    def _next_point(self, arm: str) -> GridPoint:
        grid, losses = self.grids[arm], self.losses[arm]
        if not losses:
            return GridPoint()
        here = self.standing(arm) or self._best(arm, losses)
        assert here is not None, "every arm was tried at the common width"
        if math.isinf(losses[here]):
            lowest = min(each.rate for each in losses if each[1:] == here[1:])
            return here._replace(rate=lowest).moved(-2)
        missing = [
            found for along in grid.searched if (found := self._unmeasured(arm, here, along))
        ]
        if not missing or self._is_ruled_out(arm, here):
            return self._nearest(arm, here)
        # The coordinate along which the search just moved has one side measured: it goes on there.
        sides = min(missing, key=len)
        return next(iter(sides.values()))

    def _best(self, arm: str, points: Iterable[GridPoint]) -> GridPoint | None:
        """The point of the lowest loss, at the common width where there is one."""
        width = self._common_width() if self.one_width else None
        among = [each for each in points if width is None or each.width == width]
        return min(among, key=lambda each: (self.losses[arm][each], each), default=None)

    def _allowed(self, arm: str) -> list[GridPoint]:
        """Points that are not ruled out and less than twice as bad as the best: more is not given
        up."""
        losses = self.losses[arm]
        lowest: dict[int, float] = {}
        for point, loss in losses.items():
            width = point.width if self.one_width else 0
            lowest[width] = min(loss, lowest.get(width, math.inf))
        return [
            each
            for each, loss in losses.items()
            if loss < CLIFF * lowest[each.width if self.one_width else 0]
            and not self._is_ruled_out(arm, each)
        ]

    def _is_ruled_out(self, arm: str, point: GridPoint) -> bool:
        """Whether ``point`` is beside a cliff for good: on a slope, the side that rises steeply is
        no reason not to look at the other."""
        return any(
            self._cliffs(arm, point, along) and not self._unmeasured(arm, point, along)
            for along in self.grids[arm].searched
        )

    def _cliffs(
        self, arm: str, point: GridPoint, along: Coordinate | None = None
    ) -> list[GridPoint]:
        """Measured points within a step of ``point``, along one coordinate or any, whose loss is at
        least twice its own.

        Along a width that all arms share only divergence is a cliff: there an arm stands on its
        slope for the other's sake.
        """
        losses, grid = self.losses[arm], self.grids[arm]
        found = []
        for each in grid.searched if along is None else (along,):
            sides = [grid.neighbour(point, each, sign) for sign in (1, -1)]
            sides += [point.moved(1), point.moved(-1)] if each == "rate" else []
            steep = math.inf if each == "width" and self.one_width else CLIFF
            found += [
                side
                for side in sides
                if side is not None and losses.get(side, 0.0) >= steep * losses[point]
            ]
        return found

    def _unmeasured(self, arm: str, here: GridPoint, along: Coordinate) -> dict[int, GridPoint]:
        """The neighbours of ``here`` along a coordinate that are not measured, by side.

        A point half a step of the rate off a neighbour stands in for it, unless it lies nearer to
        ``here`` or is a cliff.
        """
        losses, found = self.losses[arm], {}
        for sign in (1, -1):
            side = self.grids[arm].neighbour(here, along, sign)
            if side is None or side in losses or not self._fits(arm, side):
                continue
            nearly = [sign] if along == "rate" else [1, -1]
            known = [losses[each] for off in nearly if (each := side.moved(off)) in losses]
            if not any(loss < CLIFF * losses[here] for loss in known):
                found[sign] = side
        return found

    def _fits(self, arm: str, point: GridPoint) -> bool:
        """Whether nothing as small in batch and width was found too large."""
        return not any(
            point.batch >= each.batch and point.width >= each.width for each in self.too_large[arm]
        )

    def _nearest(self, arm: str, here: GridPoint) -> GridPoint:
        """The nearest point to ``here`` that was not tried: first half a step of the rate away."""
        grid, losses = self.grids[arm], self.losses[arm]

        def distance(point: GridPoint) -> float:
            rate, batch, width = (a - b for a, b in zip(point, here, strict=True))
            return math.hypot(rate / 2, batch, width)

        for radius in count(1):
            batches = range(-radius, radius + 1) if "batch" in grid.searched else (0,)
            wide = "width" in grid.searched and not self.one_width
            widths = range(-radius, radius + 1) if wide else (0,)
            around = (
                here.moved(*by)
                for by in product(range(2 * radius, -2 * radius - 1, -1), batches, widths)
            )
            untried = [
                each
                for each in around
                if each in grid
                and each not in losses
                and self._fits(arm, each)
                and distance(each) <= radius
            ]
            if untried:
                return min(untried, key=distance)
        raise AssertionError("rates have no end")

    def _common_width(self) -> int:
        """The width at which the sum over arms of the logarithm of the best loss is lowest, among
        those that every arm has been tried at."""
        best = {arm: self._best_by_width(arm) for arm in self.grids}
        widths = set.intersection(*(set(each) for each in best.values()))

        def score(width: int) -> tuple[float, int, int]:
            return sum(math.log(each[width]) for each in best.values()), abs(width), width

        return min(widths, key=score, default=0)

    def _best_by_width(self, arm: str) -> dict[int, float]:
        """The lowest loss of points not ruled out at each width; infinite where there is none."""
        found = {point.width: math.inf for point in self.losses[arm]}
        for point in self._allowed(arm):
            found[point.width] = min(found[point.width], self.losses[arm][point])
        return found


def explore(
    search: Search,
    first: int,
    extensions: int,
    measure: Callable[[Mapping[str, GridPoint]], Mapping[str, float | None]],
) -> None:
    """Try every arm at ``first`` points, and at up to ``extensions`` more until all arms are
    settled; ``measure`` gives the loss of each arm at its point, None where it does not fit into
    the device's memory: a smaller one takes its place."""
    while search.points < first or (search.points < first + extensions and not search.settled):
        todo = search.next_points()
        while todo:
            losses = measure(todo)
            known = {arm: loss for arm, loss in losses.items() if loss is not None}
            for arm, loss in known.items():
                search.losses[arm][todo[arm]] = loss
            todo = {arm: search.smaller(arm, todo[arm]) for arm in todo if arm not in known}

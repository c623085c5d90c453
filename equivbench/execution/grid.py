"""The grid that both arms of a pair are tuned on: learning rates on a log scale times batch
sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from equivbench.errors import UsageError

Side = Literal["lower rate", "higher rate", "smaller batch", "larger batch"]
Point = tuple[float, int]
"""(learning rate, batch size)."""
FEWEST_RATES = 4
RATE_STEP = 2.0
BATCH_STEP = 2


@dataclass(frozen=True)
class Grid:
    """Learning rates and batch sizes, each ascending."""

    rates: tuple[float, ...]
    batches: tuple[int, ...]

    @property
    def points(self) -> list[Point]:
        """Every combination."""
        return [(rate, batch) for batch in self.batches for rate in self.rates]

    def edges(self, best: Point) -> list[Side]:
        """The sides on which ``best`` lies at the edge, so that a better point may lie beyond.

        A grid with one batch size does not search it, and no batch is smaller than one sample.
        """
        rate, batch = best
        sides: list[tuple[Side, bool]] = [
            ("lower rate", rate == self.rates[0]),
            ("higher rate", rate == self.rates[-1]),
            (
                "smaller batch",
                len(self.batches) > 1 and batch == self.batches[0] and batch >= BATCH_STEP,
            ),
            ("larger batch", len(self.batches) > 1 and batch == self.batches[-1]),
        ]
        return [side for side, at_edge in sides if at_edge]

    def extended(self, side: Side) -> Grid:
        """This grid with one more step on ``side``."""
        match side:
            case "lower rate":
                return replace(self, rates=(_rounded(self.rates[0] / RATE_STEP), *self.rates))
            case "higher rate":
                return replace(self, rates=(*self.rates, _rounded(self.rates[-1] * RATE_STEP)))
            case "smaller batch":
                return replace(self, batches=(self.batches[0] // BATCH_STEP, *self.batches))
            case "larger batch":
                return replace(self, batches=(*self.batches, self.batches[-1] * BATCH_STEP))


def first_grid(rates: Sequence[float], batches: Sequence[int], trials: int) -> Grid:
    """A grid of ``trials`` points around the geometric mean of what the arms use now.

    As many batch sizes (up to three) as divide ``trials`` and leave at least four learning rates.
    Raises :class:`UsageError` for fewer than four trials.
    """
    if trials < FEWEST_RATES:
        raise UsageError(
            f"--trials must be at least {FEWEST_RATES}, the fewest learning rates that make a grid, not {trials}"
        )
    if trials > 400:
        raise UsageError(f"--trials {trials} is more than the 400 that an arm may have")
    wide = next(
        count for count in (3, 2, 1) if trials % count == 0 and trials // count >= FEWEST_RATES
    )
    rate = math.exp(sum(map(math.log, rates)) / len(rates))
    batch = 2 ** round(sum(map(math.log2, batches)) / len(batches))
    count = trials // wide
    return Grid(
        tuple(_rounded(rate * RATE_STEP ** (k - count // 2)) for k in range(count)),
        tuple(max(1, batch // BATCH_STEP) * BATCH_STEP**k for k in range(wide))
        if wide > 1
        else (batch,),
    )


def best_point(losses: Mapping[Point, float | None]) -> Point | None:
    """The point of the lowest loss (None: the trial diverged), or None if none has one; ties go to
    the smaller rate."""
    known = {point: loss for point, loss in losses.items() if loss is not None}
    return min(known, key=lambda point: (known[point], point)) if known else None


def _rounded(rate: float) -> float:
    return float(f"{rate:.3g}")

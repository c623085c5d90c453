"""What a tuning searches and what it keeps: the grid of learning rates and batch sizes that both
arms are tuned on, and the log of the trials, a JSON line each."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import msgspec

from equivbench.errors import FailedError, UsageError
from equivbench.specs import Recipe

Edge = Literal["lower rate", "higher rate", "smaller batch", "larger batch"]
Point = tuple[float, int]
"""(learning rate, batch size)."""
FEWEST_RATES = 4
RATE_STEP = 2.0
BATCH_STEP = 2


@dataclass(frozen=True)
class SearchGrid:
    """Learning rates and batch sizes, each ascending."""

    rates: tuple[float, ...]
    batches: tuple[int, ...]

    @property
    def points(self) -> list[Point]:
        """Every combination."""
        return [(rate, batch) for batch in self.batches for rate in self.rates]

    def edges(self, best: Point) -> list[Edge]:
        """The sides on which ``best`` lies at the edge, so that a better point may lie beyond.

        A grid with one batch size does not search it, and no batch is smaller than one sample.
        """
        rate, batch = best
        sides: list[tuple[Edge, bool]] = [
            ("lower rate", rate == self.rates[0]),
            ("higher rate", rate == self.rates[-1]),
            (
                "smaller batch",
                len(self.batches) > 1 and batch == self.batches[0] and batch >= BATCH_STEP,
            ),
            ("larger batch", len(self.batches) > 1 and batch == self.batches[-1]),
        ]
        return [side for side, at_edge in sides if at_edge]

    def extended(self, side: Edge) -> SearchGrid:
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


def first_grid(rates: Sequence[float], batches: Sequence[int], trials: int) -> SearchGrid:
    """A grid of ``trials`` points around the geometric mean of what the arms use now.

    As many batch sizes (up to three) as divide ``trials`` and leave at least four learning rates.
    Raises :class:`UsageError` for fewer than four trials.
    """
    if trials < FEWEST_RATES:
        raise UsageError(
            f"--trials must be at least {FEWEST_RATES}, "
            f"the fewest learning rates that make a grid, not {trials}"
        )
    if trials > 400:
        raise UsageError(f"--trials {trials} is more than the 400 that an arm may have")
    wide = next(
        count for count in (3, 2, 1) if trials % count == 0 and trials // count >= FEWEST_RATES
    )
    rate = math.exp(sum(map(math.log, rates)) / len(rates))
    batch = 2 ** round(sum(map(math.log2, batches)) / len(batches))
    count = trials // wide
    return SearchGrid(
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


class Trial(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One arm trained once with one learning rate and batch size, judged on the validation
    split."""

    pair: str
    arm: str
    preset: str
    learning_rate: float
    batch_size: int
    seed: int
    budget: str
    device: str
    threads: int
    status: Literal["completed", "diverged"]
    reason: str | None
    total: float | None
    """Board metric on the validation split at the end of the budget, averaged weights; null where
    it diverged."""
    explained: float | None
    share: float | None
    steps: int
    seconds: float | None
    """Seconds of training (train + data)."""
    config: dict[str, Any]
    """The model's."""
    recipe: dict[str, Any]
    """The rest of the recipe, alike in all trials of the arm."""

    @property
    def point(self) -> Point:
        """(learning rate, batch size)."""
        return (self.learning_rate, self.batch_size)


class TrialLog:
    """The trials in the file ``path``; a last line cut short by a crash is dropped.

    Raises ``FailedError`` if the file cannot be read or holds something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.trials: list[Trial] = []
        try:
            lines = path.read_bytes().split(b"\n") if path.exists() else [b""]
            self.trials = [msgspec.json.decode(line, type=Trial) for line in lines[:-1]]
            if lines[-1]:
                with open(path, "r+b") as file:
                    file.truncate(sum(len(line) + 1 for line in lines[:-1]))
        except OSError as error:
            raise FailedError(f"cannot read the tuning log {path}: {error.strerror}") from error
        except msgspec.DecodeError as error:
            raise FailedError(
                f"{path} is not a tuning log: {error}; move it away or use --fresh"
            ) from error

    def add(self, trial: Trial) -> None:
        """Append ``trial``, on disk before this returns; raises ``FailedError`` if the disk
        refuses."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "ab") as file:
                file.write(msgspec.json.encode(trial) + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise FailedError(
                f"cannot write the tuning log {self.path}: {error.strerror}"
            ) from error
        self.trials.append(trial)

    def require_same_study(self, trial: Trial) -> None:
        """Raise ``UsageError`` if the log's trials of this arm were made under other settings than
        ``trial``."""
        ours = _study(trial)
        for theirs in (_study(other) for other in self.trials if other.arm == trial.arm):
            differing = ", ".join(name for name in ours if ours[name] != theirs[name])
            if differing:
                raise UsageError(
                    f"{self.path} holds trials with another {differing}; --fresh starts a new log"
                )

    def sha256(self) -> str:
        """Digest of the file."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


def _rounded(rate: float) -> float:
    return float(f"{rate:.3g}")


def _study(trial: Trial) -> dict[str, Any]:
    names = ("pair", "preset", "arm", "seed", "budget", "device", "threads", "config")
    # A log from before a recipe had a field was made under what is now its default.
    defaults = {
        field.name: field.default for field in fields(Recipe) if field.default is not MISSING
    }
    return {name: getattr(trial, name) for name in names} | {"recipe": defaults | trial.recipe}

"""One arm's training under its budget: the loop, its evaluations, and what a record needs of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from equivbench.training.budget import Budget
from equivbench.training.outcome import Outcome

Progress = dict[str, Any]
"""step, samples, spent, limit, fraction, loss, samples_per_second, seconds_left, total, share, explained, phase."""


class Trainer:
    """Trains one arm with one seed. SKELETON: signatures are final, bodies follow.

    The clock runs only inside the methods below; the time between two calls belongs to the other arm.
    Call order in a worker: ``build_trainer(job)`` [``restore()`` is called there when ``job.resume``], ``prepare()``,
    ``train_slice(...)`` until ``finished``, ``time_steps(...)`` in alternation with the other arm, ``finalise()``.
    """

    finished: bool
    """The budget is spent and the last evaluation made, or the arm diverged."""
    diverged: str | None
    """Why the arm diverged (NaN or inf loss, gradient norm or evaluation), else None."""
    restarts: int
    lost_seconds: float
    notes: list[str]
    """Lines for the user: no C++ compiler, a checkpoint that could not be read, ..."""

    def prepare(self) -> None:
        """Compile and check gradients (clock parts ``compile`` and ``other``), run once; ``FailedError`` on a mismatch."""
        raise NotImplementedError

    def train_slice(self, seconds: float, report: Callable[[Progress], None] | None = None) -> None:
        """Train until ``seconds`` more of train + data are spent, the arm is finished, or ``stop()`` was called.

        ``report`` gets :meth:`progress` about twice a second and after each evaluation.
        """
        raise NotImplementedError

    def stop(self) -> None:
        """End the slice under way after the step at hand (safe to call from a signal handler)."""
        raise NotImplementedError

    def progress(self) -> Progress:
        """Where the run stands, as plain JSON data."""
        raise NotImplementedError

    def time_steps(self, seconds: float) -> list[float]:
        """Seconds of each of at least one real training step (data + train), off the budget; state is left untouched."""
        raise NotImplementedError

    def extend(self, budget: Budget) -> None:
        """Go on to a larger ``budget`` of the same kind; evaluations continue log-spaced. ``finished`` becomes False."""
        raise NotImplementedError

    def save(self, path: Path | None = None) -> Path:
        """Write a checkpoint (by default in the job's ``state_dir``, keeping the previous one); returns its path."""
        raise NotImplementedError

    def restore(self, path: Path | None = None) -> bool:
        """Go back, weights and clock together, to the last readable checkpoint; False if there is nothing to resume."""
        raise NotImplementedError

    def finalise(self, inference_seconds: float = 0.5) -> Outcome:
        """Evaluate the raw weights, time inference and twirling, and return everything that a record needs."""
        raise NotImplementedError

    def outcome(self) -> Outcome:
        """What is known so far (an interrupted or diverged run), without further measurement."""
        raise NotImplementedError

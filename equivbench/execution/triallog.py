"""The log of a pair's tuning: a JSON line a trial, written as trials end, kept beside the
results."""

from __future__ import annotations

import hashlib
import os
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, Literal

import msgspec

from equivbench.errors import FailedError, UsageError
from equivbench.execution.grid import Point
from equivbench.specs import Recipe


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

    def same_study(self, other: Trial) -> bool:
        """Whether both belong to one study: everything alike but the point and what came of it."""
        return _study(self) == _study(other)


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
        for other in self.trials:
            if other.arm == trial.arm and not other.same_study(trial):
                ours, theirs = _study(trial), _study(other)
                differing = ", ".join(name for name in ours if ours[name] != theirs[name])
                raise UsageError(
                    f"{self.path} holds trials with another {differing}; --fresh starts a new log"
                )

    def sha256(self) -> str:
        """Digest of the file."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


def _study(trial: Trial) -> dict[str, Any]:
    names = ("pair", "preset", "arm", "seed", "budget", "device", "threads", "config")
    # A log from before a recipe had a field was made under what is now its default.
    defaults = {
        field.name: field.default for field in fields(Recipe) if field.default is not MISSING
    }
    return {name: getattr(trial, name) for name in names} | {"recipe": defaults | trial.recipe}

"""What a tuning keeps: a log with a JSON line for each trial, and for each arm's choice."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from equivbench.errors import FailedError
from equivbench.execution.search import Setup

WidthFor = Literal["both arms", "each arm", "neither arm"]
"""For whom a factor on the widths was sought."""
TOO_LARGE: Final = "out of memory"
"""The status of a trial that did not fit into the memory of its device."""


class Trial(
    msgspec.Struct,
    kw_only=True,
    frozen=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="trial",
):
    """One arm trained once with one seed, learning rate, batch size and width, judged on the
    validation split."""

    pair: str
    arm: str
    preset: str
    learning_rate: float
    batch_size: int
    width: float
    """Factor on the arm's declared widths."""
    seed: int
    budget: str
    device: str
    threads: int
    status: Literal["completed", "diverged", "out of memory"]
    reason: str | None
    total: float | None
    """Board metric on the validation split at the end of the budget, annealed weights; null where
    it diverged or did not fit into the memory of its device."""
    explained: float | None
    share: float | None
    steps: int
    seconds: float | None
    """Seconds of training (train + data)."""
    config: dict[str, Any]
    """The model's."""
    recipe: dict[str, Any]
    """The rest of the recipe, alike in all trials of the arm."""
    busy: str | None = None
    """What kept the trial from its machine: its loss is then that of a smaller budget."""
    machine: str | None = None
    """The kind of machine, as records name it: a second is not as many steps on another. Null
    where an engine chose it, and in logs from before it was kept."""

    @property
    def setup(self) -> Setup:
        """What was tried."""
        return Setup(self.learning_rate, self.batch_size, self.width)


class Choice(
    msgspec.Struct,
    kw_only=True,
    frozen=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="choice",
):
    """What was chosen for one arm, and why."""

    arm: str
    learning_rate: float
    batch_size: int
    width: float
    config: dict[str, Any]
    """The entries of the model's config that the width changes."""
    loss: float
    """Geometric mean over the seeds."""
    seeds: list[int]
    points: int
    """At which each arm was tried."""
    width_for: WidthFor
    given_up: str | None
    """Why a point of lower loss was not chosen."""

    @property
    def setup(self) -> Setup:
        """What was chosen."""
        return Setup(self.learning_rate, self.batch_size, self.width)


class TrialLog:
    """The lines in the file ``path``; a last line cut short by a crash is dropped.

    Raises ``FailedError`` if the file cannot be read or holds something else, such as trials from
    before a width was searched.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.trials: list[Trial] = []
        self._choices: dict[str, Choice] = {}
        """The last of each arm."""
        try:
            lines = path.read_bytes().split(b"\n") if path.exists() else [b""]
            for line in lines[:-1]:
                self._keep(msgspec.json.decode(line, type=Trial | Choice))
            if lines[-1]:
                with open(path, "r+b") as file:
                    file.truncate(sum(len(line) + 1 for line in lines[:-1]))
        except OSError as error:
            raise FailedError(f"cannot read the tuning log {path}: {error.strerror}") from error
        except msgspec.DecodeError as error:
            raise FailedError(
                f"{path} is not a tuning log of this version of equivbench ({error}); "
                "move it away or use --fresh"
            ) from error

    def add(self, line: Trial | Choice) -> None:
        """Append ``line``, on disk before this returns; a choice that stands already is not
        repeated.

        Raises ``FailedError`` if the disk refuses.
        """
        if isinstance(line, Choice) and self._choices.get(line.arm) == line:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "ab") as file:
                file.write(msgspec.json.encode(line) + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise FailedError(
                f"cannot write the tuning log {self.path}: {error.strerror}"
            ) from error
        self._keep(line)

    def sha256(self) -> str:
        """Digest of the file."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    def _keep(self, line: Trial | Choice) -> None:
        if isinstance(line, Trial):
            self.trials.append(line)
        else:
            self._choices[line.arm] = line

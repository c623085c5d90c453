"""Keeping a run: its checkpoints and heartbeat in one folder, when they are written, and going back
to them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from torch import Tensor

from equivbench.budget import Budget
from equivbench.errors import FailedError
from equivbench.training.checkpoint import SNAPSHOTS, Checkpoints, Snapshots
from equivbench.training.clock import Clock
from equivbench.training.heartbeat import Beat, Heartbeat
from equivbench.training.schedule import checkpoint_due
from equivbench.training.state import Facts, put_back


class Keeper:
    """Keeps the run that ``identity`` describes in ``folder``."""

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self.folder = folder
        self.checkpoints = Checkpoints(folder)
        self.snapshots = Snapshots(folder / SNAPSHOTS)
        self.heartbeat = Heartbeat(
            folder / "heartbeat", msgspec.json.encode(identity, order="deterministic").decode()
        )
        self._saved_spent = 0.0
        self._saved_seconds = 0.0
        self._cost = 0.0

    def beat(self, facts: Facts, clock: Clock) -> None:
        """Leave word of how far the run has got, in case it is killed."""
        self.heartbeat.write(Beat(facts.step, facts.restarts, facts.lost_seconds, clock.seconds()))

    def due(self, budget: Budget, spent: float, clock: Clock) -> bool:
        """Whether it is time to :meth:`save`, with ``spent`` of ``budget`` (in its unit) spent."""
        return checkpoint_due(
            budget, spent - self._saved_spent, clock.spent - self._saved_seconds, self._cost
        )

    def save(self, tensors: Mapping[str, Tensor], facts: Facts, clock: Clock, spent: float) -> Path:
        """Write a checkpoint, in clock part ``checkpoint``; returns its path."""
        before = clock.seconds()["checkpoint"]
        with clock.part("checkpoint"):
            path = self.checkpoints.write(
                tensors, msgspec.structs.replace(facts, clock={**clock.seconds()})
            )
        self._cost = clock.seconds()["checkpoint"] - before
        self.saved(spent, clock)
        return path

    def snapshot(self, tensors: Mapping[str, Tensor], facts: Facts, clock: Clock) -> Path:
        """Keep the weights among ``tensors`` as those of this step, in clock part ``checkpoint``;
        returns their path."""
        with clock.part("checkpoint"):
            return self.snapshots.write(tensors, facts)

    def saved(self, spent: float, clock: Clock) -> None:
        """Count from here to the next checkpoint."""
        self._saved_spent, self._saved_seconds = spent, clock.spent

    def restore(
        self, tensors: Mapping[str, Tensor], facts: Facts, clock: Clock, notes: list[str]
    ) -> Facts | None:
        """Put the last readable checkpoint back into ``tensors`` and ``clock``; returns its facts.

        What was done since that checkpoint, in this and earlier restarts, is added to
        ``lost_seconds``; the time since this process started stays on the clock. Without a
        checkpoint but with a heartbeat the run starts again from nothing, its losses counted; with
        neither, None. Raises ``FailedError`` where the checkpoint is another run's or none can be
        read.
        """
        beat = self.heartbeat.read()
        checkpoint = self.checkpoints.read(notes)
        if beat is None and checkpoint is None:
            return None
        found = facts if checkpoint is None else checkpoint.facts
        if checkpoint is not None:
            self._check_identity(facts.identity, found.identity)
            put_back(tensors, checkpoint.tensors)
        # With a budget in seconds the evaluations to come fall on other steps than those that are
        # lost.
        self.snapshots.clear(after=found.step)
        clock.set({**found.clock, "other": found.clock.get("other", 0.0) + clock.wall})
        if beat is not None:
            found.lost_seconds = beat.lost_seconds + max(0.0, beat.spent - clock.spent)
            found.restarts = beat.restarts
        found.restarts += not found.finished
        return found

    def clear(self) -> None:
        """Forget what an earlier run left here."""
        self.checkpoints.clear()
        self.snapshots.clear()
        self.heartbeat.clear()

    def _check_identity(self, wanted: Mapping[str, Any], found: Mapping[str, Any]) -> None:
        differing = sorted(
            key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key)
        )
        if differing:
            raise FailedError(
                f"the checkpoint in {self.folder} belongs to another run (it differs in {', '.join(differing)}); "
                "run without --resume to start afresh"
            )

"""Keeps a run in its folder: a heartbeat each step, a checkpoint now and then, and going back to
them after a crash, with the lost work counted."""

from __future__ import annotations

import hashlib
import math
import os
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from torch import Tensor

from equivbench.budget import Budget
from equivbench.errors import FailedError
from equivbench.training.checkpoint import SNAPSHOTS, Checkpoints, Facts, Snapshots, put_back
from equivbench.training.clock import PARTS, Clock, ClockPart

_FORM = struct.Struct(f"<8sqqd{len(PARTS)}d")
_CHECK = struct.Struct("<I")


@dataclass(frozen=True)
class Beat:
    """The last heartbeat: the step reached, the clock's parts, and the restarts and losses counted
    before it."""

    step: int
    restarts: int
    lost_seconds: float
    clock: Mapping[ClockPart, float]

    @property
    def spent(self) -> float:
        """Seconds charged to the budget."""
        return self.clock["train"] + self.clock["data"]


class Heartbeat:
    """The heartbeat file of one run (``owner``: bytes that tell this run from others in the same
    folder).

    A beat survives the death of the process at any moment (one ``pwrite`` of under a page); it is
    not synced to disk, so a power cut may lose the last ones, and with them a part of
    ``lost_seconds``.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self._path = path
        self._owner = hashlib.blake2b(identity.encode(), digest_size=8).digest()
        self._file: int | None = None

    def write(self, beat: Beat) -> None:
        """Overwrite the beat; a ``FailedError`` says why it cannot be written."""
        body = _FORM.pack(
            self._owner,
            beat.step,
            beat.restarts,
            beat.lost_seconds,
            *(beat.clock[part] for part in PARTS),
        )
        try:
            if self._file is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            os.pwrite(self._file, body + _CHECK.pack(zlib.crc32(body)), 0)
        except OSError as error:
            raise FailedError(
                f"cannot write the heartbeat {self._path}: {error.strerror}"
            ) from error

    def read(self) -> Beat | None:
        """The last beat of this run, or None where there is none that can be read."""
        try:
            data = self._path.read_bytes()
        except OSError:
            return None
        if len(data) != _FORM.size + _CHECK.size or _CHECK.unpack_from(data, _FORM.size)[
            0
        ] != zlib.crc32(data[: _FORM.size]):
            return None
        owner, step, restarts, lost_seconds, *clock = _FORM.unpack_from(data)
        return (
            Beat(step, restarts, lost_seconds, dict(zip(PARTS, clock, strict=True)))
            if owner == self._owner
            else None
        )

    def clear(self) -> None:
        """Forget the beats of an earlier run: this one starts fresh."""
        self._path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


class Keeper:
    """Keeps the run that ``identity`` describes in ``folder``."""

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self.folder = folder
        self.checkpoints = Checkpoints(folder)
        self.snapshots = Snapshots(folder / SNAPSHOTS)
        self.heartbeat = Heartbeat(
            folder / "heartbeat", msgspec.json.encode(identity, order="deterministic").decode()
        )
        self._saved_spent = 0.0  # at the last checkpoint, in the budget's unit
        self._saved_seconds = 0.0  # at the last checkpoint, of train + data
        self._cost = 0.0  # seconds that writing the last checkpoint took

    def beat(self, facts: Facts, clock: Clock) -> None:
        """Write how far the run has got, so that a kill loses work but not its count."""
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
                f"the checkpoint in {self.folder} belongs to another run (it differs in "
                f"{', '.join(differing)}); run without --resume to start afresh"
            )


def checkpoint_due(
    budget: Budget, spent_since: float, seconds_since: float, save_seconds: float
) -> bool:
    """Whether to save: ten times over a budget of steps or samples, and each 10 s, but never at
    more than 2% of the time.

    ``spent_since`` (the budget's unit) and ``seconds_since`` count from the last save, which took
    ``save_seconds``.
    """
    if budget.kind != "seconds" and spent_since >= math.ceil(budget.limit / 10):
        return True
    return seconds_since >= max(10.0, 50.0 * save_seconds)

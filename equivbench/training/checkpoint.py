"""Everything that a run is at a step, and the folder that keeps it: a heartbeat each step, a
checkpoint now and then, snapshots, and going back to them after a crash with the lost work counted.

A checkpoint is one safetensors file, safe to load (no pickle), written atomically, the previous one
kept.
"""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from equivbench.budget import Budget
from equivbench.errors import FailedError
from equivbench.measure.measurement import Verdict
from equivbench.records.files import write_atomically
from equivbench.records.schema import Rung, Test, TracePoint
from equivbench.training.clock import SPENT, Clock, ClockPart
from equivbench.training.heartbeat import HEARTBEAT, Beat, Heartbeat
from equivbench.training.optim import put_back

FORMAT = "equivbench-checkpoint-2"
CURRENT, PREVIOUS = "checkpoint.safetensors", "checkpoint.previous.safetensors"
TRUNK = "trunk.safetensors"
"""The run where its last cooldown begins: what an extension goes on from."""
SNAPSHOTS = "snapshots"
"""Folder, beside a run's checkpoints, of the weights kept from along it."""
WEIGHTS = ("model.", "ema.")
"""How the names of tensors begin that are weights, not the optimiser's state."""


class Facts(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The part of a run's state that is not tensors. There is no generator state: see
    ``training.data``."""

    identity: dict[str, Any]
    """What must agree for a checkpoint to belong to a run."""
    job: dict[str, Any]
    """The :class:`equivbench.training.job.Job` that wrote it, for rebuilding the model."""
    step: int = 0
    samples: int = 0
    clock: dict[str, float] = {}
    budget: str
    extends: str | None = None
    rungs: list[Rung] = []
    """Annealed results so far; the last is that of the whole budget once the run is finished."""
    rungs_left: list[float] = []
    """Smaller budgets that are to be measured yet, ascending."""
    trace: list[TracePoint] = []
    cools_from: int | None = None
    """The step at which the last cooldown began; None before."""
    final: Test | None = None
    final_on_part: Test | None = None
    final_raw: Test | None = None
    final_ema: Test | None = None
    verdict: Verdict | None = None
    """On the symmetry, of ``final``."""
    diverged: str | None = None
    restarts: int = 0
    lost_seconds: float = 0.0
    joules: float | None = None
    machine: dict[str, float] = {}
    """Sums of :class:`equivbench.training.machine_share.MachineMeter`."""
    peak_memory: int = 0
    """Bytes on the device while training (:class:`equivbench.training.memory.MemoryMeter`)."""

    @property
    def finished(self) -> bool:
        """The budget is spent and the last evaluation made, or the arm diverged."""
        return self.diverged is not None or self.final is not None

    @property
    def latest(self) -> Test | None:
        """The last evaluation, if there was one."""
        points: list[TracePoint | Rung] = [*self.trace[-1:], *self.rungs[-1:]]
        return max(points, key=lambda point: point.step).test if points else None


@dataclass(frozen=True)
class Checkpoint:
    """A run at one step, read from ``path``: tensors on the host and the facts beside them."""

    path: Path
    tensors: dict[str, Tensor]
    facts: Facts

    def weights(self, kind: str = "ema") -> dict[str, Tensor]:
        """A state dict for the model: averaged weights (``ema``) over the raw ones (``model``),
        buffers included."""
        return {
            name.removeprefix(f"{part}."): tensor
            for part in dict.fromkeys(("model", kind))
            for name, tensor in self.tensors.items()
            if name.startswith(f"{part}.")
        }


def write_checkpoint(
    folder: Path, tensors: Mapping[str, Tensor], facts: Facts, name: str = CURRENT
) -> Path:
    """Write the checkpoint ``name`` of the run in ``folder``, whole or not at all; what was current
    becomes the previous one. A disk that refuses is a ``FailedError`` and leaves the old ones
    alone."""
    current, partial = folder / name, folder / f"{name}.{os.getpid()}.partial"
    content = _encoded(tensors, facts)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if name == CURRENT and current.exists():
            os.replace(current, folder / PREVIOUS)
        os.replace(partial, current)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise FailedError(
            f"cannot write a checkpoint in {folder}: {error.strerror}; "
            "the checkpoint before it is intact, so free some space and run again with --resume"
        ) from error
    return current


def last_checkpoint(folder: Path, warnings: list[str]) -> Checkpoint | None:
    """The newest checkpoint in ``folder`` that can be read, None where there is none at all. A line
    in ``warnings`` says that one is cut short or foreign; if all are, it is a ``FailedError``."""
    problems: list[str] = []
    for path in (folder / CURRENT, folder / PREVIOUS):
        if not path.exists():
            continue
        try:
            checkpoint = read_checkpoint(path)
        except FailedError as error:
            problems.append(str(error))
            continue
        warnings.extend(
            f"{problem}; went back to the previous checkpoint, at step {checkpoint.facts.step}"
            for problem in problems
        )
        return checkpoint
    if problems:
        raise FailedError(f"{' and '.join(problems)}; delete {folder} to start this run again")
    return None


def write_snapshot(folder: Path, tensors: Mapping[str, Tensor], facts: Facts) -> None:
    """Keep the raw and averaged weights of this step, for analyses afterwards."""
    kept = {name: tensor for name, tensor in tensors.items() if name.startswith(WEIGHTS)}
    path = folder / SNAPSHOTS / f"step-{facts.step:09d}.safetensors"
    write_atomically(path, _encoded(kept, facts))


def snapshots_in(folder: Path) -> list[Path]:
    """The snapshots of the run in ``folder``, in order of their steps."""
    return sorted((folder / SNAPSHOTS).glob("step-*.safetensors"))


def step_of(snapshot: Path) -> int:
    """The step that a snapshot's file is named for."""
    return int(snapshot.stem.removeprefix("step-"))


def read_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint at ``path``; raises ``FailedError`` where it is missing, cut short, damaged or
    something else."""
    try:
        # One read of the whole file: safe_open goes by the name again for each tensor, and a run
        # may put a newer file there.
        content = path.read_bytes()
        tensors = safetensors.torch.load(content)
        header = msgspec.json.decode(content[8 : 8 + int.from_bytes(content[:8], "little")])
        metadata = header.get("__metadata__", {})
        if metadata.get("format") != FORMAT:
            raise FailedError(f"{path} is not a checkpoint of this version of equivbench")
        facts = msgspec.json.decode(metadata["facts"], type=Facts)
    except (OSError, safetensors.SafetensorError, msgspec.MsgspecError, KeyError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise FailedError(f"cannot read the checkpoint {path} ({reason})") from error
    if metadata.get("crc32") != f"{_checksum(tensors):08x}":
        raise FailedError(f"cannot read the checkpoint {path} (its checksum is wrong)")
    return Checkpoint(path, tensors, facts)


def _encoded(tensors: Mapping[str, Tensor], facts: Facts) -> bytes:
    # One contiguous host copy each: safetensors refuses views and shared storage.
    host = {
        name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()
    }
    metadata = {
        "format": FORMAT,
        "crc32": f"{_checksum(host):08x}",
        "facts": msgspec.json.encode(facts).decode(),
    }
    return safetensors.torch.save(host, metadata)


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    """CRC-32 over the tensors' bytes, in order of their names."""
    value = 0
    for name in sorted(tensors):
        value = zlib.crc32(
            tensors[name].reshape(-1).view(torch.uint8).numpy().data,
            zlib.crc32(name.encode(), value),
        )
    return value


_TRAINED: tuple[ClockPart, ...] = (*SPENT, "rungs")
"""Parts of the clock that hold steps, which a run repeats after a crash."""


class Keeper:
    """Keeps the run that ``identity`` describes in ``folder``."""

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self.folder = folder
        self.heartbeat = Heartbeat(
            folder / HEARTBEAT, msgspec.json.encode(identity, order="deterministic")
        )
        self._saved_spent = 0.0  # at the last checkpoint, in the budget's unit
        self._saved_seconds = 0.0  # at the last checkpoint, of train + data
        self._cost = 0.0  # seconds that writing the last checkpoint took

    def beat(self, facts: Facts, clock: Clock, step: int | None = None) -> None:
        """Write how far the run has got, so that a kill loses work but not its count; ``step``
        where that is not the one of ``facts``."""
        at = facts.step if step is None else step
        self.heartbeat.write(Beat(at, facts.restarts, facts.lost_seconds, clock.seconds()))

    def due(self, budget: Budget, spent: float, clock: Clock) -> bool:
        """Whether it is time to :meth:`save`, with ``spent`` of ``budget`` (in its unit) spent."""
        return checkpoint_due(
            budget, spent - self._saved_spent, clock.spent - self._saved_seconds, self._cost
        )

    def save(
        self,
        tensors: Mapping[str, Tensor],
        facts: Facts,
        clock: Clock,
        spent: float,
        name: str = CURRENT,
    ) -> Path:
        """Write the checkpoint ``name``, in clock part ``checkpoint``; returns its path."""
        before = clock.seconds()["checkpoint"]
        with clock.part("checkpoint"):
            now = msgspec.structs.replace(facts, clock={**clock.seconds()})
            path = write_checkpoint(self.folder, tensors, now, name)
        if name == CURRENT:
            self._cost = clock.seconds()["checkpoint"] - before
            self.saved(spent, clock)
        return path

    def saved(self, spent: float, clock: Clock) -> None:
        """Count from here to the next checkpoint."""
        self._saved_spent, self._saved_seconds = spent, clock.spent

    def restore(
        self, tensors: Mapping[str, Tensor], facts: Facts, clock: Clock, notes: list[str]
    ) -> Facts | None:
        """Put the last readable checkpoint back into ``tensors`` and ``clock``; returns its facts.

        What was done since that checkpoint is added to ``lost_seconds``; the time since this
        process started stays on the clock. Without a checkpoint but with a heartbeat the run starts
        again from nothing, its losses counted; with neither, None. Raises ``FailedError`` where the
        checkpoint is another run's.
        """
        beat = self.heartbeat.read()
        checkpoint = last_checkpoint(self.folder, notes)
        if beat is None and checkpoint is None:
            return None
        found = facts if checkpoint is None else checkpoint.facts
        if checkpoint is not None:
            wanted, its = facts.identity, found.identity
            differing = [
                key for key in wanted.keys() | its.keys() if wanted.get(key) != its.get(key)
            ]
            if differing:
                raise FailedError(
                    f"the checkpoint in {self.folder} belongs to another run (it differs in "
                    f"{', '.join(sorted(differing))}); run without --resume to start afresh"
                )
            put_back(tensors, checkpoint.tensors)
        # With a budget in seconds the evaluations to come fall on other steps than those that are
        # lost.
        self._clear_snapshots(found.step)
        clock.set({**found.clock, "other": found.clock.get("other", 0.0) + clock.wall})
        if beat is not None:
            now = clock.seconds()
            lost = sum(beat.clock[part] - now[part] for part in _TRAINED)
            found.lost_seconds = beat.lost_seconds + max(0.0, lost)
            found.restarts = beat.restarts
        found.restarts += not found.finished
        return found

    def clear(self) -> None:
        """Forget what an earlier run left here."""
        for pattern in (CURRENT, PREVIOUS, TRUNK, "*.partial"):
            for path in self.folder.glob(pattern):
                path.unlink(missing_ok=True)
        self._clear_snapshots(-1)
        self.heartbeat.clear()

    def _clear_snapshots(self, after: int) -> None:
        for path in snapshots_in(self.folder):
            if step_of(path) > after:
                path.unlink(missing_ok=True)


def checkpoint_due(
    budget: Budget, spent_since: float, seconds_since: float, save_seconds: float
) -> bool:
    """Whether to save: ten times over a budget of steps or samples, and each 10 s, but never at
    more than 2% of the time. What is spent counts from the last save, which took
    ``save_seconds``."""
    if budget.kind != "seconds" and spent_since >= math.ceil(budget.limit / 10):
        return True
    return seconds_since >= max(10.0, 50.0 * save_seconds)

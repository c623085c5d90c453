"""Everything that a run is at a step, and the file that holds it: one safetensors file, safe to
load (no pickle), written atomically, the previous one kept."""

from __future__ import annotations

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
from torch import Tensor, nn

from equivbench.errors import FailedError
from equivbench.measure.measurement import Measurement
from equivbench.records.files import write_atomically
from equivbench.records.schema import GroupErrors, Test, TracePoint
from equivbench.training.optim import Average, named_state

FORMAT = "equivbench-checkpoint-1"
CURRENT, PREVIOUS = "checkpoint.safetensors", "checkpoint.previous.safetensors"
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
    points: list[float]
    """Spent budget of the evaluations still to come."""
    trace: list[TracePoint] = []
    groups: GroupErrors = msgspec.field(
        default_factory=lambda: GroupErrors(weights=[], total=[], equivariance=[])
    )
    verified: bool | None = None
    """Whether the declared symmetry held at the last evaluation."""
    diverged: str | None = None
    restarts: int = 0
    lost_seconds: float = 0.0
    joules: float | None = None

    @property
    def finished(self) -> bool:
        """The budget is spent and the last evaluation made, or the arm diverged."""
        return self.diverged is not None or not self.points

    @property
    def final(self) -> Test | None:
        """The last evaluation, if there was one."""
        return self.trace[-1].test if self.trace else None

    def add(self, measurement: Measurement, train_seconds: float) -> None:
        """Append one evaluation, made after ``train_seconds`` of train + data."""
        self.trace.append(
            TracePoint(
                step=self.step,
                samples=self.samples,
                train_seconds=train_seconds,
                test=measurement.to_record(),
            )
        )
        self.groups.weights = measurement.group_weights.tolist()
        self.groups.total.append(measurement.group_total.tolist())
        self.groups.equivariance.append(measurement.group_equivariance.tolist())


def live_tensors(
    model: nn.Module, average: Average, optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """Weights, buffers, averaged weights and optimiser state by name; writing into them changes the
    run."""
    saved = model.state_dict().keys()
    buffers = {name: buffer for name, buffer in model.named_buffers() if name in saved}
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    parts: dict[str, Mapping[str, Tensor]] = {
        "model": {**weights, **buffers},
        "ema": average.average,
        "optimizer": named_state(optimizer, model),
    }
    return {
        f"{part}.{name}": tensor
        for part, tensors in parts.items()
        for name, tensor in tensors.items()
    }


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies, on the same device."""
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def put_back(tensors: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Write ``values`` into the live ``tensors`` of the same names."""
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(values[name])


@dataclass(frozen=True)
class Checkpoint:
    """A run at one step, read from ``path``: tensors on the host and the facts beside them."""

    path: Path
    tensors: dict[str, Tensor]
    facts: Facts

    def weights(self, kind: str = "ema") -> dict[str, Tensor]:
        """A state dict for the model: averaged weights (``ema``) over the raw ones (``model``),
        buffers included."""
        chosen = _under(self.tensors, "model")
        return chosen if kind == "model" else {**chosen, **_under(self.tensors, kind)}


class Checkpoints:
    """The current and the previous checkpoint of one run, in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.current = folder / CURRENT
        self.previous = folder / PREVIOUS

    def write(self, tensors: Mapping[str, Tensor], facts: Facts) -> Path:
        """Write a new current checkpoint; what was current becomes the previous one.

        The file appears whole or not at all. A full disk, or a folder that cannot be written, is a
        ``FailedError`` and leaves the old checkpoints as they were.
        """
        partial = self.folder / f"{CURRENT}.{os.getpid()}.partial"
        content = _encoded(tensors, facts)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(partial, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if self.current.exists():
                os.replace(self.current, self.previous)
            os.replace(partial, self.current)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise FailedError(
                f"cannot write a checkpoint in {self.folder}: {error.strerror}; "
                "the checkpoint before it is intact, so free some space and run again with --resume"
            ) from error
        return self.current

    def read(self, warnings: list[str]) -> Checkpoint | None:
        """The newest checkpoint that can be read, or None where there is none at all.

        A current checkpoint that is cut short or foreign costs one line in ``warnings`` and the
        previous one is used; raises ``FailedError`` where no remaining one is readable.
        """
        found = [path for path in (self.current, self.previous) if path.exists()]
        problems: list[str] = []
        for path in found:
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
            raise FailedError(
                f"{' and '.join(problems)}; delete {self.folder} to start this run again"
            )
        return None

    def clear(self) -> None:
        """Delete both: this run starts fresh."""
        for path in (self.current, self.previous, *self.folder.glob(f"{CURRENT}.*.partial")):
            path.unlink(missing_ok=True)


class Snapshots:
    """Weights kept from along a run, for analyses afterwards: a checkpoint of weights alone for
    each step, in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, tensors: Mapping[str, Tensor], facts: Facts) -> Path:
        """Keep raw and averaged weights of ``tensors`` as those of step ``facts.step``; raises
        ``FailedError`` on a full disk."""
        kept = {name: tensor for name, tensor in tensors.items() if name.startswith(WEIGHTS)}
        path = self.folder / f"step-{facts.step:09d}.safetensors"
        write_atomically(path, _encoded(kept, facts))
        return path

    def paths(self) -> list[Path]:
        """Those that are there, in order of their steps."""
        return sorted(self.folder.glob("step-*.safetensors"))

    def clear(self, after: int = -1) -> None:
        """Delete those of steps beyond ``after``: the run starts fresh, or went back to that step
        and goes another way on."""
        for path in self.paths():
            if step_of(path) > after:
                path.unlink(missing_ok=True)


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
        raise FailedError(f"cannot read the checkpoint {path} ({_reason(error)})") from error
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


def _reason(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _under(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(f"{part}."): tensor
        for name, tensor in tensors.items()
        if name.startswith(f"{part}.")
    }

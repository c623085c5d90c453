"""The fixed test set: drawn, rotated and assembled once, kept on the device, the same for every model that it judges."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from equivbench.errors import UsageError
from equivbench.symmetry.decomposition import Decomposition
from equivbench.symmetry.rotations import octahedral_rotations, random_rotations
from equivbench.symmetry.types import SymmetryType
from equivbench.tasks.base import Field, Split, Task

if TYPE_CHECKING:
    from equivbench.tasks.base import Batch

Group = Literal["so3", "octahedral"]
Precision = Literal["float32", "tf32", "bf16", "float64"]


@dataclass(frozen=True)
class Chunk:
    """Some samples under every draw, as the model takes them."""

    inputs: tuple[dict[str, Tensor], ...]
    """One mapping a draw."""
    targets: tuple[dict[str, Tensor], ...]
    """Rotated like the inputs: what the objective compares with."""
    inverses: Tensor
    """[draws, graphs, 3, 3] float64, what takes predictions back."""
    index: Tensor | None
    """[nodes] the graph of each node."""
    target: Tensor
    """[rows, ...] of the prediction, unrotated."""
    weights: Tensor | None
    row_weights: Tensor
    """[rows] float64: how much each row counts in a mean."""
    groups: Tensor
    """[rows] the independent unit of each row."""
    strata: tuple[tuple[str, ...], Tensor] | None
    samples: int


@dataclass(frozen=True)
class Placement:
    """How the samples of a chunk reach the model: the rotations, the arithmetic, the device and the derived inputs."""

    task: Task
    requires: Mapping[str, float]
    device: torch.device
    precision: Precision

    @property
    def dtype(self) -> torch.dtype:
        """Of the model's floating-point inputs; reduced precisions start from float32."""
        return torch.float64 if self.precision == "float64" else torch.float32

    def chunks(
        self, split: Split, samples: Tensor, rotations: Tensor, batch_size: int, seed: int, round_trip: bool = False
    ) -> Iterator[Chunk]:
        """The samples [n] of ``split``, ``batch_size`` at a time, under ``rotations`` [draws, n, 3, 3].

        Noise is drawn once a sample and rotates with it. ``round_trip``: the inputs are rotated, rounded to the working
        precision and rotated back, so that they differ from the sample by rounding alone, and predictions stay where they are.
        """
        generator = torch.Generator().manual_seed(seed)
        for start in range(0, len(samples), batch_size):
            part = slice(start, start + batch_size)
            batch = split.collate(samples[part])
            noise = self.task.noise(batch, generator)
            yield self._chunk(batch, noise, rotations[:, part].to(self.device), split.groups[samples[part]], round_trip)

    def _chunk(self, host_batch: Batch, host_noise: Batch, rotations: Tensor, groups: Tensor, round_trip: bool) -> Chunk:
        task = self.task
        batch, noise = _exact(host_batch, self.device), _exact(host_noise, self.device)
        index = None if task.index_field is None else batch[task.index_field]
        drawn = []
        for rotation in rotations:
            moved = task.rotate({**batch, **noise}, rotation, index)
            if round_trip:
                moved = task.rotate(self._rounded(moved), rotation.transpose(1, 2), index)
            moved = cast(moved, self.dtype)
            drawn.append(
                task.assemble({name: moved[name] for name in batch}, {name: moved[name] for name in noise}, self.requires)
            )
        target = task.assemble(batch, noise, {})[1][task.prediction]
        inverses = rotations.transpose(2, 3)
        weights = task.weights({**batch, **noise})
        return Chunk(
            inputs=tuple(inputs for inputs, _ in drawn),
            targets=tuple(targets for _, targets in drawn),
            inverses=torch.eye(3, dtype=torch.float64, device=self.device).expand_as(inverses) if round_trip else inverses,
            index=index,
            target=target,
            weights=weights,
            row_weights=target.new_ones(len(target)) if weights is None else weights.double().reshape(len(target), -1).sum(1),
            groups=self._per_row(groups.to(self.device), index),
            strata=task.strata({**batch, **noise}),
            samples=task.samples_in(batch),
        )

    def _rounded(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Every tensor that a rotation moves, rounded to the working precision and given back in float64."""
        moving = {field.name for field in self.task.fields if not SymmetryType.parse(field.symmetry).invariant}
        rounding = ROUNDINGS[self.precision]
        return {name: rounding(tensor).double() if name in moving else tensor for name, tensor in tensors.items()}

    def _per_row(self, per_sample: Tensor, index: Tensor | None) -> Tensor:
        field = prediction_field(self.task)
        if field.per == "node" and index is not None:
            return per_sample[index]
        return per_sample


def rows_of(parts: Sequence[Decomposition]) -> Decomposition:
    """The rows of several chunks as one."""
    return Decomposition(
        torch.cat([part.total for part in parts]),
        torch.cat([part.twirled for part in parts]),
        torch.cat([part.equivariance for part in parts]),
        torch.cat([part.groups for part in parts]),
    )


def strata_of(chunks: Sequence[Chunk]) -> Iterator[tuple[str, Tensor]]:
    """(name, [rows] mask over all chunks) of each stratum that has a row."""
    known = [chunk.strata for chunk in chunks if chunk.strata is not None]
    if len(known) < len(chunks):
        return
    names, index = known[0][0], torch.cat([index for _, index in known])
    for position, count in enumerate(torch.bincount(index, minlength=len(names)).tolist()):
        if count:
            yield names[position], index == position


def prediction_field(task: Task) -> Field:
    """The declaration of the task's prediction; raises ``UsageError`` if there is none."""
    for field in task.fields:
        if field.name == task.prediction:
            return field
    raise UsageError(f"task {task.name!r} declares no field for its prediction {task.prediction!r}")


def draw_rotations(group: Group, draws: int, samples: int, seed: int) -> tuple[Tensor, bool]:
    """([draws, samples, 3, 3] float64, whether they are the whole group).

    ``so3``: independent Haar draws. ``octahedral``: independent draws from the 24, or for ``draws`` >= 24 each of them once.
    """
    if group not in ("so3", "octahedral"):
        raise UsageError(f"group {group!r} is not one of so3, octahedral")
    if draws < 2:
        raise UsageError(f"an equivariance error needs at least 2 rotations, not {draws}")
    generator = torch.Generator().manual_seed(seed)
    if group == "so3":
        flat = random_rotations(draws * samples, generator=generator, dtype=torch.float64)
        return flat.reshape(draws, samples, 3, 3), False
    elements = octahedral_rotations(torch.float64)
    if draws >= len(elements):
        return elements[:, None].expand(-1, samples, 3, 3), True
    return elements[torch.randint(len(elements), (draws, samples), generator=generator)], False


def spread(groups: Tensor, samples: int | None) -> Tensor:
    """Indices [n] of a fixed choice of ``samples``: every group once, in a fixed random order, before any twice. None: all."""
    order = torch.randperm(len(groups), generator=torch.Generator().manual_seed(0))
    if samples is None or samples >= len(groups):
        return torch.arange(len(groups))
    if samples < 1:
        raise UsageError(f"at least 1 sample is needed, not {samples}")
    by_group = order[groups[order].sort(stable=True).indices]
    sorted_groups = groups[by_group]
    first = torch.searchsorted(sorted_groups, sorted_groups)
    turn = torch.empty_like(order)
    turn[by_group] = torch.arange(len(order)) - first
    return order[turn[order].sort(stable=True).indices][:samples].sort().values


def _to_tf32(values: Tensor) -> Tensor:
    """Rounded to the 10 explicit mantissa bits that TF32 keeps of a float32."""
    bits = values.float().view(torch.int32)
    return ((bits + 0x1000) & ~0x1FFF).view(torch.float32)


ROUNDINGS: Mapping[Precision, Callable[[Tensor], Tensor]] = {
    "float64": lambda values: values,
    "float32": lambda values: values.float(),
    "tf32": _to_tf32,
    "bf16": lambda values: values.bfloat16(),
}


def _exact(batch: Batch, device: torch.device) -> dict[str, Tensor]:
    """The batch on the device, floating point in float64, in which all rotations are made."""
    moved = {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
    return cast(moved, torch.float64)


def cast(batch: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """The batch with its floating-point tensors in ``dtype``."""
    return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in batch.items()}

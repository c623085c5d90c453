"""The fixed test set, its samples rotated and assembled once and kept on the device, the same for
every model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial

import torch
from torch import Tensor

from equivbench.errors import UsageError
from equivbench.measure.precision import ROUNDINGS, EvaluationPrecision, cast, input_dtype
from equivbench.ranks import Ranks
from equivbench.symmetry.decomposition import Decomposition
from equivbench.symmetry.rotations import random_rotations
from equivbench.symmetry.types import SymmetryType, mirror, transform
from equivbench.tasks.base import Batch, Split, Task

KEPT_BYTES = 1 << 28
"""A test set whose inputs take more is assembled anew in each evaluation (voxel grids under 24
rotations)."""

_POSE_SEED = 1 << 30
"""Keeps poses apart from noise, whose generator starts at the seed itself (torch keeps 32 bits of a
seed)."""


@dataclass(frozen=True)
class Draw:
    """The samples of a chunk under one draw of the group, as the model takes them."""

    inputs: Mapping[str, Tensor]
    targets: Mapping[str, Tensor]
    """Rotated like the inputs: what the objective compares with."""
    inverse: Tensor
    """[graphs, 3, 3] float64, what takes predictions back."""
    place: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
    """Does to further tensors, given in float64 for the sample as it is, what was done to the
    inputs."""


@dataclass(frozen=True)
class Chunk:
    """Some samples under every draw."""

    draws: Iterable[Draw]
    """Assembled as they are asked for, or kept (a tuple)."""
    plain: Mapping[str, Tensor] | None
    """The inputs of the samples as they are, for tasks with feedback."""
    index: Tensor | None
    """[nodes] the graph of each node."""
    target: Tensor
    """[rows, ...] of the prediction, unrotated."""
    beside: Mapping[str, tuple[Tensor, Tensor]]
    """The same and the group of each row, of further outputs that the task reports and that turn
    with the sample."""
    weights: Tensor | None
    row_weights: Tensor
    """[rows] float64: how much each row counts in a mean."""
    groups: Tensor
    """[rows] the independent unit of each row."""
    strata: tuple[tuple[str, ...], Tensor] | None
    samples: int


@dataclass(frozen=True)
class Placement:
    """How the samples of a chunk reach the model: the arithmetic, the device and the derived
    inputs."""

    task: Task
    requires: Mapping[str, float]
    device: torch.device
    precision: EvaluationPrecision

    def assembled(self, batch: Batch, noise: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """(inputs, targets) in the working precision."""
        dtype = input_dtype(self.precision)
        return self.task.assemble(cast(batch, dtype), cast(noise, dtype), self.requires)

    def rounded(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Every tensor that a rotation moves, rounded to the working precision and given back in
        float64."""
        moving = {
            field.name
            for field in self.task.fields
            if not SymmetryType.parse(field.symmetry).invariant
        }
        rounding = ROUNDINGS[self.precision]
        return {
            name: rounding(tensor).double() if name in moving else tensor
            for name, tensor in tensors.items()
        }


@dataclass(frozen=True)
class RotatedSet:
    """Samples under fixed draws of a group; iterating it assembles them chunk by chunk, each time
    alike.

    ``samples`` [n] of ``split`` are judged ``task.test_points`` times each; ``rotations`` [draws, n
    * test_points, 3, 3]. Noise is drawn once for each judged sample and rotates with it.
    ``round_trip``: the inputs are rotated, rounded to the working precision and rotated back, so
    that they differ from the sample by rounding alone, and predictions stay where they are.
    ``mirrored``: it is the samples' mirror images, noise included, that are rotated and judged.
    ``posed``: each sample is first turned by a Haar rotation of its own, the same in every draw, so
    that a test under a finite group does not rest on the orientations in which samples happen to be
    stored.
    """

    placement: Placement
    split: Split
    samples: Tensor
    rotations: Tensor
    batch_size: int
    seed: int
    round_trip: bool = False
    mirrored: bool = False
    posed: bool = False

    def __iter__(self) -> Iterator[Chunk]:
        """The chunks, of ``batch_size`` samples (the last of fewer)."""
        return self.chunks()

    def chunks(self, ranks: Ranks | None = None) -> Iterator[Chunk]:
        """The chunks, or those that are this one's part among ``ranks``; no other is assembled."""
        starts = range(0, len(self.samples), self.batch_size)
        for start in starts if ranks is None else starts[ranks.part(len(starts))]:
            yield self._chunk(start)

    def kept(self) -> Iterable[Chunk]:
        """The chunks in memory if they are small, else the set itself."""
        first = next(iter(self))
        draw = next(iter(first.draws))
        held = (*draw.inputs.values(), *draw.targets.values())
        each = sum(tensor.numel() * tensor.element_size() for tensor in held) / min(
            self.batch_size, len(self.samples)
        )
        if each * len(self.samples) * len(self.rotations) > KEPT_BYTES:
            return self
        return [replace(chunk, draws=tuple(chunk.draws)) for chunk in self]

    def _chunk(self, start: int) -> Chunk:
        placement, task = self.placement, self.placement.task
        device, points = placement.device, task.test_points
        picked = self.samples[start : start + self.batch_size].repeat_interleave(points)
        rotations = self.rotations[:, points * start : points * start + len(picked)].to(device)
        host_batch = self.split.collate(picked)
        # A function of the position, so that a chunk assembled again is the same.
        generator = torch.Generator().manual_seed(self.seed + start)
        # Floating point in float64, in which all rotations are made.
        batch, noise = (
            cast({name: each.to(device, non_blocking=True) for name, each in part.items()})
            for part in (host_batch, task.test_noise(host_batch, generator))
        )
        if self.mirrored:
            batch, noise = mirror(batch, task.fields), mirror(noise, task.fields)
        index = None if task.index_field is None else batch[task.index_field]
        if self.posed:
            generator = torch.Generator().manual_seed(_POSE_SEED + self.seed + start)
            poses = random_rotations(len(picked), generator=generator, dtype=torch.float64)
            batch = task.rotate(batch, poses.to(device), index)
        everything = {**batch, **noise}
        targets = task.assemble(batch, noise, {})[1]
        weights = task.weights(everything)
        groups = self.split.groups[picked].to(device)
        declared = {field.name: field for field in task.fields}
        per = {name: field.per for name, field in declared.items()}
        if task.prediction not in per:
            raise UsageError(
                f"task {task.name!r} declares no field for its prediction {task.prediction!r}"
            )
        if task.prediction not in targets:
            raise UsageError(
                f"the data have no {task.prediction!r} to compare with, only "
                f"{' and '.join(targets)}; measure on a data set that has"
            )
        target = targets[task.prediction]

        def groups_of(output: str) -> Tensor:
            return groups if index is None or per[output] != "node" else groups[index]

        return Chunk(
            draws=ChunkDraws(self, batch, noise, rotations, index),
            plain=None if task.feedback is None else placement.assembled(batch, noise)[0],
            index=index,
            target=target,
            beside={
                name: (targets[name], groups_of(name))
                for name in task.reported
                if name in targets
                and name != task.prediction
                and not SymmetryType.parse(declared[name].symmetry).invariant
            },
            weights=weights,
            row_weights=target.new_ones(len(target)) if weights is None else _row_sums(weights),
            groups=groups_of(task.prediction),
            strata=task.strata(everything),
            samples=task.samples_in(batch),
        )


@dataclass(frozen=True)
class ChunkDraws:
    """The draws of one chunk, assembled as they are asked for."""

    of: RotatedSet
    batch: Mapping[str, Tensor]
    noise: Mapping[str, Tensor]
    rotations: Tensor
    index: Tensor | None

    def __iter__(self) -> Iterator[Draw]:
        for rotation in self.rotations:
            place = partial(self._place, rotation)
            moved = place({**self.batch, **self.noise})
            inputs, targets = self.of.placement.assembled(
                {name: moved[name] for name in self.batch},
                {name: moved[name] for name in self.noise},
            )
            inverse = rotation.transpose(1, 2)
            if self.of.round_trip:
                inverse = torch.eye(3, dtype=torch.float64, device=rotation.device).expand_as(
                    inverse
                )
            yield Draw(inputs, targets, inverse, place)

    def alone(self, samples: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """(inputs of ``samples`` [n] of the chunk, without the others and in this order, under the
        first draw; the rows of the chunk's prediction that are theirs)."""
        task = self.of.placement.task
        nodes = samples
        if self.index is not None:
            nodes = torch.cat([(self.index == each).nonzero().flatten() for each in samples])
        per = task.first_axes
        rows = {"graph": samples, "node": nodes}
        part = self._place(self.rotations[0], {**self.batch, **self.noise})
        for name, tensor in part.items():
            if per.get(name) in rows:
                part[name] = tensor[rows[per[name]]]
        if task.index_field is not None and self.index is not None:
            number = torch.empty_like(self.index[: int(self.index.max()) + 1])
            number[samples] = torch.arange(len(samples)).to(number)
            part[task.index_field] = number[self.index[nodes]]
        inputs, _ = self.of.placement.assembled(
            {name: part[name] for name in self.batch}, {name: part[name] for name in self.noise}
        )
        return inputs, rows[per[task.prediction]]

    def _place(self, rotation: Tensor, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        placement = self.of.placement
        fields = placement.task.fields
        moved = transform(tensors, fields, rotation, self.index)
        if self.of.round_trip:
            back = rotation.transpose(1, 2)
            moved = transform(placement.rounded(moved), fields, back, self.index)
        return cast(moved, input_dtype(placement.precision))


def own_chunks(chunks: Iterable[Chunk], ranks: Ranks) -> Iterable[Chunk]:
    """Those of the ``chunks`` that are this one's part among ``ranks``."""
    if isinstance(chunks, RotatedSet):
        return chunks.chunks(ranks)
    held = tuple(chunks)
    return held[ranks.part(len(held))]


def _row_sums(weights: Tensor) -> Tensor:
    """[rows] float64, without unfolding an expanded tensor."""
    return (
        weights.sum(dim=tuple(range(1, weights.dim())), dtype=torch.float64)
        if weights.dim() > 1
        else weights.double()
    )


def rows_of(parts: Sequence[Decomposition]) -> Decomposition:
    """The rows of several chunks as one."""
    names = [field.name for field in fields(Decomposition)]
    return Decomposition(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


def strata_of(
    strata: Sequence[tuple[tuple[str, ...], Tensor] | None],
) -> Iterator[tuple[str, Tensor]]:
    """(name, [rows] mask over all chunks) of each stratum that has a row; ``strata`` are those of
    the chunks."""
    known = [each for each in strata if each is not None]
    if len(known) < len(strata):
        return
    names, index = known[0][0], torch.cat([index for _, index in known])
    for position, count in enumerate(torch.bincount(index, minlength=len(names)).tolist()):
        if count:
            yield names[position], index == position


def spread(groups: Tensor, samples: int | None, seed: int = 0) -> Tensor:
    """Indices [n] of ``samples`` chosen by ``seed``: every group once, in a random order, before
    any twice. None: all."""
    order = torch.randperm(len(groups), generator=torch.Generator().manual_seed(seed))
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

"""A training batch shared among the ranks of an arm: each computes its own samples, and the
objective is that of them all.

An objective may be any function of the outputs for all samples: the force field's is a mean over
atoms plus one over molecules, of which a rank has other parts. So it is not worked out of a rank's
own samples and averaged. Each rank has the whole batch as one device would draw it, calls the model
on its own samples, and is given the outputs for the others, as numbers; every rank then computes
the objective of the whole batch, and the sum over the ranks of its gradients, each by way of one
rank's own outputs, is the gradient. That is exact for every task, whatever its objective.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from equivbench.ranks import Ranks
from equivbench.tasks.base import Batch, Task
from equivbench.training.ahead import ReaderAhead
from equivbench.training.arm import Arm
from equivbench.training.data import Assembled, Batches


class Shard(NamedTuple):
    """A batch as one rank has it."""

    own: Assembled
    """(inputs, targets) of its own samples, with the derived inputs that the model requires."""
    whole: Assembled
    """(inputs, targets) of all samples, without derived inputs."""
    rows: Mapping[str, slice]
    """Where its own rows stand among those of all, by what they are per: ``graph``, ``node``."""
    counts: Mapping[str, int]
    """The rows of all, likewise."""


class Shards:
    """Which part of the ``batches`` of ``task`` a rank computes: samples in a row, as many as any
    other rank but for one. ``requires``: the derived inputs of its model."""

    def __init__(
        self, task: Task, batches: Batches, requires: Mapping[str, float], ranks: Ranks
    ) -> None:
        self._task, self._batches, self._requires, self._ranks = task, batches, requires, ranks

    def at(self, start: int, count: int) -> Shard:
        """This rank's part of the ``count`` samples from position ``start`` of the order on."""
        task = self._task
        samples, noise = self._batches.drawn(start, count)
        graphs = self._ranks.part(count)
        rows, counts = {"graph": graphs}, {"graph": count}
        if task.index_field is not None:
            index = samples[task.index_field]
            ends = torch.tensor([graphs.start, graphs.stop], device=index.device)
            rows["node"] = slice(*torch.searchsorted(index, ends.to(index.dtype)).tolist())
            counts["node"] = len(index)
        own = task.assemble(
            self._part_of(samples, rows), self._part_of(noise, rows), self._requires
        )
        return Shard(own, task.assemble(samples, noise, {}), rows, counts)

    def outputs(self, shard: Shard, own: Batch) -> dict[str, Tensor]:
        """The outputs for all samples of the batch of ``shard``: this rank's ``own``, through which
        gradients flow, in their place among those of the others."""
        per = self._task.first_axes
        found = {
            name: output
            for name, output in own.items()
            if isinstance(output, Tensor) and per.get(name, "none") in shard.rows
        }
        shapes = {
            name: (shard.counts[per[name]], *output.shape[1:]) for name, output in found.items()
        }
        wide = any(output.dtype == torch.float64 for output in found.values())
        sizes = [torch.Size(shape).numel() for shape in shapes.values()]
        # Zeros but for its own rows: their sum over the ranks is what each has, unrounded.
        sent = torch.zeros(
            sum(sizes), dtype=torch.float64 if wide else torch.float32, device=self._ranks.device
        )
        parts = {
            name: part.view(shape)
            for (name, shape), part in zip(shapes.items(), torch.split(sent, sizes), strict=True)
        }
        for name, output in found.items():
            parts[name][shard.rows[per[name]]] = output.detach().to(sent.dtype)
        self._ranks.add_up(sent)
        whole = {}
        for name, output in found.items():
            rows, numbers = shard.rows[per[name]], parts[name].to(output.dtype)
            whole[name] = torch.cat([numbers[: rows.start], output, numbers[rows.stop :]])
        return whole

    def _part_of(self, tensors: Batch, rows: Mapping[str, slice]) -> dict[str, Tensor]:
        """The rows of this rank's own samples, which are numbered from 0."""
        per, index = self._task.first_axes, self._task.index_field
        part = {
            name: tensor[rows[per[name]]] if per.get(name, "none") in rows else tensor
            for name, tensor in tensors.items()
        }
        if index in part:
            part[index] = part[index] - rows["graph"].start
        return part


class GradientSum:
    """The gradients of ``parameters``, added up over ``ranks`` in one piece."""

    def __init__(self, parameters: Sequence[nn.Parameter], ranks: Ranks) -> None:
        self._parameters, self._ranks = parameters, ranks
        self._reached: list[nn.Parameter] | None = None

    def add_up(self) -> None:
        """Make each gradient the sum of those of all ranks. A parameter that the objective does not
        reach has none on any rank, and so stays as it is, as on one device."""
        if self._reached is None:
            has = [float(parameter.grad is not None) for parameter in self._parameters]
            reached = torch.tensor(has, device=self._ranks.device)
            self._ranks.add_up(reached)
            self._reached = [
                parameter
                for parameter, count in zip(self._parameters, reached.tolist(), strict=True)
                if count
            ]
        pieces = [
            torch.zeros_like(each) if each.grad is None else each.grad for each in self._reached
        ]
        # Joined, they are of the widest dtype among them.
        joined = torch.cat([piece.reshape(-1) for piece in pieces])
        self._ranks.add_up(joined)
        summed = torch.split(joined, [piece.numel() for piece in pieces])
        for parameter, piece in zip(self._reached, summed, strict=True):
            parameter.grad = piece.view_as(parameter).to(parameter.dtype)


class SharedSteps:
    """What the steps of ``arm`` take, on one of several ``ranks``, beside those of one device
    alone; ``batches`` are read by nobody else, and ``ahead`` of the steps."""

    def __init__(self, arm: Arm, batches: Batches, ranks: Ranks, *, ahead: bool) -> None:
        self.shards = Shards(arm.task, batches, arm.requires, ranks)
        self.shard_at: Callable[[int, int], Shard] = self.shards.at
        if ahead:
            self.shard_at = ReaderAhead(self.shards.at, arm.device).at
        self.gradients = GradientSum(list(arm.model.parameters()), ranks)
        self.stream = () if ranks.number == 0 else (ranks.number,)
        """What sets this rank's random numbers (dropout) apart: it has other samples than the
        first."""

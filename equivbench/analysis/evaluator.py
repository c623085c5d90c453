"""Judges models on a fixed, rotated test set: forward passes and the decomposition, nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import torch
from torch import nn

from equivbench.analysis.floor import FLOOR_ROTATIONS, FLOOR_SAMPLES, Floor, measure_floor
from equivbench.analysis.forward import Caller, evaluating
from equivbench.analysis.measurement import Measurement, part_of
from equivbench.analysis.rotated_set import (
    Chunk,
    Group,
    Placement,
    Precision,
    draw_rotations,
    rows_of,
    spread,
    strata_of,
)
from equivbench.errors import UsageError
from equivbench.symmetry.decomposition import Decomposition, decompose
from equivbench.tasks.base import Split, Task


class Evaluator:
    """A test set under fixed rotations, and the measurement of models on it.

    Parameters
    ----------
    task, split
        The task, and the samples of it to test on.
    requires
        Derived inputs that the models take, with their parameter.
    rotations
        Draws per sample, at least 2 (for ``octahedral``, 24 or more is the whole group, whose averages are exact).
    group
        ``so3`` or ``octahedral``.
    seed
        Of rotations and noise: equal seeds give equal test sets, whatever the model.
    device
        Where everything is kept and the models run.
    samples
        How many samples, spread over all groups; None is all.
    batch_size
        Samples a forward pass.
    precision
        The arithmetic of the forward passes: ``bf16`` is autocast here; ``tf32`` expects it to be switched on by the caller.
    """

    def __init__(
        self,
        task: Task,
        split: Split,
        *,
        requires: Mapping[str, float],
        rotations: int = 4,
        group: Group = "so3",
        seed: int = 0,
        device: torch.device | str = "cpu",
        samples: int | None = None,
        batch_size: int = 64,
        precision: Precision = "float32",
    ) -> None:
        if len(split) == 0:
            raise UsageError(f"the split of task {task.name!r} to measure on is empty")
        self.task, self.split, self.group = task, split, group
        self._seed, self._batch_size = seed, batch_size
        self._placement = Placement(task, requires, torch.device(device), precision)
        self._samples = spread(split.groups, samples)
        drawn, self._exhaustive = draw_rotations(group, rotations, len(self._samples), seed)
        self._chunks = list(self._placement.chunks(split, self._samples, drawn, batch_size, seed))

    def evaluate(self, model: nn.Module, floor: bool = True) -> Measurement:
        """Measure ``model`` (called with the inputs by keyword, in evaluation mode, without gradients).

        ``floor``: also the numerical floor, on at most 64 of the samples. Every module's mode is put back as it was. Raises
        ``UsageError`` if the model does not take the inputs or does not give the prediction that the task declares.
        """
        caller = Caller(self.task, model, self._placement.precision, self._placement.device)
        caller.check_inputs(self._chunks[0].inputs[0])
        with evaluating(model):
            objective, errors = self._pass(caller)
            measured = measure_floor(caller, self._floor_chunks, self.group) if floor else None
        return self._measurement(objective, errors, measured)

    def _pass(self, caller: Caller) -> tuple[float, Decomposition]:
        """(objective, errors of every row): each chunk under each of its draws."""
        objective = torch.zeros((), dtype=torch.float64, device=self._placement.device)
        parts = []
        for chunk in self._chunks:
            predictions = []
            for inputs, targets, inverse in zip(chunk.inputs, chunk.targets, chunk.inverses, strict=True):
                outputs = caller.outputs(inputs)
                objective += self.task.objective(outputs, targets, inputs) * (chunk.samples / len(chunk.inputs))
                predictions.append(caller.taken_back(outputs, inverse, chunk))
            stacked = torch.stack(predictions)
            parts.append(
                decompose(stacked, chunk.target, weights=chunk.weights, groups=chunk.groups, exhaustive=self._exhaustive)
            )
        return float(objective) / sum(chunk.samples for chunk in self._chunks), rows_of(parts)

    def _measurement(self, objective: float, errors: Decomposition, floor: Floor | None) -> Measurement:
        weights = torch.cat([chunk.row_weights for chunk in self._chunks])
        whole = part_of(errors, weights, None if floor is None else floor.share)
        by = {
            name: part_of(errors.rows(rows), weights[rows], None if floor is None else floor.by.get(name))
            for name, rows in strata_of(self._chunks)
        }
        return Measurement(
            **vars(whole),
            objective=objective,
            explained=1 - whole.total / self._baseline if self._baseline else float("nan"),
            group=self.group,
            resolution=None if floor is None else floor.resolution,
            by=by,
        )

    @cached_property
    def _floor_chunks(self) -> list[Chunk]:
        chosen = self._samples[spread(self.split.groups[self._samples], FLOOR_SAMPLES)]
        drawn, _ = draw_rotations(self.group, FLOOR_ROTATIONS, len(chosen), self._seed)
        round_trip = self.group == "so3"
        return list(self._placement.chunks(self.split, chosen, drawn, self._batch_size, self._seed, round_trip))

    @cached_property
    def _baseline(self) -> float:
        return self.task.baseline(self.split)

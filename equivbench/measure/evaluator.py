"""Judges models on a fixed, rotated test set: forward passes and the decomposition, nothing
else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from torch import Tensor, nn

from equivbench.errors import ModelError, UsageError
from equivbench.measure.caller import Caller, evaluating
from equivbench.measure.calls import fingerprints, weights_kept
from equivbench.measure.checks import check_companions
from equivbench.measure.measurement import Measurement, Verdict, part_of
from equivbench.measure.precision import EvaluationPrecision
from equivbench.measure.rotated_set import (
    Chunk,
    Placement,
    RotatedSet,
    draw_rotations,
    rows_of,
    spread,
    strata_of,
)
from equivbench.measure.verification import (
    Floor,
    Probes,
    by_interpolation,
    by_precision,
    covers,
    interpolation_floor,
    nothing_to_verify,
    probe,
)
from equivbench.specs import Group, Symmetry
from equivbench.symmetry.decomposition import Decomposition, decompose, sum_by_group
from equivbench.symmetry.rotations import octahedral_rotations
from equivbench.tasks.base import Split, Task
from equivbench.tasks.splits import Subset

_VALUES_AT_ONCE = 1 << 22
"""Predicted numbers that are decomposed together: 32 MiB in float64, and as much again for each of
a few temporaries."""
_PROBED = 1 / 100
"""Samples that are probed, of those judged times their draws. Each takes seven and a half passes,
two of them in float64, and others may be probed once more: floor, verdict and all that is assembled
take at most a fifth of the passes. Probes go through the model at once."""
_FEWEST_PROBES, _MOST_PROBES = 4, 32


@dataclass(frozen=True)
class PassErrors:
    """What one pass over the test set gives."""

    objective: float
    errors: Decomposition
    weights: Tensor
    """[rows] how much each row counts in a mean."""
    strata: Mapping[str, Tensor]
    """[rows] mask of each stratum."""
    reported: Mapping[str, float]
    """Mean squared errors of further outputs."""


class Evaluator:
    """A test set under fixed rotations, and the measurement of models on it.

    Parameters
    ----------
    requires
        Derived inputs that the models take, with their parameter.
    rotations
        Draws per sample, at least 2 (for ``octahedral``, 24 or more is the whole group, whose
        averages are exact).
    seed
        Of rotations and noise: equal seeds give equal test sets, whatever the model.
    samples
        How many samples, spread over all groups; None is all.
    batch_size
        Samples a forward pass.
    precision
        ``bf16`` is autocast here; ``tf32`` expects it to be switched on by the caller.
    mirrored
        Test on the mirror images x -> -x of the same samples and noise, under the same rotations.
    symmetry
        What the models declare; ``none``: the verdict is on ``group``.
    untrained
        Makes the task's untrained predictors, when first needed.
    alive
        Called after each forward pass over a chunk.
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
        precision: EvaluationPrecision = "float32",
        mirrored: bool = False,
        symmetry: Symmetry = "none",
        untrained: Callable[[], Mapping[str, nn.Module]] = dict,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        if len(split) == 0:
            raise UsageError(f"the split of task {task.name!r} to measure on is empty")
        self.task, self.split, self.group = task, split, group
        self._seed, self._batch_size = seed, max(1, batch_size // task.test_points)
        self._placement = Placement(task, requires, torch.device(device), precision)
        self._mirrored, self._untrained, self._alive = mirrored, untrained, alive
        self._promised: Group = group if symmetry == "none" else symmetry
        self._samples = spread(split.groups, samples)
        drawn, self._drawn_from = draw_rotations(
            group, rotations, len(self._samples) * task.test_points, seed
        )
        self._rotations = len(drawn)
        probed = min(int(_PROBED * len(drawn) * drawn.shape[1]), _MOST_PROBES, batch_size)
        self._probed = max(_FEWEST_PROBES, probed) // task.test_points or 1
        self._chunks = self._rotated(self._samples, drawn).kept()
        self._contents = self._fingerprints()

    def evaluate(self, model: nn.Module, floor: bool = True) -> Measurement:
        """Measure ``model`` (called with the inputs by keyword, in evaluation mode, without
        gradients).

        ``floor``: also the floor of its share and the verdict on its symmetry, from at most 32 of
        the samples.
        Every module's mode is put back as it was. Raises ``ModelError`` if the model does not take
        the inputs, does not give what the task declares, changes its own weights or the test set,
        and with ``floor`` where :meth:`check` does.
        """
        caller = self._caller(model)
        with evaluating(model), weights_kept(model):
            judged = self._judge(caller)
            measured, verdict = self._verify(caller, judged) if floor else (None, None)
        for name, value in self._fingerprints().items():
            if value != self._contents[name]:
                raise ModelError(
                    f"the test set changed while {type(model).__name__} was evaluated on it: "
                    f"{name.rpartition('.')[2]!r} is not what it was"
                )
        return self._measurement(judged, measured, verdict)

    def check(self, model: nn.Module) -> None:
        """Raises ``ModelError`` where what ``model`` predicts for a sample depends on the others of
        its batch, looked at on at most 32 samples."""
        with evaluating(model):
            self._check_companions(self._caller(model))

    def inputs(self) -> Iterator[Mapping[str, Tensor]]:
        """The inputs of every call of :meth:`evaluate` without a floor, in order; those of tasks
        without feedback."""
        for chunk in self._chunks:
            for draw in chunk.draws:
                yield draw.inputs

    def baselines(self) -> dict[str, float]:
        """Board metric on this test set of the ``zero`` predictor and of the task's untrained ones,
        by name."""
        weight = float(self._row_weights.sum())
        return {name: float(total.sum()) / weight for name, total in self._untrained_errors.items()}

    def _fingerprints(self) -> dict[str, tuple[int, int]]:
        """Hashes of all that models are judged on, where it is kept, else of the first samples that
        it is assembled from."""
        if isinstance(self._chunks, RotatedSet):
            first = self._samples[: self._batch_size]
            return fingerprints(self.split.collate(first))
        tensors: dict[str, Tensor] = {}
        for chunk_number, chunk in enumerate(self._chunks):
            tensors[f"{chunk_number}.{self.task.prediction}"] = chunk.target
            for draw_number, draw in enumerate(chunk.draws):
                for part in (draw.inputs, draw.targets):
                    where = f"{chunk_number}.{draw_number}.{'in' if part is draw.inputs else 'out'}"
                    tensors |= {f"{where}.{name}": tensor for name, tensor in part.items()}
        return fingerprints(tensors)

    def _caller(self, model: nn.Module) -> Caller:
        return Caller(self.task, model, self._placement.precision, self._placement.device)

    def _rotated(
        self,
        samples: Tensor,
        rotations: Tensor,
        precision: EvaluationPrecision | None = None,
        batch_size: int | None = None,
        round_trip: bool = False,
    ) -> RotatedSet:
        placement = self._placement
        return RotatedSet(
            replace(placement, precision=precision or placement.precision),
            self.split,
            samples,
            rotations,
            batch_size or self._batch_size,
            self._seed,
            round_trip,
            self._mirrored,
            posed=self.group == "octahedral",
        )

    def _judge(self, caller: Caller) -> PassErrors:
        """Each chunk under each of its draws."""
        objective = torch.zeros((), dtype=torch.float64, device=self._placement.device)
        parts: list[Decomposition] = []
        weights, strata, samples = [], [], 0
        reported: dict[str, list[Tensor]] = {}
        for chunk in self._chunks:
            predictions, objectives = [], []
            for draw, inputs, outputs in caller.runs(chunk):
                for name, squares in caller.reported(outputs, draw.targets).items():
                    reported.setdefault(name, []).append(squares)
                objectives.append(self.task.objective(outputs, draw.targets, inputs).double())
                predictions.append(caller.taken_back(outputs, draw.inverse, chunk))
                self._alive()
            objective += torch.stack(objectives).mean() * chunk.samples
            samples += chunk.samples
            parts += self._decomposed(predictions, chunk)
            weights.append(chunk.row_weights)
            strata.append(chunk.strata)
        return PassErrors(
            float(objective) / samples,
            rows_of(parts),
            torch.cat(weights),
            dict(strata_of(strata)),
            {name: float(torch.cat(squares).mean()) for name, squares in reported.items()},
        )

    def _decomposed(self, predictions: Sequence[Tensor], chunk: Chunk) -> Iterator[Decomposition]:
        """The errors of the chunk's rows from each draw's ``predictions``, a few rows at a time: 24
        draws of a grid are large."""
        at_once = max(1, _VALUES_AT_ONCE // (len(predictions) * chunk.target[0].numel()))
        for start in range(0, len(chunk.target), at_once):
            rows = slice(start, start + at_once)
            yield decompose(
                torch.stack([prediction[rows] for prediction in predictions]),
                chunk.target[rows],
                weights=None if chunk.weights is None else chunk.weights[rows],
                groups=chunk.groups[rows],
                drawn_from=self._drawn_from,
            )

    def _verify(self, caller: Caller, judged: PassErrors) -> tuple[Floor | None, Verdict]:
        """The floor of the share, and whether the promised symmetry holds."""
        task, promised, share = self.task, self._promised, judged.errors.share
        chosen = spread(self.split.groups[self._samples], self._probed)
        probes = self._probes(caller, self._samples[chosen])
        if probes.deterministic:
            self._check_companions(caller)
        floor = probes.floor() if probes.deterministic else None
        if task.interpolates and self.group != "octahedral":
            linear = self._judged_untrained.get("linear")
            floor = (
                None
                if linear is None
                else interpolation_floor(linear.errors, judged.errors, judged.strata)
            )
        objection = nothing_to_verify(probes)
        if objection is not None:
            return floor, objection
        if self._by_interpolation:
            if not covers(promised, self.group):
                return floor, Verdict(
                    None, f"{promised} is declared, and more than that was measured on a grid"
                )
            verdict = by_interpolation(share, floor, self.group)
            if verdict.holds and promised != self.group:
                inverted = by_precision(probes, None, "inversion")
                verdict = Verdict(inverted.holds, f"{verdict.reason}; {inverted.reason}")
            return floor, verdict
        covered = covers(promised, self.group)
        verdict = by_precision(probes, share if covered else None, promised)
        if verdict.holds and covered and floor is not None and share > floor.allowed:
            # Few probes may have missed what is rare, such as a molecule without a unique frame.
            probes = self._probes(caller, self._worst(judged))
            verdict = by_precision(probes, None, f"{promised} where the error is largest")
        if verdict.holds and task.interpolates and promised != "octahedral":
            only = f"{promised} is declared and only the cube's rotations were made"
            verdict = Verdict(None, f"{only}; {verdict.reason}")
        return floor, verdict

    @property
    def _by_interpolation(self) -> bool:
        """Whether the elements of the group that tell are not exact on the task's grid."""
        return self.task.interpolates and "octahedral" not in (self.group, self._promised)

    def _probes(self, caller: Caller, samples: Tensor) -> Probes:
        """Passes over ``samples`` under two elements of the promised group each."""
        group, count = self._promised, len(samples) * self.task.test_points
        rotations, _ = draw_rotations("so3", 2, count, self._seed)
        identity = torch.eye(3, dtype=torch.float64).expand(count, 3, 3)
        if self._by_interpolation:
            rotations = torch.stack((identity, identity))
        elif self.task.interpolates or group == "octahedral":
            # Quarter turns about different axes, which make the whole group between them.
            elements = octahedral_rotations(torch.float64)
            turns = elements[elements.diagonal(dim1=1, dim2=2).sum(1) == 1]
            rotations = torch.stack((identity, turns[torch.arange(count) % len(turns)]))
        if group == "o3":
            rotations = rotations * torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1)

        def made(precision: EvaluationPrecision, round_trip: bool = False) -> Chunk:
            return next(
                iter(self._rotated(samples, rotations, precision, len(samples), round_trip))
            )

        own = caller.precision
        needed = not self._by_interpolation or group != self.group
        return probe(
            caller,
            made(own),
            (lambda: made("float32" if own == "float64" else "float64")) if needed else None,
            lambda: made(own, round_trip=True),
        )

    def _check_companions(self, caller: Caller) -> None:
        samples = self._samples[spread(self.split.groups[self._samples], self._probed)]
        count = len(samples) * self.task.test_points
        as_they_are = torch.eye(3, dtype=torch.float64).expand(1, count, 3, 3)
        chunks = self._rotated(samples, as_they_are, batch_size=len(samples))
        check_companions(caller, next(iter(chunks)))

    def _worst(self, judged: PassErrors) -> Tensor:
        """Samples of the groups with the largest equivariance errors."""
        sums = sum_by_group(judged.errors.equivariance, judged.errors.groups)
        rank = torch.empty_like(sums).scatter_(
            0, sums.argsort(descending=True), torch.arange(len(sums)).to(sums)
        )
        _, index = torch.unique(self.split.groups[self._samples], return_inverse=True)
        chosen = rank.cpu()[index].sort(stable=True).indices[: self._probed]
        return self._samples[chosen].sort().values

    def _measurement(
        self, judged: PassErrors, floor: Floor | None, verdict: Verdict | None
    ) -> Measurement:
        errors, weights = judged.errors, judged.weights

        def best_untrained(rows: Tensor | None = None) -> Tensor:
            untrained = torch.stack(list(self._untrained_errors.values()))
            return (untrained if rows is None else untrained[:, rows]).sum(dim=1).min()

        whole = part_of(errors, weights, None if floor is None else floor.share, best_untrained)
        by = {
            name: part_of(
                errors.rows(rows),
                weights[rows],
                None if floor is None else floor.by.get(name),
                partial(best_untrained, rows),
            )
            for name, rows in judged.strata.items()
        }
        return Measurement(
            **vars(whole),
            objective=judged.objective,
            explained=1 - whole.total / self._baseline if self._baseline else float("nan"),
            samples=len(self._samples),
            rotations=self._rotations,
            errors=judged.reported,
            group=self.group,
            allowed=None if floor is None else floor.allowed,
            verdict=verdict,
            by=by,
            unit=self.task.board_unit,
        )

    @cached_property
    def _untrained_errors(self) -> dict[str, Tensor]:
        """[rows] errors of ``zero`` and of the task's untrained predictors, by name."""
        zero = []
        for chunk in self._chunks:
            # Two draws of it, as few as can be decomposed.
            zeros = [torch.zeros_like(chunk.target)] * 2
            zero += [part.total for part in self._decomposed(zeros, chunk)]
        judged = {name: each.errors.total for name, each in self._judged_untrained.items()}
        return {"zero": torch.cat(zero), **judged}

    @cached_property
    def _row_weights(self) -> Tensor:
        return torch.cat([chunk.row_weights for chunk in self._chunks])

    @cached_property
    def _judged_untrained(self) -> dict[str, PassErrors]:
        judged = {}
        for name, predictor in self._untrained().items():
            with evaluating(predictor):
                judged[name] = self._judge(self._caller(predictor.to(self._placement.device)))
        return judged

    @cached_property
    def _baseline(self) -> float:
        whole = len(self._samples) == len(self.split)
        return self.task.baseline(self.split if whole else Subset(self.split, self._samples))

"""Judges models on a fixed, rotated test set: forward passes and the decomposition, nothing
else."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor, nn

from equivbench.errors import ModelError, UsageError
from equivbench.measure.caller import Caller, evaluating
from equivbench.measure.calls import fingerprints, weights_kept
from equivbench.measure.elements import elements_for
from equivbench.measure.layers import LayerPart, layers_of
from equivbench.measure.makeup import highest_degree, makeup_of, sides_of
from equivbench.measure.measurement import Measurement, OutputPart, Verdict, part_of
from equivbench.measure.passes import ChunkErrors, Pass, PassErrors, can_tell_irreps
from equivbench.measure.precision import EvaluationPrecision
from equivbench.measure.rotated_set import Chunk, Placement, RotatedSet, own_chunks, spread
from equivbench.measure.verification import Floor
from equivbench.measure.verifier import Verifier
from equivbench.ranks import Ranks
from equivbench.specs import By, Group, Symmetry
from equivbench.symmetry.decomposition import Decomposition
from equivbench.symmetry.spectrum import FEWEST_DRAWS
from equivbench.tasks.base import Split, Task
from equivbench.tasks.splits import Subset

_PROBED = 1 / 100
"""Samples that are probed, of those judged times their draws. Each takes seven and a half passes,
two of them in float64, and others may be probed once more: floor, verdict and all that is assembled
take at most a fifth of the passes. Probes go through the model at once."""
_FEWEST_PROBES, _MOST_PROBES = 4, 32
_LAYER_ROTATIONS = 24
"""At most, under which features are looked at layer by layer."""


class Evaluator:
    """A test set under fixed rotations, and the measurement of models on it.

    Parameters
    ----------
    requires
        Derived inputs that the models take, with their parameter.
    rotations
        Draws per sample, at least 2 (for ``octahedral``, 24 or more is the whole group, whose
        averages are exact), or ``quadrature:DEGREE``.
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
    by
        What the parts of a measurement are of (:data:`equivbench.specs.By`).
    alive
        Called after each forward pass over a chunk.
    """

    def __init__(
        self,
        task: Task,
        split: Split,
        *,
        requires: Mapping[str, float],
        rotations: int | str = 4,
        group: Group = "so3",
        seed: int = 0,
        device: torch.device | str = "cpu",
        samples: int | None = None,
        batch_size: int = 64,
        precision: EvaluationPrecision = "float32",
        mirrored: bool = False,
        symmetry: Symmetry = "none",
        untrained: Callable[[], Mapping[str, nn.Module]] = dict,
        by: By = "stratum",
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        if len(split) == 0:
            raise UsageError(f"the split of task {task.name!r} to measure on is empty")
        self.task, self.split, self.group = task, split, group
        self._seed, self._batch_size = seed, max(1, batch_size // task.test_points)
        self._placement = Placement(task, requires, torch.device(device), precision)
        self._mirrored, self._untrained, self._by = mirrored, untrained, by
        self._samples = spread(split.groups, samples)
        judged = len(self._samples) * task.test_points
        elements = elements_for(group, rotations, judged, seed)
        self._rotations = len(elements)
        highest = None
        if by == "irrep":
            highest = highest_degree(rotations)
        elif group == "o3" and can_tell_irreps(elements):
            highest = 0
        self._pass = Pass(elements, alive, highest, by == "component")
        probed = min(int(_PROBED * len(elements) * judged), _MOST_PROBES, batch_size)
        self._verifier = Verifier(
            task,
            group,
            group if symmetry == "none" else symmetry,
            self._samples,
            split.groups[self._samples],
            max(_FEWEST_PROBES, probed) // task.test_points or 1,
            seed,
            self._rotated,
        )
        self._chunks = self._rotated(self._samples, elements.matrices).kept()
        self._contents = self._fingerprints()

    def evaluate(
        self, model: nn.Module, floor: bool = True, ranks: Ranks | None = None
    ) -> Measurement:
        """Measure ``model`` (called with the inputs by keyword, in evaluation mode, without
        gradients).

        ``floor``: also the floor of its share and the verdict on its symmetry, from at most 32 of
        the samples. ``ranks``: this one is the first, and the others judge their part of the test
        set by :meth:`hand_in_part` at the same time.
        Every module's mode is put back as it was. Raises ``ModelError`` if the model does not take
        the inputs, does not give what the task declares, changes its own weights or the test set,
        and with ``floor`` where :meth:`check` does.
        """
        caller = self._caller(model)
        with evaluating(model), weights_kept(model):
            judged = (
                self._pass.over(self._chunks, caller)
                if ranks is None
                else self._pass.joined(self._gathered(caller, ranks))
            )
            measured, verdict = (
                self._verifier.verify(caller, judged, lambda: self._judged_untrained.get("linear"))
                if floor
                else (None, None)
            )
            layers = self._layers(caller) if self._by == "layer" else None
        for name, value in self._fingerprints().items():
            if value != self._contents[name]:
                raise ModelError(
                    f"the test set changed while {type(model).__name__} was evaluated on it: "
                    f"{name.rpartition('.')[2]!r} is not what it was"
                )
        found = self._measurement(judged, measured, verdict)
        return found if layers is None else replace(found, by=layers)

    def hand_in_part(self, model: nn.Module, ranks: Ranks) -> None:
        """Judge ``model``, which is that of all ``ranks``, on this one's part of the test set; the
        first of them measures it meanwhile."""
        with evaluating(model):
            self._gathered(self._caller(model), ranks)

    def _gathered(self, caller: Caller, ranks: Ranks) -> list[ChunkErrors]:
        """On the first of ``ranks`` the errors on every chunk, in order; on the others none."""
        own = self._pass.judged(own_chunks(self._chunks, ranks), caller)
        return [part for parts in ranks.gathered(own) for part in parts]

    def check(self, model: nn.Module) -> None:
        """Raises ``ModelError`` where what ``model`` predicts for a sample depends on the others of
        its batch, looked at on at most 32 samples."""
        with evaluating(model):
            self._verifier.check_companions(self._caller(model))

    @property
    def calls(self) -> int:
        """How many calls :meth:`evaluate` makes without a floor."""
        return -(-len(self._samples) // self._batch_size) * self._rotations

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

    def _fingerprints(self) -> dict[str, tuple[int, bytes]]:
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

    def _layers(self, caller: Caller) -> dict[str, LayerPart]:
        """The features of the model on a few samples, all under the same elements."""
        # On a grid the cube's rotations are those that are exact.
        group: Group = "octahedral" if self.task.interpolates else self.group
        draws = min(max(self._rotations, FEWEST_DRAWS), _LAYER_ROTATIONS)
        elements = elements_for(group, draws, 1, self._seed)

        def some(samples: int) -> Chunk:
            chosen = self._samples[spread(self.split.groups[self._samples], samples)]
            count = len(chosen) * self.task.test_points
            matrices = elements.matrices.expand(-1, count, 3, 3)
            return next(iter(self._rotated(chosen, matrices, batch_size=count)))

        return layers_of(caller, some, elements)

    def _measurement(
        self, judged: PassErrors, floor: Floor | None, verdict: Verdict | None
    ) -> Measurement:
        whole = part_of(
            judged.errors,
            judged.weights,
            None if floor is None else floor.share,
            self._best_untrained,
        )
        proper, parity = sides_of(judged, self._best_untrained)
        return Measurement(
            **vars(whole),
            objective=judged.objective,
            explained=1 - whole.total / self._baseline if self._baseline else float("nan"),
            samples=len(self._samples),
            rotations=self._rotations,
            errors=judged.reported,
            beside={name: self._beside(name, each) for name, each in judged.beside.items()},
            group=self.group,
            allowed=None if floor is None else floor.allowed,
            verdict=verdict,
            by=makeup_of(self._by, judged, floor, self._untrained_errors, self._best_untrained),
            proper=proper,
            parity=parity,
            unit=self.task.board_unit,
        )

    def _beside(self, output: str, errors: Decomposition) -> OutputPart:
        """All rows of a further output, each counting alike."""
        part = part_of(errors, torch.ones_like(errors.total), None, lambda: torch.tensor(math.nan))
        return OutputPart(**vars(part), unit=self.task.judged_on(output).board_unit)

    def _best_untrained(self, rows: Tensor | None = None) -> Tensor:
        """The summed error of the best predictor without training, on all rows or some."""
        untrained = torch.stack(list(self._untrained_errors.values()))
        return (untrained if rows is None else untrained[:, rows]).sum(dim=1).min()

    @cached_property
    def _untrained_errors(self) -> dict[str, Tensor]:
        """[rows] errors of ``zero`` and of the task's untrained predictors, by name."""
        zero = []
        of_draws = Pass(
            replace(self._pass.elements, weights=None, drawn_from=None), self._pass.alive
        )
        for chunk in self._chunks:
            # Two draws of it, as few as can be decomposed.
            zeros = [torch.zeros_like(chunk.target)] * 2
            zero += [rows.errors.total for rows in of_draws.decomposed(zeros, chunk)]
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
                placed = self._caller(predictor.to(self._placement.device))
                judged[name] = self._pass.over(self._chunks, placed)
        return judged

    @cached_property
    def _baseline(self) -> float:
        whole = len(self._samples) == len(self.split)
        return self.task.baseline(self.split if whole else Subset(self.split, self._samples))

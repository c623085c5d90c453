"""A pass over the test set: every chunk under each of its draws, decomposed row by row, and what
else is asked of the errors while all predictions of a row are at hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from equivbench.measure.caller import Caller
from equivbench.measure.elements import Elements
from equivbench.measure.rotated_set import Chunk, rows_of, strata_of
from equivbench.symmetry.decomposition import Decomposition, broadcast_weights, decompose
from equivbench.symmetry.spectrum import FEWEST_DRAWS, irrep_powers
from equivbench.symmetry.types import SymmetryType

_VALUES_AT_ONCE = 1 << 22
"""Predicted numbers that are decomposed together: 32 MiB in float64, and as much again for each of
a few temporaries."""


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
    beside: Mapping[str, Decomposition]
    """The errors of those of them that turn with the sample."""
    irreps: Mapping[str, Tensor]
    """[rows] the part of the equivariance error that is of each irrep of the group; empty if they
    were not asked for."""
    all_irreps: bool
    """Whether these are all there are, but for the trivial one."""
    components: Mapping[str, Decomposition]
    """The errors of each irrep of the prediction's symmetry type, likewise."""


@dataclass(frozen=True)
class ChunkErrors:
    """What the pass over one chunk gives."""

    samples: int
    objective: Tensor
    """[] float64: of all samples together, averaged over the draws."""
    rows: Sequence[_Rows]
    weights: Tensor
    """[rows] how much each row counts in a mean."""
    strata: tuple[tuple[str, ...], Tensor] | None
    reported: Mapping[str, Tensor]
    """[rows] squared errors of further outputs, averaged over the draws."""
    beside: Mapping[str, Decomposition]
    """The errors of those of them that turn with the sample."""


@dataclass(frozen=True)
class Pass:
    """How chunks are judged."""

    elements: Elements
    alive: Callable[[], None]
    """Called after each forward pass."""
    highest: int | None = None
    """Degree of the last irrep of the group whose part is worked out; None: of none."""
    by_component: bool = False

    def over(self, chunks: Iterable[Chunk], caller: Caller) -> PassErrors:
        """The errors of the model behind ``caller``."""
        return self.joined(self.judged(chunks, caller))

    def judged(self, chunks: Iterable[Chunk], caller: Caller) -> list[ChunkErrors]:
        """The errors of the model behind ``caller`` on each of the ``chunks``."""
        return [self._judged(chunk, caller) for chunk in chunks]

    def _judged(self, chunk: Chunk, caller: Caller) -> ChunkErrors:
        predictions, objectives, inverses = [], [], []
        squares: dict[str, list[Tensor]] = {}
        others: dict[str, list[Tensor]] = {}
        for draw, inputs, outputs in caller.runs(chunk):
            for name, each in caller.reported(outputs, draw.targets).items():
                squares.setdefault(name, []).append(each)
                if name in chunk.beside:
                    back = caller.taken_back(outputs, draw.inverse, chunk, name)
                    others.setdefault(name, []).append(back)
            objectives.append(caller.task.objective(outputs, draw.targets, inputs).double())
            predictions.append(caller.taken_back(outputs, draw.inverse, chunk))
            inverses.append(draw.inverse)
            self.alive()
        beside = {}
        for name, values in others.items():
            target, groups = chunk.beside[name]
            if len(values) == len(predictions):
                beside[name] = self._decompose(torch.stack(values), target, None, groups)
        matrices = None if self.highest is None else torch.stack(inverses).mT
        return ChunkErrors(
            samples=chunk.samples,
            objective=self.elements.average(torch.stack(objectives)) * chunk.samples,
            rows=list(self.decomposed(predictions, chunk, matrices, task_type(caller))),
            weights=chunk.row_weights,
            strata=chunk.strata,
            reported={
                name: self.elements.average(torch.stack(each)) for name, each in squares.items()
            },
            beside=beside,
        )

    def joined(self, parts: Sequence[ChunkErrors]) -> PassErrors:
        """The errors on a test set from those on each of its chunks, in order."""
        objective = torch.zeros_like(parts[0].objective)
        reported: dict[str, list[Tensor]] = {}
        beside: dict[str, list[Decomposition]] = {}
        for part in parts:
            objective += part.objective
            for name, squares in part.reported.items():
                reported.setdefault(name, []).append(squares)
            for name, errors in part.beside.items():
                beside.setdefault(name, []).append(errors)
        found = [rows for part in parts for rows in part.rows]
        return PassErrors(
            float(objective) / sum(part.samples for part in parts),
            rows_of([each.errors for each in found]),
            torch.cat([part.weights for part in parts]),
            dict(strata_of([part.strata for part in parts])),
            {name: float(torch.cat(each).mean()) for name, each in reported.items()},
            {name: rows_of(each) for name, each in beside.items() if len(each) == len(parts)},
            {name: torch.cat([each.irreps[name] for each in found]) for name in found[0].irreps},
            self.elements.group == "octahedral",
            {
                name: rows_of([each.components[name] for each in found])
                for name in found[0].components
            },
        )

    def decomposed(
        self,
        predictions: Sequence[Tensor],
        chunk: Chunk,
        matrices: Tensor | None = None,
        symmetry: str = "0e",
    ) -> Iterator[_Rows]:
        """The errors of the chunk's rows from each draw's ``predictions``, a few rows at a time: 24
        draws of a grid are large. ``matrices`` [draws, graphs, 3, 3] are the draws' elements."""
        at_once = max(1, _VALUES_AT_ONCE // (len(predictions) * chunk.target[0].numel()))
        per_row = chunk.index is not None and len(chunk.index) == len(chunk.target)
        for start in range(0, len(chunk.target), at_once):
            rows = slice(start, start + at_once)
            stacked = torch.stack([prediction[rows] for prediction in predictions])
            weights = None if chunk.weights is None else chunk.weights[rows]
            target, groups = chunk.target[rows], chunk.groups[rows]
            errors = self._decompose(stacked, target, weights, groups)
            irreps: dict[str, Tensor] = {}
            if matrices is not None and self.highest is not None:
                own = matrices
                if per_row and chunk.index is not None:
                    own = matrices[:, chunk.index[rows]]
                elif matrices.shape[1] > 1:
                    own = matrices[:, rows]
                irreps = irrep_powers(
                    stacked,
                    own if self.elements.weights is None else own[:, :1],
                    self.elements.group,
                    highest=self.highest,
                    weights=weights,
                    quadrature=self.elements.weights,
                )
            components: dict[str, Decomposition] = {}
            if self.by_component:
                given = None if weights is None else broadcast_weights(weights, target.shape)
                kind = SymmetryType.parse(symmetry)
                parts, wanted = kind.components(stacked), kind.components(target)
                if given is not None and kind.cartesian:
                    # Of a matrix as a whole: its entries do not turn one by one.
                    given = given[..., 0, :1].expand(wanted.shape)
                for name, block in blocks_of(symmetry, wanted.dim()).items():
                    components[name] = self._decompose(
                        parts[(slice(None), *block)],
                        wanted[block],
                        None if given is None else given[block],
                        groups,
                    )
            yield _Rows(errors, irreps, components)

    def _decompose(
        self, values: Tensor, target: Tensor, weights: Tensor | None, groups: Tensor
    ) -> Decomposition:
        return decompose(
            values,
            target,
            weights=weights,
            groups=groups,
            drawn_from=self.elements.drawn_from,
            quadrature=self.elements.weights,
        )


@dataclass(frozen=True)
class _Rows:
    """What is found of some rows."""

    errors: Decomposition
    irreps: Mapping[str, Tensor]
    components: Mapping[str, Decomposition]


def can_tell_irreps(elements: Elements) -> bool:
    """Whether there are enough elements for an estimate of each irrep's part."""
    if elements.group == "octahedral":
        return len(elements) == elements.drawn_from
    return elements.weights is not None or len(elements) >= FEWEST_DRAWS


def task_type(caller: Caller) -> str:
    """The symmetry type of the prediction."""
    task = caller.task
    return next(each.symmetry for each in task.fields if each.name == task.prediction)


def blocks_of(symmetry: str, axes: int) -> dict[str, tuple[slice, ...]]:
    """Where the components of each irrep of a type stand in a tensor of so many ``axes``, by the
    irrep's name (``2x0e``; a second one of a name is ``2x0e (2)``)."""
    found: dict[str, tuple[slice, ...]] = {}
    kind = SymmetryType.parse(symmetry)
    leading = 1 if kind.voxel else axes - 1
    start = 0
    names = ["0e", "2e"]
    if not kind.cartesian:
        names = symmetry.strip().removeprefix("voxel(").removesuffix(")").split("+")
    for name, (copies, degree) in zip(map(str.strip, names), kind.irreps, strict=True):
        end = start + copies * (2 * degree + 1)
        repeated = sum(other.partition(" ")[0] == name for other in found)
        place = (*(slice(None),) * leading, slice(start, end)) if leading else ()
        found[f"{name} ({repeated + 1})" if repeated else name] = place
        start = end
    return found

"""The coefficients of what is computed along edges, without their zeros and repetitions: what the
code generators unroll.

On an edge, path p takes x to t[m3] = sum over m1 of M[m3, m1] x[m1], where M[m3, m1] = sum over m2
of C[m3, m1, m2] Y[m2] is the same for all channels. Many entries of M are zero and many are the
same combination of the Y[m2] (all of the diagonal where the edge's degree is 0, both halves of a
symmetric M): each different combination is a slot, computed once an edge.

The coefficients of a convolution are those of Clebsch and Gordan. PaiNN's message is three paths
with coefficients of one, of which two add to the same features; its Y are 1 and the direction.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import groupby

from equivbench.kernels.operations import Convolution, PaiNNMessage
from equivbench.kernels.operations.paths import coupling, features

EdgeOperation = Convolution | PaiNNMessage
"""What the generated kernels compute."""
Combination = tuple[tuple[int, float], ...]
"""(row of the harmonics, coefficient) pairs, by row."""


_NOISE = 1e-12
"""Far above the rounding of e3nn's float64 table and far below its smallest coefficient."""


@dataclass(frozen=True)
class Coupling:
    """One path: where its features and weights begin, and its matrix M by slots."""

    height: int
    """Rows m3 of M."""
    weights: int
    """The first of its weights in an edge's row."""
    output: int
    """The first of the features that it adds to in a node's row of the output."""
    entries: tuple[tuple[int, int, int], ...]
    """(m3, m1, slot) for each entry of M that is not zero."""


@dataclass(frozen=True)
class SourceFeatures:
    """Rows of x with the same channels, the paths from them, and where the rows lie."""

    number: int
    """Of a convolution their degree."""
    channels: int
    first: int
    """The first of the features in a node's row of x."""
    height: int
    """How many rows m1 there are."""
    paths: tuple[Coupling, ...]
    harmonics: tuple[int, ...]
    """The rows of the harmonics that the paths read."""

    @cached_property
    def outputs(self) -> tuple[tuple[Coupling, ...], ...]:
        """The paths, those together that add to the same features of the output."""
        return tuple(tuple(same) for _, same in groupby(self.paths, key=lambda path: path.output))

    def source(self, m1: int) -> int:
        """Where row m1 begins in a node's row of x."""
        return self.first + m1 * self.channels

    def target(self, path: Coupling, m3: int) -> int:
        """Where row m3 of the path begins in a node's row of the output."""
        return path.output + m3 * self.channels


@dataclass(frozen=True)
class Couplings:
    """All paths of an operation."""

    operation: EdgeOperation
    harmonics_size: int
    """Harmonics of an edge."""
    slots: tuple[Combination, ...]
    sources: tuple[SourceFeatures, ...]

    def rows(self, paths: Iterable[Coupling]) -> list[int]:
        """The harmonics that ``paths`` read."""
        slots = {slot for path in paths for *_, slot in path.entries}
        return sorted({row for slot in slots for row, _ in self.slots[slot]})


@lru_cache(maxsize=64)
def couplings(operation: EdgeOperation) -> Couplings:
    """The sparse coefficients of ``operation``; of a convolution e3nn's Wigner 3j in float64 times
    (2 l + 1)^1/2 of the target degree."""
    if isinstance(operation, PaiNNMessage):
        return _of_message(operation)
    return _of_convolution(operation)


def _of_message(operation: PaiNNMessage) -> Couplings:
    """The slots are the harmonics themselves: 1, x, y and z."""
    channels, axes = operation.channels, range(3)
    paths = [
        Coupling(1, 0, 0, ((0, 0, 0),)),
        Coupling(3, channels, channels, tuple((axis, 1, 1 + axis) for axis in axes)),
    ]
    if operation.vectors:
        entries = tuple((axis, 2 + axis, 0) for axis in axes)
        paths.append(Coupling(3, 2 * channels, channels, entries))
    height = operation.source_size // channels
    source = SourceFeatures(0, channels, 0, height, tuple(paths), (0, 1, 2, 3))
    return Couplings(operation, 4, tuple(((row, 1.0),) for row in range(4)), (source,))


def _of_convolution(operation: Convolution) -> Couplings:
    slots: dict[tuple[tuple[int, int], ...], tuple[int, Combination]] = {}
    paths: dict[int, list[Coupling]] = {}
    weights = output = 0
    for path in operation.paths:
        channels = operation.channels[path.source]
        entries: list[tuple[int, int, int]] = []
        for m3, matrix in enumerate(coupling(path).tolist()):
            for m1, row in enumerate(matrix):
                # e3nn's table holds zeros as rounding noise, and equal coefficients differ by it.
                combination = tuple(
                    (path.edge**2 + m2, value)
                    for m2, value in enumerate(row)
                    if abs(value) > _NOISE
                )
                if combination:
                    known = tuple((m2, round(value / _NOISE)) for m2, value in combination)
                    slot, _ = slots.setdefault(known, (len(slots), combination))
                    entries.append((m3, m1, slot))
        found = Coupling(2 * path.target + 1, weights, output, tuple(entries))
        paths.setdefault(path.source, []).append(found)
        weights += channels
        output += (2 * path.target + 1) * channels
    table = Couplings(
        operation,
        (operation.edge_lmax + 1) ** 2,
        tuple(combination for _, combination in slots.values()),
        (),
    )
    sources = tuple(
        SourceFeatures(
            degree,
            operation.channels[degree],
            features(operation.channels[:degree]),
            2 * degree + 1,
            tuple(mine),
            tuple(table.rows(mine)),
        )
        for degree, mine in sorted(paths.items())
    )
    return replace(table, sources=sources)

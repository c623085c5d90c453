"""Bytes and operations of a case, by formula: the floor that measured times are held against. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch

from equivbench.errors import UsageError
from equivbench.kernels.cases import Case
from equivbench.kernels.operations import Convolution, Operation, Path
from equivbench.records.kernels import MODES, Mode

INDEX_BYTES = 8
"""int64 indices."""


@dataclass(frozen=True)
class Costs:
    """What one call of a mode costs at least."""

    bytes_fused: float
    """Each pass of autograd reads its arguments once and writes its results once, and recomputes what lies between."""
    bytes_unfused: float
    """One operation after the other, each through memory."""
    operations: float
    """Useful floating-point operations: coefficients that are zero, and what is recomputed, do not count."""

    def __add__(self, other: Costs) -> Costs:
        return Costs(
            self.bytes_fused + other.bytes_fused,
            self.bytes_unfused + other.bytes_unfused,
            self.operations + other.operations,
        )


def costs(case: Case, mode: Mode, itemsize: int = 4) -> Costs:
    """Of one call of ``case`` in ``mode``, which is cumulative, with numbers of ``itemsize`` bytes.

    Raises ``UsageError`` for an operation without formulas.
    """
    total = Costs(0.0, 0.0, 0.0)
    for one in passes(case.operation, case, itemsize)[: MODES.index(mode) + 1]:
        total = total + one
    return total


@singledispatch
def passes(operation: Operation, case: Case, itemsize: int) -> tuple[Costs, ...]:
    """Costs of the forward, backward and double-backward pass alone; ``passes.register`` adds an operation."""
    raise UsageError(
        f"kernel operation {operation.name!r} has no cost formulas; register a function with equivbench.kernels.costs.passes"
    )


def coupled_pairs(path: Path) -> int:
    """Entries of the matrix [2 l_target + 1, 2 l_source + 1] that a path's coefficients make of a general harmonic.

    For real harmonics, orders m and n couple to |m| + |n| and ||m| - |n||, of one kind (cosine or sine), which must exist at
    the edge's degree. A few coefficients that the rule allows are zero by accident.
    """
    odd = (path.source + path.edge + path.target) % 2
    count = 0
    for m in range(-path.target, path.target + 1):
        for n in range(-path.source, path.source + 1):
            # Sines are the negative orders; an odd sum of degrees couples an odd number of them.
            sine = ((m < 0) + (n < 0) + odd) % 2
            orders = {abs(m) + abs(n), abs(abs(m) - abs(n))}
            count += any(k <= path.edge and not (sine and k == 0) for k in orders)
    return count


@passes.register
def _convolution(operation: Convolution, case: Case, itemsize: int) -> tuple[Costs, ...]:
    nodes, edges = case.sizes["nodes"], case.sizes["edges"]
    x, out = nodes * operation.source_size, nodes * operation.target_size
    gathered, messages = edges * operation.source_size, edges * operation.target_size
    harmonics, weights = edges * (operation.edge_lmax + 1) ** 2, edges * operation.weight_size
    index = 2 * edges * INDEX_BYTES
    pairs = edges * sum(operation.channels[path.source] * coupled_pairs(path) for path in operation.paths)
    sources = edges * sum(operation.channels[path.source] * (2 * path.source + 1) for path in operation.paths)
    arguments = x + harmonics + weights
    return (
        Costs(
            itemsize * (arguments + out) + index,
            # Gather, product, sum.
            itemsize * ((x + gathered) + (gathered + harmonics + weights + messages) + (messages + out)) + index,
            2 * pairs + 2 * messages,
        ),
        # From the output's gradient, those by x, harmonics and weights.
        Costs(
            itemsize * (2 * arguments + out) + index,
            itemsize * ((out + messages) + (messages + 2 * (gathered + harmonics + weights)) + (gathered + x)) + index,
            6 * pairs + 3 * messages + sources,
        ),
        # From gradients of these three, those by x, harmonics, weights and the output's gradient.
        Costs(
            itemsize * (3 * arguments + 2 * out) + index,
            itemsize
            * ((x + gathered) + (2 * messages + 3 * (gathered + harmonics + weights)) + (messages + out) + (gathered + x))
            + index,
            14 * pairs + 7 * messages + sources,
        ),
    )

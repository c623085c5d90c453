"""Bytes and operations of a case, by formula: the floor that measured times are held against.
Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch

from equivbench.errors import UsageError
from equivbench.kernels.attention_operations import InvariantPointAttention, PairBiasAttention
from equivbench.kernels.cases import Case
from equivbench.kernels.grid_operations import CubeConvolution, SteerableConvolution
from equivbench.kernels.operations import (
    Convolution,
    EdgeProduct,
    Linear,
    NeighbourSearch,
    Operation,
    Path,
    RadialBasis,
    SO2Convolution,
    SphericalHarmonics,
    features,
)
from equivbench.records.kernels import MODES, Mode

INDEX_BYTES = 8
"""int64 indices."""


@dataclass(frozen=True)
class Costs:
    """What one call of a mode costs at least."""

    bytes_fused: float
    """Each pass of autograd reads its arguments once and writes its results once, and recomputes
    what lies between."""
    bytes_unfused: float
    """One operation after the other, each through memory."""
    operations: float
    """Useful floating-point operations: coefficients that are zero, and what is recomputed, do not
    count."""

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
    """Costs of the forward, backward and double-backward pass alone; ``passes.register`` adds an
    operation."""
    raise UsageError(
        f"kernel operation {operation.name!r} has no cost formulas; register a function with equivbench.kernels.costs.passes"
    )


def coupled_orders(path: Path) -> list[int]:
    """For each pair of orders of target and source that a path couples, to how many orders of the
    harmonics.

    Its length counts entries of the matrix [2 l_target + 1, 2 l_source + 1] that the coefficients
    make of general harmonics, its sum the coefficients. For real harmonics, orders m and n couple
    to |m| + |n| and ||m| - |n||, of one kind (cosine or sine), which must exist at the edge's
    degree. A few coefficients that the rule allows are zero by accident.
    """
    odd = (path.source + path.edge + path.target) % 2
    found = []
    for m in range(-path.target, path.target + 1):
        for n in range(-path.source, path.source + 1):
            # Sines are the negative orders; an odd sum of degrees couples an odd number of them.
            sine = ((m < 0) + (n < 0) + odd) % 2
            orders = {abs(m) + abs(n), abs(abs(m) - abs(n))}
            found.append(sum(k <= path.edge and not (sine and k == 0) for k in orders))
    return [count for count in found if count]


@passes.register
def _convolution(operation: Convolution, case: Case, itemsize: int) -> tuple[Costs, ...]:
    nodes, edges = case.sizes["nodes"], case.sizes["edges"]
    x, out = nodes * operation.source_size, nodes * operation.target_size
    gathered, messages = edges * operation.source_size, edges * operation.target_size
    harmonics, weights = edges * (operation.edge_lmax + 1) ** 2, edges * operation.weight_size
    index = 2 * edges * INDEX_BYTES
    pairs = edges * sum(
        operation.channels[path.source] * len(coupled_orders(path)) for path in operation.paths
    )
    sources = edges * sum(
        operation.channels[path.source] * (2 * path.source + 1) for path in operation.paths
    )
    arguments = x + harmonics + weights
    return (
        Costs(
            itemsize * (arguments + out) + index,
            # Gather, product, sum.
            itemsize
            * ((x + gathered) + (gathered + harmonics + weights + messages) + (messages + out))
            + index,
            2 * pairs + 2 * messages,
        ),
        # From the output's gradient, those by x, harmonics and weights.
        Costs(
            itemsize * (2 * arguments + out) + index,
            itemsize
            * (
                (out + messages)
                + (messages + 2 * (gathered + harmonics + weights))
                + (gathered + x)
            )
            + index,
            6 * pairs + 3 * messages + sources,
        ),
        # From gradients of these three, those by x, harmonics, weights and the output's gradient.
        Costs(
            itemsize * (3 * arguments + 2 * out) + index,
            itemsize
            * (
                (x + gathered)
                + (2 * messages + 3 * (gathered + harmonics + weights))
                + (messages + out)
                + (gathered + x)
            )
            + index,
            14 * pairs + 7 * messages + sources,
        ),
    )


def _bilinear(
    itemsize: int, arguments: int, output: int, between: int, operations: float, index: int = 0
) -> tuple[Costs, ...]:
    """Of what is linear in each of two factors: one product forward, two backward, four for second
    derivatives.

    ``arguments``, ``output`` and what lies ``between`` (stored by one operation and read by the
    next) are in numbers, ``index`` in bytes. Pointwise functions are counted by the same rule.
    """
    return tuple(
        Costs(
            itemsize * (reads * arguments + writes * output) + index,
            itemsize * (reads * arguments + writes * output + 2 * products * between) + index,
            products * operations,
        )
        for reads, writes, products in ((1, 1, 1), (2, 1, 2), (3, 2, 4))
    )


@passes.register
def _spherical_harmonics(
    operation: SphericalHarmonics, case: Case, itemsize: int
) -> tuple[Costs, ...]:
    edges, size = case.sizes["edges"], (operation.lmax + 1) ** 2
    # Ten for the direction, then two products and a sum a harmonic, by recursion over degrees.
    return _bilinear(itemsize, 3 * edges, size * edges, 3 * edges, (10 + 3 * size) * edges)


@passes.register
def _linear(operation: Linear, case: Case, itemsize: int) -> tuple[Costs, ...]:
    nodes, x, out, weights, products = case.sizes["nodes"], 0, 0, 0, 0
    for degree, (inputs, outputs) in enumerate(
        zip(operation.inputs, operation.outputs, strict=True)
    ):
        rows = nodes * (2 * degree + 1)
        x, out = x + rows * inputs, out + rows * outputs
        weights, products = weights + inputs * outputs, products + rows * inputs * outputs
    return _bilinear(itemsize, x + weights, out, 0, 2 * products)


@passes.register
def _radial_basis(operation: RadialBasis, case: Case, itemsize: int) -> tuple[Costs, ...]:
    edges = case.sizes["edges"]
    # A sine and three products a function, a cosine and three more for the envelope.
    return _bilinear(
        itemsize,
        edges,
        edges * (operation.number + 1),
        edges * operation.number,
        edges * (4 * operation.number + 4),
    )


@passes.register
def _neighbour_search(operation: NeighbourSearch, case: Case, itemsize: int) -> tuple[Costs, ...]:
    atoms, pairs = (
        case.sizes["molecules"] * case.sizes["atoms"],
        case.sizes["molecules"] * case.sizes["atoms"] ** 2,
    )
    # How many edges come out depends on the positions: only what is read counts.
    read = itemsize * 3 * atoms + INDEX_BYTES * atoms
    nothing = Costs(0.0, 0.0, 0.0)
    return Costs(read, read + 2 * itemsize * pairs, 8 * pairs), nothing, nothing


@passes.register
def _edge_product(operation: EdgeProduct, case: Case, itemsize: int) -> tuple[Costs, ...]:
    edges, channels, rows = case.sizes["edges"], operation.channels, (operation.lmax + 1) ** 2
    features = edges * rows * channels
    arguments = (
        features
        + edges * (rows + (operation.lmax + 1) * channels)
        + len(operation.paths) * channels
    )
    outer = (
        sum((2 * path.source + 1) * (2 * path.edge + 1) for path in operation.paths)
        * edges
        * channels
    )
    coefficients = sum(sum(coupled_orders(path)) for path in operation.paths)
    heights = sum(2 * path.target + 1 for path in operation.paths)
    # The environment's two, three a coefficient, two a component of each path's product.
    operations = edges * channels * (2 * rows + 3 * coefficients + 2 * heights)
    return _bilinear(
        itemsize, arguments, features, 2 * features + outer, operations, 2 * edges * INDEX_BYTES
    )


@passes.register
def _so2_convolution(operation: SO2Convolution, case: Case, itemsize: int) -> tuple[Costs, ...]:
    nodes, edges, mmax = case.sizes["nodes"], case.sizes["edges"], operation.mmax
    channels, hidden, degrees = operation.channels, operation.hidden, range(operation.lmax + 1)
    rows, kept = (operation.lmax + 1) ** 2, sum(2 * min(degree, mmax) + 1 for degree in degrees)
    wigner = edges * sum((2 * min(degree, mmax) + 1) * (2 * degree + 1) for degree in degrees)
    maps = (
        sum((1 if m == 0 else 4) * count**2 for m, count in enumerate(operation.degrees))
        * channels
        * hidden
    )
    set_up = edges * sum(4 * (2 * degree + 1) ** 3 for degree in degrees)
    scales = edges * sum(operation.degrees) * channels
    return _bilinear(
        itemsize,
        nodes * rows * channels + 3 * edges + scales + operation.mixing_size,
        nodes * rows * hidden,
        wigner + edges * (rows + kept) * (channels + hidden),
        2 * wigner * (channels + hidden) + 2 * edges * maps + set_up,
        2 * edges * INDEX_BYTES,
    )


@passes.register
def _pair_bias_attention(
    operation: PairBiasAttention, case: Case, itemsize: int
) -> tuple[Costs, ...]:
    rows = case.sizes["samples"] * case.sizes["residues"] * operation.heads
    return _attention(
        itemsize,
        rows,
        case.sizes["residues"],
        operation.width,
        operation.width,
        4 * operation.width,
        0,
    )


@passes.register
def _invariant_point_attention(
    operation: InvariantPointAttention, case: Case, itemsize: int
) -> tuple[Costs, ...]:
    places = case.sizes["samples"] * case.sizes["residues"]
    points = 2 * operation.query_points + operation.value_points
    return _attention(
        itemsize,
        places * operation.heads,
        case.sizes["residues"],
        operation.scalars + 3 * operation.query_points,
        operation.scalars + 3 * operation.value_points,
        4 * operation.scalars + 3 * points + operation.value_points,
        12 * places,
    )


def _attention(
    itemsize: int, rows: int, residues: int, query: int, value: int, numbers: int, geometry: int
) -> tuple[Costs, ...]:
    """Of ``rows`` = samples * residues * heads queries; ``numbers`` go in and out for each,
    ``geometry`` for all."""
    logits = rows * residues
    # Two products, and about five operations a logit for bias and softmax.
    return _bilinear(
        itemsize,
        rows * numbers + logits + geometry,
        0,
        2 * logits,
        logits * (2 * query + 2 * value + 5),
    )


@passes.register
def _steerable_convolution(
    operation: SteerableConvolution, case: Case, itemsize: int
) -> tuple[Costs, ...]:
    inputs, outputs = features(operation.inputs), features(operation.outputs)
    weights = operation.radial * sum(
        operation.inputs[path.source] * operation.outputs[path.target] for path in operation.paths
    )
    return _grid(itemsize, case, inputs, outputs, weights, 2 * operation.reach + 1)


@passes.register
def _cube_convolution(operation: CubeConvolution, case: Case, itemsize: int) -> tuple[Costs, ...]:
    weights = operation.inputs * operation.outputs * 24 * operation.kernel**3
    return _grid(
        itemsize, case, 24 * operation.inputs, 24 * operation.outputs, weights, operation.kernel
    )


def _grid(
    itemsize: int, case: Case, inputs: int, outputs: int, weights: int, kernel: int
) -> tuple[Costs, ...]:
    """Of a dense convolution whose kernel is expanded from ``weights``."""
    voxels, bank = case.sizes["samples"] * case.sizes["size"] ** 3, inputs * outputs * kernel**3
    return _bilinear(itemsize, voxels * inputs + weights, voxels * outputs, bank, 2 * voxels * bank)

"""Random inputs of a case, in the stated layout: the same numbers for every backend, dtype and
device."""

from __future__ import annotations

from functools import singledispatch

import torch
from torch import Generator, Tensor

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
    RadialBasis,
    SO2Convolution,
    SphericalHarmonics,
    features,
)
from equivbench.symmetry.rotations import random_rotations


def make_inputs(
    case: Case, *, dtype: torch.dtype, device: torch.device, seed: int = 0
) -> dict[str, Tensor]:
    """The inputs that ``case.operation`` states, of order one, none of which requires a gradient.

    They are drawn in float64 on the CPU and fixed by ``seed`` alone, then rounded to numbers that
    float32 holds, so that a float32 kernel and its float64 reference see the same ones, and cast to
    ``dtype``.
    """
    drawn = draw(case.operation, case, torch.Generator().manual_seed(seed))
    return {
        name: tensor.float().to(device=device, dtype=dtype)
        if tensor.is_floating_point()
        else tensor.to(device)
        for name, tensor in drawn.items()
    }


@singledispatch
def draw(operation: Operation, case: Case, generator: Generator) -> dict[str, Tensor]:
    """Float64 inputs of ``operation`` at the sizes of ``case``; ``draw.register`` adds an
    operation."""
    raise UsageError(
        f"kernel operation {operation.name!r} has no inputs; register a function with equivbench.kernels.inputs.draw"
    )


@draw.register
def _convolution(operation: Convolution, case: Case, generator: Generator) -> dict[str, Tensor]:
    nodes, edges = case.sizes["nodes"], case.sizes["edges"]
    # Normal numbers, not the harmonics of directions: their constant first column would hide a
    # kernel that ignores it.
    return {
        "x": normal(generator, nodes, operation.source_size),
        "harmonics": normal(generator, edges, (operation.edge_lmax + 1) ** 2),
        "weights": normal(generator, edges, operation.weight_size),
        "edge_index": neighbour_pairs(generator, nodes, edges),
    }


@draw.register
def _spherical_harmonics(
    operation: SphericalHarmonics, case: Case, generator: Generator
) -> dict[str, Tensor]:
    return {"vectors": _bonds(generator, case.sizes["edges"])}


@draw.register
def _linear(operation: Linear, case: Case, generator: Generator) -> dict[str, Tensor]:
    rows = features(operation.inputs)
    size = sum(
        inputs * outputs
        for inputs, outputs in zip(operation.inputs, operation.outputs, strict=True)
    )
    # Outputs of order one, as in a network.
    return {
        "x": normal(generator, case.sizes["nodes"], rows),
        "weights": normal(generator, size) * max(operation.inputs) ** -0.5,
    }


@draw.register
def _radial_basis(operation: RadialBasis, case: Case, generator: Generator) -> dict[str, Tensor]:
    # From a short bond to beyond the cutoff, where all is zero.
    unit = torch.rand(case.sizes["edges"], generator=generator, dtype=torch.float64)
    return {"distances": 0.8 + unit * (1.1 * operation.cutoff - 0.8)}


@draw.register
def _neighbour_search(
    operation: NeighbourSearch, case: Case, generator: Generator
) -> dict[str, Tensor]:
    molecules, atoms = case.sizes["molecules"], case.sizes["atoms"]
    # A normal cloud about as dense as a molecule: 10 A^3 an atom within two standard deviations.
    width = (10 * atoms * 3 / (4 * torch.pi)) ** (1 / 3) / 2
    return {
        "pos": normal(generator, molecules * atoms, 3) * width,
        "batch": torch.arange(molecules).repeat_interleave(atoms),
    }


@draw.register
def _edge_product(operation: EdgeProduct, case: Case, generator: Generator) -> dict[str, Tensor]:
    edges, degrees = case.sizes["edges"], operation.lmax + 1
    return {
        "x": normal(generator, edges, degrees**2 * operation.channels),
        "harmonics": normal(generator, edges, degrees**2),
        "environment": normal(generator, edges, degrees * operation.channels),
        "weights": normal(generator, len(operation.paths), operation.channels),
        "edge_index": neighbour_pairs(generator, case.sizes["nodes"], edges),
    }


@draw.register
def _so2_convolution(
    operation: SO2Convolution, case: Case, generator: Generator
) -> dict[str, Tensor]:
    nodes, edges = case.sizes["nodes"], case.sizes["edges"]
    fan_in = operation.channels * (operation.lmax + 1)
    return {
        "x": normal(generator, nodes, (operation.lmax + 1) ** 2 * operation.channels),
        "vectors": _away_from_axis(_bonds(generator, edges)),
        "weights": normal(generator, edges, sum(operation.degrees) * operation.channels),
        "mixing": normal(generator, operation.mixing_size) * fan_in**-0.5,
        "edge_index": neighbour_pairs(generator, nodes, edges),
    }


@draw.register
def _pair_bias_attention(
    operation: PairBiasAttention, case: Case, generator: Generator
) -> dict[str, Tensor]:
    shape = case.sizes["samples"], operation.heads, case.sizes["residues"]
    drawn = {name: normal(generator, *shape, operation.width) for name in ("query", "key", "value")}
    return {**drawn, "bias": normal(generator, *shape, shape[-1])}


@draw.register
def _invariant_point_attention(
    operation: InvariantPointAttention, case: Case, generator: Generator
) -> dict[str, Tensor]:
    samples, residues, heads = case.sizes["samples"], case.sizes["residues"], operation.heads
    drawn = {
        name: normal(generator, samples, residues, heads, operation.scalars)
        for name in ("query", "key", "value")
    }
    points = {
        "query": operation.query_points,
        "key": operation.query_points,
        "value": operation.value_points,
    }
    for name, count in points.items():
        drawn[f"{name}_points"] = normal(generator, samples, residues, heads, count, 3)
    return {
        **drawn,
        "bias": normal(generator, samples, heads, residues, residues),
        "point_weight": 0.1
        + torch.rand(heads, generator=generator, dtype=torch.float64) / operation.query_points,
        "frames": random_rotations(
            samples * residues, generator=generator, dtype=torch.float64
        ).view(samples, residues, 3, 3),
        "positions": normal(generator, samples, residues, 3),
    }


@draw.register
def _steerable_convolution(
    operation: SteerableConvolution, case: Case, generator: Generator
) -> dict[str, Tensor]:
    rows = features(operation.inputs)
    size = sum(
        operation.inputs[path.source] * operation.outputs[path.target] for path in operation.paths
    )
    return {
        "x": normal(generator, case.sizes["samples"], rows, *(case.sizes["size"],) * 3),
        "weights": normal(generator, operation.radial, size) * rows**-0.5,
    }


@draw.register
def _cube_convolution(
    operation: CubeConvolution, case: Case, generator: Generator
) -> dict[str, Tensor]:
    taps = 24 * operation.kernel**3
    return {
        "x": normal(
            generator, case.sizes["samples"], 24 * operation.inputs, *(case.sizes["size"],) * 3
        ),
        "weights": normal(generator, operation.outputs, operation.inputs, taps)
        * (taps * operation.inputs) ** -0.5,
    }


def _bonds(generator: Generator, edges: int) -> Tensor:
    """[edges, 3] vectors of 1 to 5 A in all directions."""
    vectors = normal(generator, edges, 3)
    length = 1 + 4 * torch.rand(edges, 1, generator=generator, dtype=torch.float64)
    unit: Tensor = vectors / vectors.norm(dim=1, keepdim=True)
    return unit * length


def _away_from_axis(vectors: Tensor) -> Tensor:
    """``vectors`` with x, y, z turned to y, z, x where y is more than .9 of the length.

    The published way to Wigner matrices is by angles; near the polar axis y its derivatives lose
    digits in float32.
    """
    near = vectors[:, 1].abs() > 0.9 * vectors.norm(dim=1)
    return torch.where(near[:, None], vectors.roll(1, dims=1), vectors)


def normal(generator: Generator, *shape: int) -> Tensor:
    """Standard normal numbers in float64."""
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def neighbour_pairs(generator: Generator, nodes: int, edges: int) -> Tensor:
    """[2, edges] int64, like the neighbour list of molecules one after the other: near atoms only,
    both directions.

    Pairs i < j in order, then the same pairs turned round, as a half list gives them: not sorted by
    centre. Raises ``UsageError`` where there are not that many pairs.
    """
    half = edges // 2
    # Each atom may meet the atoms up to `reach` further on; twice as many candidates as pairs keep
    # the degrees uneven.
    reach = min(nodes - 1, max(1, -(-2 * half // max(1, nodes))))
    first = torch.arange(nodes).repeat_interleave(reach)
    second = first + torch.arange(1, reach + 1).repeat(nodes)
    candidates = torch.stack([first, second])[:, second < nodes]
    if edges % 2 or half > candidates.shape[1]:
        raise UsageError(
            f"{nodes} nodes have no {edges} edges that come in both directions; choose an even, smaller number"
        )
    chosen = torch.randperm(candidates.shape[1], generator=generator)[:half].sort().values
    pairs = candidates[:, chosen]
    return torch.cat([pairs, pairs.flip(0)], dim=1)

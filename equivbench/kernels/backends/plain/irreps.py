"""Operations on irreps of nodes and edges in plain torch: maps, harmonics, radial functions,
Allegro's product."""

from __future__ import annotations

import math

import torch
from e3nn import o3
from e3nn.math import soft_one_hot_linspace
from torch import Tensor

from equivbench.kernels.backend import Kernel, Tensors
from equivbench.kernels.operations import EdgeProduct, Linear, RadialBasis, SphericalHarmonics
from equivbench.kernels.operations.paths import coupling
from equivbench.kernels.sums import sum_by

METHOD = "torch"


def envelope(distance: Tensor, cutoff: float) -> Tensor:
    """Cosine cutoff (Behler 2011): 1 at 0, 0 with zero slope at ``cutoff``."""
    return 0.5 * (torch.cos(distance * (math.pi / cutoff)) + 1.0) * (distance < cutoff)


def radial_basis(distance: Tensor, cutoff: float, number: int) -> Tensor:
    """[edges, number + 1]: Bessel functions sin(n pi d / cutoff) / d times the cosine cutoff, then
    the cutoff itself.

    A linear map of it is what the literature writes as (W rbf + b) f_cut: the last column carries
    the bias.
    """
    # The basis is of order 1 / d: a factor of 2 brings it to order 1 at a bond length.
    bessel = soft_one_hot_linspace(distance, 0.0, cutoff, number, basis="bessel", cutoff=True) * 2.0
    smooth = envelope(distance, cutoff).unsqueeze(-1)
    return torch.cat([bessel * smooth, smooth], dim=-1)


def radial_kernel(operation: RadialBasis, like: Tensor) -> Kernel:
    """The networks' radial basis."""
    return Kernel(
        lambda inputs: radial_basis(inputs["distances"], operation.cutoff, operation.number), METHOD
    )


def unit_vectors(vectors: Tensor) -> Tensor:
    """[edges, 3] directions; 0 for a vector of length 0, with derivatives of 0, where a norm's own
    are infinite or no number."""
    squared = vectors.square().sum(1, keepdim=True)
    nowhere = squared == 0
    return (vectors / squared.masked_fill(nowhere, 1.0).sqrt()).masked_fill(nowhere, 0.0)


def harmonics_kernel(operation: SphericalHarmonics, like: Tensor) -> Kernel:
    """e3nn's polynomials, which are plain torch."""
    degrees = list(range(operation.lmax + 1))

    def run(inputs: Tensors) -> Tensor:
        out: Tensor = o3.spherical_harmonics(
            degrees, unit_vectors(inputs["vectors"]), normalize=False, normalization="component"
        )
        return out

    return Kernel(run, METHOD)


def linear_kernel(operation: Linear, like: Tensor) -> Kernel:
    """A matrix product a degree."""
    degrees = range(len(operation.inputs))
    rows = [(2 * degree + 1) * operation.inputs[degree] for degree in degrees]
    sizes = list(operation.weight_sizes)

    def run(inputs: Tensors) -> Tensor:
        out = []
        parts = zip(
            torch.split(inputs["x"], rows, dim=1),
            torch.split(inputs["weights"], sizes),
            strict=True,
        )
        for degree, (part, weights) in enumerate(parts):
            matrix = weights.view(operation.inputs[degree], operation.outputs[degree])
            out.append((part.reshape(-1, operation.inputs[degree]) @ matrix).view(len(part), -1))
        return torch.cat(out, dim=1)

    return Kernel(run, METHOD)


def edge_product_kernel(operation: EdgeProduct, like: Tensor) -> Kernel:
    """For each pair of degrees, the products of all components and one matrix product with the
    coefficients of their paths."""
    heights = [2 * degree + 1 for degree in range(operation.lmax + 1)]
    degree_of_row = torch.repeat_interleave(torch.tensor(heights)).to(like.device)
    pairs: dict[tuple[int, int], list[tuple[int, int]]] = {}
    blocks: dict[tuple[int, int], list[Tensor]] = {}
    for number, path in enumerate(operation.paths):
        pairs.setdefault((path.source, path.edge), []).append((number, path.target))
        blocks.setdefault((path.source, path.edge), []).append(coupling(path).flatten(1))
    couplings = {pair: torch.cat(found).to(like) for pair, found in blocks.items()}

    def run(inputs: Tensors) -> Tensor:
        edges, centre = len(inputs["x"]), inputs["edge_index"][1]
        environment = inputs["environment"].view(edges, len(heights), operation.channels)
        weighted = environment.index_select(1, degree_of_row) * inputs["harmonics"].unsqueeze(2)
        # One row an edge is enough for any centre: edges are not fewer than the centres that they
        # have.
        centres, place = torch.unique(centre, return_inverse=True)
        sums = sum_by(place, weighted, len(centres))
        around = torch.split(sums.index_select(0, place), heights, dim=1)
        features = torch.split(
            inputs["x"].view(edges, sum(heights), operation.channels), heights, dim=1
        )
        out: list[Tensor | None] = [None] * len(heights)
        for (source, edge), found in pairs.items():
            outer = (features[source].unsqueeze(2) * around[edge].unsqueeze(1)).flatten(1, 2)
            products = couplings[source, edge] @ outer
            for (number, target), product in zip(
                found,
                torch.split(products, [heights[target] for _, target in found], dim=1),
                strict=True,
            ):
                term = product * inputs["weights"][number]
                before = out[target]
                out[target] = term if before is None else before + term
        return torch.cat([one for one in out if one is not None], dim=1).flatten(1)

    return Kernel(run, METHOD)

"""Operations on irreps of nodes and edges in plain torch: maps, harmonics, radial functions, neighbours, Allegro's product."""

from __future__ import annotations

import math

import torch
from e3nn import o3
from e3nn.math import soft_one_hot_linspace
from torch import Tensor

from equivbench.kernels.backend import Kernel, Tensors
from equivbench.kernels.operations import EdgeProduct, Linear, NeighbourSearch, RadialBasis, SphericalHarmonics

METHOD = "torch"


def envelope(distance: Tensor, cutoff: float) -> Tensor:
    """Cosine cutoff (Behler 2011): 1 at 0, 0 with zero slope at ``cutoff``."""
    return 0.5 * (torch.cos(distance * (math.pi / cutoff)) + 1.0) * (distance < cutoff)


def radial_basis(distance: Tensor, cutoff: float, number: int) -> Tensor:
    """[edges, number + 1]: Bessel functions sin(n pi d / cutoff) / d times the cosine cutoff, then the cutoff itself.

    A linear map of it is what the literature writes as (W rbf + b) f_cut: the last column carries the bias.
    """
    # The basis is of order 1 / d: a factor of 2 brings it to order 1 at a bond length.
    bessel = soft_one_hot_linspace(distance, 0.0, cutoff, number, basis="bessel", cutoff=True) * 2.0
    smooth = envelope(distance, cutoff).unsqueeze(-1)
    return torch.cat([bessel * smooth, smooth], dim=-1)


def edges_within(pos: Tensor, batch: Tensor, cutoff: float, max_neighbours: int | None = None) -> Tensor:
    """Directed edges between atoms of one molecule that are closer than ``cutoff``: masked pairs of padded molecules.

    Parameters
    ----------
    pos
        [atoms, 3] positions in A.
    batch
        [atoms] int64, sorted molecule index.
    cutoff
        In A; a pair at exactly this distance is left out.
    max_neighbours
        Keep only the nearest so many sources of each target (ties: the lower atom index), or all if None.

    Returns
    -------
    edge_index [2, edges] int64: row 0 the source (sender) j, row 1 the target (receiver) i, sorted by target, then source.
    Distances are computed in float64. Memory is molecules * widest^2, not atoms^2.
    """
    if len(pos) == 0:
        return batch.new_empty(2, 0)
    n_atoms = torch.bincount(batch)
    first = n_atoms.cumsum(0) - n_atoms
    widest = int(n_atoms.max())
    atom = torch.arange(len(pos), device=pos.device)
    place = batch * widest + atom - first[batch]
    # Empty places are NaN: no comparison with NaN holds, so they never make an edge.
    padded = pos.new_full((3, len(n_atoms) * widest), torch.nan, dtype=torch.float64)
    padded[:, place] = pos.detach().double().T
    padded = padded.view(3, -1, widest)
    distance2 = torch.zeros((), dtype=torch.float64, device=pos.device)
    for coordinate in padded:
        distance2 = distance2 + (coordinate[:, :, None] - coordinate[:, None, :]).square_()
    distance2.diagonal(dim1=1, dim2=2).fill_(torch.inf)
    close = distance2 < cutoff * cutoff
    if max_neighbours is not None and max_neighbours < widest - 1:
        nearest = distance2.argsort(dim=2, stable=True)[..., :max_neighbours]
        close &= torch.zeros_like(close).scatter_(2, nearest, True)
    molecule, target, source = close.nonzero(as_tuple=True)
    start = first[molecule]
    return torch.stack([start + source, start + target])


def radial_kernel(operation: RadialBasis, *, dtype: torch.dtype, device: torch.device) -> Kernel:
    """The networks' radial basis."""
    return Kernel(lambda inputs: radial_basis(inputs["distances"], operation.cutoff, operation.number), METHOD)


def neighbour_kernel(operation: NeighbourSearch, *, dtype: torch.dtype, device: torch.device) -> Kernel:
    """The data pipeline's neighbour search."""
    return Kernel(lambda inputs: edges_within(inputs["pos"], inputs["batch"], operation.cutoff), METHOD)


def harmonics_kernel(operation: SphericalHarmonics, *, dtype: torch.dtype, device: torch.device) -> Kernel:
    """e3nn's polynomials, which are plain torch."""
    degrees = list(range(operation.lmax + 1))

    def run(inputs: Tensors) -> Tensor:
        out: Tensor = o3.spherical_harmonics(degrees, inputs["vectors"], normalize=True, normalization="component")
        return out

    return Kernel(run, METHOD)


def linear_kernel(operation: Linear, *, dtype: torch.dtype, device: torch.device) -> Kernel:
    """A matrix product a degree."""
    degrees = range(len(operation.inputs))
    rows = [(2 * degree + 1) * operation.inputs[degree] for degree in degrees]
    sizes = [operation.inputs[degree] * operation.outputs[degree] for degree in degrees]

    def run(inputs: Tensors) -> Tensor:
        out = []
        parts = zip(torch.split(inputs["x"], rows, dim=1), torch.split(inputs["weights"], sizes), strict=True)
        for degree, (part, weights) in enumerate(parts):
            matrix = weights.view(operation.inputs[degree], operation.outputs[degree])
            out.append((part.reshape(-1, operation.inputs[degree]) @ matrix).view(len(part), -1))
        return torch.cat(out, dim=1)

    return Kernel(run, METHOD)


def edge_product_kernel(operation: EdgeProduct, *, dtype: torch.dtype, device: torch.device) -> Kernel:
    """For each pair of degrees, the products of all components and one matrix product with the coefficients of their paths."""
    heights = [2 * degree + 1 for degree in range(operation.lmax + 1)]
    degree_of_row = torch.repeat_interleave(torch.tensor(heights)).to(device)
    pairs: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for number, path in enumerate(operation.paths):
        pairs.setdefault((path.source, path.edge), []).append((number, path.target))
    couplings = {}
    for (source, edge), found in pairs.items():
        blocks = [o3.wigner_3j(target, source, edge, dtype=torch.float64) * (2 * target + 1) ** 0.5 for _, target in found]
        couplings[source, edge] = torch.cat([block.flatten(1) for block in blocks]).to(dtype=dtype, device=device)

    def run(inputs: Tensors) -> Tensor:
        edges, centre = len(inputs["x"]), inputs["edge_index"][1]
        environment = inputs["environment"].view(edges, len(heights), operation.channels)
        weighted = environment.index_select(1, degree_of_row) * inputs["harmonics"].unsqueeze(2)
        # One row an edge is enough for any centre: edges are not fewer than the centres that they have.
        centres, place = torch.unique(centre, return_inverse=True)
        sums = weighted.new_zeros(len(centres), *weighted.shape[1:]).index_add(0, place, weighted)
        around = torch.split(sums.index_select(0, place), heights, dim=1)
        features = torch.split(inputs["x"].view(edges, -1, operation.channels), heights, dim=1)
        out: list[Tensor | None] = [None] * len(heights)
        for (source, edge), found in pairs.items():
            outer = (features[source].unsqueeze(2) * around[edge].unsqueeze(1)).flatten(1, 2)
            products = couplings[source, edge] @ outer
            for (number, target), product in zip(
                found, torch.split(products, [heights[target] for _, target in found], dim=1), strict=True
            ):
                term = product * inputs["weights"][number]
                before = out[target]
                out[target] = term if before is None else before + term
        return torch.cat([one for one in out if one is not None], dim=1).flatten(1)

    return Kernel(run, METHOD)

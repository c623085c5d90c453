"""References of the operations on irreps of nodes and edges, each by another way than the
backends."""

from __future__ import annotations

import math

import torch
from e3nn import o3
from torch import Tensor

from equivbench.kernels.operations import (
    EdgeProduct,
    Linear,
    NeighbourSearch,
    RadialBasis,
    SO2Convolution,
    SphericalHarmonics,
)
from equivbench.kernels.references.convolution import coupling


def spherical_harmonics(operation: SphericalHarmonics, vectors: Tensor) -> Tensor:
    """By recursion: Y_l+1 is the top component of Y_l (x) Y_1, with norm (2 l + 3)^1/2 and positive
    on the polar axis, y."""
    unit = vectors / vectors.square().sum(1, keepdim=True).sqrt()
    degrees = [torch.ones_like(unit[:, :1])]
    pole = [unit.new_ones(1)]
    for degree in range(1, operation.lmax + 1):
        wigner = o3.wigner_3j(degree, degree - 1, 1, dtype=torch.float64).to(unit)
        top = torch.einsum("abc,b,c->a", wigner, pole[-1], unit.new_tensor([0.0, 1.0, 0.0]))
        # On the pole only the component of order 0 is there.
        scale = (2 * degree + 1) ** 0.5 / top[degree]
        pole.append(top * scale)
        degrees.append(torch.einsum("abc,nb,nc->na", wigner, degrees[-1], unit) * scale)
    return torch.cat(degrees, dim=1)


def linear(operation: Linear, x: Tensor, weights: Tensor) -> Tensor:
    """Degree by degree."""
    out, row, start = [], 0, 0
    for degree, (inputs, outputs) in enumerate(
        zip(operation.inputs, operation.outputs, strict=True)
    ):
        height = 2 * degree + 1
        part = x[:, row : row + height * inputs].reshape(-1, height, inputs)
        matrix = weights[start : start + inputs * outputs].reshape(inputs, outputs)
        out.append(torch.einsum("nac,cd->nad", part, matrix).flatten(1))
        row, start = row + height * inputs, start + inputs * outputs
    return torch.cat(out, dim=1)


def radial_basis(operation: RadialBasis, distances: Tensor) -> Tensor:
    """As stated."""
    cutoff = operation.cutoff
    inside = distances < cutoff
    envelope = torch.where(inside, torch.cos(math.pi / 2 * distances / cutoff) ** 2, 0.0)
    waves = [
        torch.sin(n * math.pi * distances / cutoff) / distances
        for n in range(1, operation.number + 1)
    ]
    return torch.stack(
        [*(2 * (2 / cutoff) ** 0.5 * wave * envelope for wave in waves), envelope], dim=1
    )


def neighbour_search(operation: NeighbourSearch, pos: Tensor, batch: Tensor) -> Tensor:
    """All pairs of all atoms."""
    near = (pos[:, None] - pos[None]).square().sum(-1) < operation.cutoff**2
    near &= (batch[:, None] == batch[None]) & ~torch.eye(
        len(pos), dtype=torch.bool, device=pos.device
    )
    centre, neighbour = near.nonzero(as_tuple=True)
    return torch.stack([neighbour, centre])


def edge_product(
    operation: EdgeProduct,
    x: Tensor,
    harmonics: Tensor,
    environment: Tensor,
    weights: Tensor,
    edge_index: Tensor,
) -> Tensor:
    """One coefficient at a time, so that autograd keeps views only."""
    channels, centre = operation.channels, edge_index[1]
    features = x.reshape(len(x), (operation.lmax + 1) ** 2, channels)
    by_degree = environment.reshape(len(x), operation.lmax + 1, channels)
    degree_of_row = [degree for degree in range(operation.lmax + 1) for _ in range(2 * degree + 1)]
    weighted = by_degree[:, degree_of_row] * harmonics[:, :, None]
    nodes = int(edge_index.max()) + 1 if len(x) else 0
    around = weighted.new_zeros(nodes, *weighted.shape[1:]).index_add(0, centre, weighted)[centre]
    out: list[Tensor] = [torch.zeros_like(features[:, 0]) for _ in degree_of_row]
    for path, weight in zip(operation.paths, weights, strict=True):
        coefficients = coupling(path)
        for t, s, e in coefficients.abs().gt(1e-9).nonzero().tolist():
            product = features[:, path.source**2 + s] * around[:, path.edge**2 + e]
            row = path.target**2 + t
            out[row] = out[row] + float(coefficients[t, s, e]) * product * weight
    return torch.stack(out, dim=1).flatten(1)


def so2_convolution(
    operation: SO2Convolution,
    x: Tensor,
    vectors: Tensor,
    weights: Tensor,
    mixing: Tensor,
    edge_index: Tensor,
) -> Tensor:
    """With Wigner matrices as matrix exponentials of the shortest rotation to the axis, and dense
    maps of all rows."""
    lmax, channels, hidden = operation.lmax, operation.channels, operation.hidden
    turn = _wigner(lmax, vectors)
    turned = turn @ x.reshape(len(x), (lmax + 1) ** 2, channels)[edge_index[0]]
    rows = {
        m: [degree**2 + degree + m for degree in range(abs(m), lmax + 1)]
        for m in range(-operation.mmax, operation.mmax + 1)
    }
    mixed = turned.new_zeros(*turned.shape[:2], hidden)
    first = start = 0
    for m, count in enumerate(operation.degrees):
        scale = weights[:, first : first + count * channels]
        size = count * channels * count * hidden
        maps = mixing[start : start + (1 if m == 0 else 2) * size].reshape(
            -1, count * channels, count * hidden
        )
        plus = turned[:, rows[m]].flatten(1) * scale
        if m == 0:
            mixed = mixed.index_copy(
                1,
                x.new_tensor(rows[0], dtype=torch.int64),
                (plus @ maps[0]).view(-1, count, hidden),
            )
        else:
            minus = turned[:, rows[-m]].flatten(1) * scale
            cosine, sine = plus @ maps[0] - minus @ maps[1], minus @ maps[0] + plus @ maps[1]
            both = torch.cat([cosine, sine], dim=1).view(-1, 2 * count, hidden)
            mixed = mixed.index_copy(1, x.new_tensor(rows[m] + rows[-m], dtype=torch.int64), both)
        first, start = first + count * channels, start + len(maps) * size
    messages = (turn.mT @ mixed).flatten(1)
    out: Tensor = messages.new_zeros(len(x), messages.shape[1]).index_add(
        0, edge_index[1], messages
    )
    return out


def _wigner(lmax: int, vectors: Tensor) -> Tensor:
    """[edges, (lmax + 1)^2, (lmax + 1)^2]: Wigner matrices of the shortest rotation from each
    vector to y, not from -y."""
    unit = vectors / vectors.square().sum(1, keepdim=True).sqrt()
    x, y, z = unit.unbind(1)
    sine = (x.square() + z.square()).sqrt()
    angle = torch.atan2(sine, y)
    # unit cross y, over its length.
    axis = torch.stack([-z, torch.zeros_like(y), x], dim=1) / sine[:, None]
    size = (lmax + 1) ** 2
    out = torch.nn.functional.pad(torch.ones_like(unit[:, :1, None]), (0, size - 1) * 2)
    for degree in range(1, lmax + 1):
        generators = _generators(degree).to(unit)
        block = torch.linalg.matrix_exp(
            torch.einsum("nk,kij->nij", axis * angle[:, None], generators)
        )
        pad = (degree**2, size - (degree + 1) ** 2)
        out = out + torch.nn.functional.pad(block, pad * 2)
    return out


def _generators(degree: int) -> Tensor:
    """[3, 2 l + 1, 2 l + 1] float64 generators of rotations about x, y, z: the Wigner 3j symbols of
    l, 1, l, scaled."""
    found: Tensor = (
        o3.wigner_3j(1, degree, degree, dtype=torch.float64)
        * (degree * (degree + 1) * (2 * degree + 1)) ** 0.5
    )
    # Of the two signs only one has [x, y] = z.
    sign = torch.einsum("ij,ij->", found[0] @ found[1] - found[1] @ found[0], found[2]).sign()
    return found * sign

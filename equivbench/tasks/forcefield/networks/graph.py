"""Gather and sum on a molecular graph, and the neighbours of every atom as a padded table.

Source j is row 0 of ``edge_index``, target i is row 1, edges are sorted by i. ``index_select`` and
``index_add`` are written out because on a CPU they are 5-10 times as fast as ``x[index]`` and its
backward.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from equivbench.kernels.backends.plain.irreps import envelope as envelope
from equivbench.kernels.backends.plain.irreps import radial_basis as radial_basis
from equivbench.kernels.sums import sum_by as sum_by
from equivbench.kernels.sums import widened as widened

ELEMENTS = 100
"""Rows of an element embedding: atomic numbers 0 to 99."""


def edge_vectors(pos: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
    """(r_j - r_i [edges, 3], its length [edges]), in A, differentiable in ``pos``."""
    vectors = pos.index_select(0, edge_index[0]) - pos.index_select(0, edge_index[1])
    return vectors, vectors.square().sum(-1).sqrt()


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Linear, SiLU, Linear."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, outputs))


class EdgeLinear(nn.Linear):
    """A linear map without a bias, of few numbers for each of many edges."""

    def forward(self, geometry: Tensor) -> Tensor:
        """[edges, outputs]: with its weights row by row torch takes the faster of two products for
        their gradient."""
        return geometry @ self.weight.t().contiguous()


class MolecularNetwork(nn.Module):
    """``forward(z, pos, batch, edge_index, n_atoms)`` returns ``forces`` [atoms, 3] eV/A and
    ``energy`` [molecules] eV: what :meth:`predict` reads from the edges within ``cutoff``."""

    def __init__(self, channels: int, cutoff: float, radial: int) -> None:
        super().__init__()
        self.requires = {"edge_index": cutoff, "n_atoms": 1.0}
        self.cutoff, self.radial = cutoff, radial
        self.embedding = nn.Embedding(ELEMENTS, channels)

    def forward(
        self, z: Tensor, pos: Tensor, batch: Tensor, edge_index: Tensor, n_atoms: Tensor
    ) -> dict[str, Tensor]:
        """Forces [atoms, 3] eV/A and energies [molecules] eV, these no shorter than float32."""
        vectors, distance = edge_vectors(pos, edge_index)
        basis = radial_basis(distance, self.cutoff, self.radial)
        forces, atomic = self.predict(z, vectors, distance, basis, edge_index)
        energy = sum_by(batch, widened(atomic).squeeze(-1), n_atoms.shape[0])
        return {"forces": forces, "energy": energy}

    def predict(
        self, z: Tensor, vectors: Tensor, distance: Tensor, basis: Tensor, edge_index: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(forces [atoms, 3], energies of the atoms [atoms, 1]) from r_j - r_i [edges, 3], its
        length [edges] and radial basis [edges, radial + 1]."""
        raise NotImplementedError


@dataclass(frozen=True)
class Neighbourhood:
    """``source`` [atoms, K] int64; ``distance`` [atoms, K] A; ``direction`` [atoms, K, 3];
    ``weight`` [atoms, K] in [0, 1].

    Empty places have weight and direction zero, and name the atom itself.
    """

    source: Tensor
    distance: Tensor
    direction: Tensor
    weight: Tensor

    def cosines(self) -> Tensor:
        """[atoms, K, K]: cos of the angle between each two neighbours."""
        return self.direction @ self.direction.transpose(1, 2)


def neighbourhood(pos: Tensor, edge_index: Tensor, cutoff: float, places: int) -> Neighbourhood:
    """A table of ``places`` neighbours from edges sorted by target; an atom's edges beyond that are
    left out.

    The weight is a cosine cutoff that ends at ``cutoff``, or at the farthest neighbour of an atom
    whose places are all taken: where rounding decides which of two equally far neighbours is kept,
    neither matters, and the model stays continuous.
    """
    atoms, (source, target) = pos.shape[0], edge_index
    vectors, length = edge_vectors(pos, edge_index)
    one = torch.ones_like(target)
    taken = torch.zeros_like(pos[:, 0], dtype=torch.long).index_add(0, target, one)
    rank = one.cumsum(0) - 1 - (taken.cumsum(0) - taken).index_select(0, target)
    # Edges beyond the last place all go to one extra row, which is cut off again.
    place = torch.where(rank < places, target * places + rank, atoms * places)

    def table(values: Tensor, empty: Tensor) -> Tensor:
        filled: Tensor = (
            torch.cat([empty, empty[:1]])
            .index_copy(0, place, values)[:-1]
            .unflatten(0, (atoms, places))
        )
        return filled

    own = torch.arange(atoms, device=pos.device).repeat_interleave(places)
    distance = table(length, torch.full_like(own, cutoff, dtype=pos.dtype))
    direction = table(vectors / length.unsqueeze(-1), pos.new_zeros(atoms * places, 3))
    # An atom with an empty place has a largest distance of ``cutoff``, since that is what empty
    # places hold.
    reach = distance.amax(dim=1, keepdim=True)
    weight = envelope(distance / reach, 1.0)
    return Neighbourhood(table(source, own), distance, direction, weight)


def bond_order(cosines: Tensor, weight: Tensor, orders: int) -> Tensor:
    """[atoms, orders]: bond-orientational order Q_l, l = 0 .. orders - 1, of each atom's neighbours
    (Steinhardt et al. 1983).

    Q_l^2 = 4 pi / (2 l + 1) sum_m |<Y_lm>|^2 with <> the weighted mean over neighbours; by the
    addition theorem this is sum_jk w_j w_k P_l(cos theta_jk), with no spherical harmonics to
    compute.
    """
    share = weight / (weight.sum(1, keepdim=True) + 1e-6)
    pairs = share.unsqueeze(2) * share.unsqueeze(1)
    legendre = [torch.ones_like(cosines), cosines]
    for order in range(1, orders - 1):
        legendre.append(
            ((2 * order + 1) * cosines * legendre[order] - order * legendre[order - 1])
            / (order + 1)
        )
    squares = torch.stack(
        [(pairs * polynomial).sum((1, 2)) for polynomial in legendre[:orders]], dim=-1
    )
    return (squares.clamp(min=0.0) + 1e-6).sqrt()

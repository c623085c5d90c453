"""The neighbour list of a batch of molecules."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from equivbench.kernels.operations.base import INDEX_BYTES, Case, Costs, Drawn, Operation, Sizes

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class NeighbourSearch(Operation):
    """All directed edges between atoms of one molecule that are closer than ``cutoff``.

    Inputs: ``pos`` [atoms, 3]; ``batch`` [atoms] int64, sorted molecule index. Output: [2, edges]
    int64, row 0 the neighbour, row 1 the centre, sorted by centre, then neighbour.
    """

    name = "neighbour-search"

    cutoff: float

    def arguments(self, sizes: Sizes) -> dict[str, Drawn]:
        """Normal clouds about as dense as a molecule: 10 A^3 an atom within two standard
        deviations."""
        atoms = sizes["molecules"] * sizes["atoms"]
        width = (10 * sizes["atoms"] * 3 / (4 * math.pi)) ** (1 / 3) / 2
        return {"pos": Drawn((atoms, 3), scale=width), "batch": Drawn((atoms,), "molecules")}

    def reference(self, pos: Tensor, batch: Tensor) -> Tensor:
        """All pairs of all atoms."""
        import torch

        near = (pos[:, None] - pos[None]).square().sum(-1) < self.cutoff**2
        near &= batch[:, None] == batch[None]
        near &= ~torch.eye(len(pos), dtype=torch.bool, device=pos.device)
        centre, neighbour = near.nonzero(as_tuple=True)
        return torch.stack([neighbour, centre])

    def passes(self, sizes: Sizes, itemsize: int) -> tuple[Costs, ...]:
        """How many edges come out depends on the positions, so only what is read counts."""
        atoms = sizes["molecules"] * sizes["atoms"]
        pairs = atoms * sizes["atoms"]
        read = itemsize * 3 * atoms + INDEX_BYTES * atoms
        nothing = Costs(0.0, 0.0, 0.0, 0.0)
        return Costs(read, 0.0, read + 2 * itemsize * pairs, 8 * pairs), nothing, nothing


CASES = (
    Case(
        "neighbours-5a",
        NeighbourSearch(5.0),
        {"molecules": 16, "atoms": 24},
        0,
        "a batch of molecules of the force-field task, all pairs within 5 A",
        quick=True,
    ),
)

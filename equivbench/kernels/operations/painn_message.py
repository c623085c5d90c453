"""The message of PaiNN: a neighbour's features through the filters of an edge, along its direction,
summed over the edges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from equivbench.kernels.operations.base import Case, Drawn, Operation, Sizes

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PaiNNMessage(Operation):
    """out_i = sum over edges j -> i of (w_0 x_0, d_ij w_1 x_1 + w_2 x_2), channel by channel:
    equations 7 and 8 of PaiNN (Schuett et al. 2021, 2102.03150).

    What depends on the neighbour alone is multiplied before: x_0 and x_1 are its gates for scalars
    and for directions, x_2 is its vectors times their gate.

    Inputs: ``x`` [nodes, 5 C]: x_0, x_1 and the three components of x_2; ``directions`` [edges, 3];
    ``weights`` [edges, 3 C]: the filters w_0, w_1 and w_2; ``edge_index`` [2, edges] int64, row 0
    the neighbour j, row 1 the centre i. Output: [nodes, 4 C]: the scalars and the three components
    of the vectors. Where neighbours have no ``vectors``, ``x`` is [nodes, 2 C] and ``weights``
    [edges, 2 C].
    """

    name = "painn-message"
    differentiable = ("x", "directions", "weights")

    channels: int
    vectors: bool = True
    """Whether neighbours have vectors to pass on; in the first layer they have none."""

    @property
    def source_size(self) -> int:
        """Features of a node of ``x``."""
        return (5 if self.vectors else 2) * self.channels

    @property
    def weight_size(self) -> int:
        """Weights of an edge."""
        return (3 if self.vectors else 2) * self.channels

    @property
    def target_size(self) -> int:
        """Features of a node of the output."""
        return 4 * self.channels

    def arguments(self, sizes: Sizes) -> dict[str, Drawn]:
        """Normal numbers and the edges of molecules."""
        nodes, edges = sizes["nodes"], sizes["edges"]
        return {
            "x": Drawn((nodes, self.source_size)),
            "directions": Drawn((edges, 3)),
            "weights": Drawn((edges, self.weight_size)),
            "edge_index": Drawn((2, edges), "neighbour_pairs"),
        }

    def reference(
        self, x: Tensor, directions: Tensor, weights: Tensor, edge_index: Tensor
    ) -> Tensor:
        """Messages written out, one an edge."""
        import torch

        features = torch.unflatten(x[edge_index[0]], 1, (-1, self.channels))
        filters = torch.unflatten(weights, 1, (-1, self.channels))
        scalars = filters[:, 0] * features[:, 0]
        vectors = torch.einsum("nk,nc->nkc", directions, filters[:, 1] * features[:, 1])
        if self.vectors:
            vectors = vectors + filters[:, 2:] * features[:, 2:]
        messages = torch.cat([scalars.unsqueeze(1), vectors], dim=1).flatten(1)
        zeros = messages.new_zeros(len(x), messages.shape[1])
        out: Tensor = zeros.index_add(0, edge_index[1], messages)
        return out

    def work(self, sizes: Sizes) -> tuple[int, int, int]:
        """Gathered features and messages lie between; two products for the gates and three for the
        directions, three products and three sums for the vectors, four sums over the edges."""
        numbers = sizes["edges"] * self.channels
        return (
            sizes["nodes"] * self.target_size,
            sizes["edges"] * (self.source_size + self.target_size),
            (15 if self.vectors else 9) * numbers,
        )


CASES = (
    Case(
        "painn-message-c28",
        PaiNNMessage(28),
        {"nodes": 160, "edges": 2_720},
        2,
        "the plain arm of the vector pair's small preset: 8 molecules of 20 atoms with 17"
        " neighbours",
        quick=True,
    ),
    Case(
        "painn-message-c32",
        PaiNNMessage(32),
        {"nodes": 320, "edges": 5_440},
        2,
        "PaiNN in the vector pair's small preset: 16 molecules of 20 atoms with 17 neighbours",
        quick=True,
    ),
    Case(
        "painn-message-c128",
        PaiNNMessage(128),
        {"nodes": 500, "edges": 10_000},
        2,
        "PaiNN, 128 features (2102.03150)",
    ),
)

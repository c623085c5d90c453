"""The message of eSEN: two SO(2) convolutions in the frame of an edge with a gate between them,
turned back and summed over the edges."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from equivbench.kernels.operations.base import Case, Drawn, Operation, Sizes
from equivbench.kernels.operations.edge_frames import FrameTurn, frame_elements

if TYPE_CHECKING:
    from torch import Tensor

Shapes = tuple[tuple[int, int], ...]
"""(inputs, outputs) of the maps of m = 0, 1, ..."""


@dataclass(frozen=True)
class SO2Message(Operation):
    """out_i = sum over edges j -> i of D^T s_ij second(gate(first(w_ij D [x_j, x_i]))): the message
    of eSEN (Fu et al. 2025, 2502.12147), on the convolutions of Passaro & Zitnick (2023,
    2302.03655).

    D, the Wigner matrix of the edge, takes the features of both ends to the edge's frame; there
    they lie side by side in rows (l, m), which are scaled by the edge's weight of (l, |m|). A map
    takes the rows of m = 0 together by W_0 and a bias, and those of m and -m by y_m = z_m A_m -
    z_-m B_m and y_-m = z_-m A_m + z_m B_m, each over the degrees l >= m and the channels. The first
    one makes a number more for each degree l >= 1 and hidden channel, of which a sigmoid gates the
    rows of that degree; the scalars go through SiLU. Orders m above ``mmax`` and above
    ``target_lmax`` are left out. The Wigner matrices are inputs: all layers of a network share
    them.

    Inputs: ``x`` [nodes, (lmax + 1)^2 C]; ``frames`` [edges, F], the elements of D by
    :func:`equivbench.kernels.operations.edge_frames.frame_elements` of ``lmax`` and ``mmax``;
    ``weights`` [edges, sum_m (lmax + 1 - m) 2 C], m after m; ``first`` and ``second``, flat: W_0
    [inputs, outputs], its bias, then A_m and B_m for each m, by :attr:`first_shapes` and
    :attr:`second_shapes`; ``scales`` [edges, 1]; ``edge_index`` [2, edges] int64, row 0 the
    neighbour j, row 1 the centre i. Output: [nodes, (target_lmax + 1)^2 C].
    """

    name = "so2-message"
    differentiable = ("x", "frames", "weights", "first", "second", "scales")

    channels: int
    hidden: int
    lmax: int
    target_lmax: int
    """At most ``lmax``."""
    mmax: int

    @property
    def order(self) -> int:
        """The highest m of the rows that are mixed."""
        return min(self.mmax, self.target_lmax)

    @property
    def into(self) -> FrameTurn:
        """How features come into the frames of the edges."""
        return FrameTurn(self.channels, 2, self.lmax, self.mmax, self.lmax, self.order)

    @property
    def back(self) -> FrameTurn:
        """How messages come out of them."""
        return FrameTurn(self.channels, 1, self.lmax, self.mmax, self.target_lmax, self.order)

    @property
    def first_shapes(self) -> Shapes:
        """Those of the first map, which has the gates among its outputs of m = 0."""
        gates = self.lmax * self.hidden
        return tuple(
            (count * 2 * self.channels, count * self.hidden + (gates if m == 0 else 0))
            for m, count in enumerate(self.into.counts)
        )

    @property
    def second_shapes(self) -> Shapes:
        """Those of the second map."""
        counts = zip(self.into.counts, self.back.counts, strict=True)
        return tuple((before * self.hidden, after * self.channels) for before, after in counts)

    def arguments(self, sizes: Sizes) -> dict[str, Drawn]:
        """Normal numbers, not Wigner matrices, whose element of l = 0 is always 1, and the edges of
        molecules."""
        nodes, edges = sizes["nodes"], sizes["edges"]
        into = self.into
        first, second = part_sizes(self.first_shapes), part_sizes(self.second_shapes)
        return {
            "x": Drawn((nodes, into.node_size)),
            "frames": Drawn((edges, into.frame_size), scale=(self.lmax + 1) ** -0.5),
            "weights": Drawn((edges, into.weight_size)),
            "first": Drawn((sum(first),), scale=(2 * self.channels) ** -0.5),
            "second": Drawn((sum(second),), scale=self.hidden**-0.5),
            "scales": Drawn((edges, 1)),
            "edge_index": Drawn((2, edges), "neighbour_pairs"),
        }

    def reference(
        self,
        x: Tensor,
        frames: Tensor,
        weights: Tensor,
        first: Tensor,
        second: Tensor,
        scales: Tensor,
        edge_index: Tensor,
    ) -> Tensor:
        """Row by row, with Wigner matrices written out."""
        import torch

        into, back = self.into, self.back
        columns = frames.unbind(1)
        places = frame_elements(self.lmax, self.mmax)
        elements = {place: columns[n].unsqueeze(1) for n, place in enumerate(places)}
        features = torch.unflatten(x, 1, (-1, self.channels))
        ends = torch.cat([features[edge_index[0]], features[edge_index[1]]], dim=2)
        factors = torch.unflatten(weights, 1, (-1, 2 * self.channels))
        kinds = [(l, m) for m in range(self.order + 1) for l in range(m, self.lmax + 1)]
        rows = {
            (l, m): _sum(elements[n, c] * ends[:, c] for c in range(l**2, (l + 1) ** 2))
            * factors[:, kinds.index((l, abs(m)))]
            for n, (l, m) in enumerate(into.rows)
        }
        hidden, gates = _mapped(self.first_shapes, first, rows, self.hidden, self.lmax)
        gated = {
            (l, m): one * torch.sigmoid(gates[:, (l - 1) * self.hidden : l * self.hidden])
            if l
            else torch.nn.functional.silu(one)
            for (l, m), one in hidden.items()
        }
        mixed, _ = _mapped(self.second_shapes, second, gated, self.channels, self.target_lmax)
        messages = [
            scales
            * _sum(
                elements[n, c] * mixed[l, m]
                for n, (degree, m) in enumerate(into.rows)
                if degree == l
            )
            for l in range(self.target_lmax + 1)
            for c in range(l**2, (l + 1) ** 2)
        ]
        zeros = x.new_zeros(len(x), back.node_size)
        out: Tensor = zeros.index_add(0, edge_index[1], torch.cat(messages, dim=1))
        return out

    def work(self, sizes: Sizes) -> tuple[int, int, int]:
        """Two turns, of both ends and back, the maps of each order, weights, gates and sums."""
        into, back, edges = self.into, self.back, sizes["edges"]
        maps = sum(
            (1 if m == 0 else 4) * inputs * outputs
            for shapes in (self.first_shapes, self.second_shapes)
            for m, (inputs, outputs) in enumerate(shapes)
        )
        hidden = sum(into.row_counts) * self.hidden
        turns = 2 * into.used * into.channels + back.used * back.channels
        pointwise = into.edge_size + hidden + back.edge_size + back.node_size
        between = 2 * into.node_size + into.edge_size + 2 * hidden + back.edge_size + back.node_size
        return (
            sizes["nodes"] * back.node_size,
            edges * between,
            edges * (2 * turns + 2 * maps + pointwise),
        )


def part_sizes(shapes: Shapes) -> list[int]:
    """Numbers of W_0, of its bias, then of A_m and B_m together for each m."""
    (inputs, outputs), *turned = shapes
    return [inputs * outputs, outputs, *(2 * before * after for before, after in turned)]


def _mapped(
    shapes: Shapes, flat: Tensor, rows: dict[tuple[int, int], Tensor], width: int, lmax: int
) -> tuple[dict[tuple[int, int], Tensor], Tensor]:
    """(rows [edges, width] by (l, m) up to ``lmax``, what is left of the outputs of m = 0), from
    rows by (l, m)."""
    import torch

    def together(m: int) -> Tensor:
        return torch.cat([one for (_, order), one in rows.items() if order == m], dim=1)

    matrix, bias, *turned = torch.split(flat, part_sizes(shapes))
    every = together(0) @ matrix.reshape(shapes[0]) + bias
    mapped, left = every[:, : (lmax + 1) * width], every[:, (lmax + 1) * width :]
    found = {(l, 0): one for l, one in enumerate(torch.split(mapped, width, dim=1))}
    for m, part in enumerate(turned, 1):
        real, imaginary = part.reshape(2, *shapes[m])
        plus, minus = together(m), together(-m)
        for order, both in (
            (m, plus @ real - minus @ imaginary),
            (-m, minus @ real + plus @ imaginary),
        ):
            found |= {(m + n, order): one for n, one in enumerate(torch.split(both, width, dim=1))}
    return found, left


def _sum(terms: Iterable[Tensor]) -> Tensor:
    import torch

    return torch.stack(list(terms)).sum(0)


CASES = (
    Case(
        "so2-message-c16-l3",
        SO2Message(16, 16, 3, 3, 2),
        {"nodes": 160, "edges": 1_920},
        2,
        "eSEN in the so2-convolution pair's small preset: 8 molecules of 20 atoms with 12"
        " neighbours",
        quick=True,
    ),
    Case(
        "so2-message-c128-l3",
        SO2Message(128, 128, 3, 3, 2),
        {"nodes": 100, "edges": 2_000},
        2,
        "eSEN-30M: 128 channels, l = 3, m = 2 (2502.12147)",
    ),
)

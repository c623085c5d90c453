"""The SO(2) convolution of eSCN and eSEN, with the Wigner matrices that it needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from equivbench.kernels.operations.base import Case, Drawn, Operation, Sizes
from equivbench.kernels.operations.edge_frames import FrameTurn

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SO2Convolution(Operation):
    """eSCN's convolution: turn each edge to the axis, mix orders m by SO(2) maps, turn back, and
    sum over the neighbours.

    z = D x_j with D the Wigner matrix that takes r_ij to the harmonics' polar axis (y); z_lm is
    scaled by the edge's weight of (l, |m|); y_0 = z_0 W_0, y_m = z_m A_m - z_-m B_m and y_-m = z_-m
    A_m + z_m B_m for 0 < m <= mmax, each over the degrees l >= m and channels together; out_i = sum
    over j of D^T y (Passaro & Zitnick 2023, 2302.03655). The angle about the edge that D leaves
    open does not matter. The Wigner matrices are part of the operation.

    Inputs: ``x`` [nodes, (lmax + 1)^2 C]; ``vectors`` [edges, 3], of any length but 0, which makes
    its centre NaN; ``weights`` [edges, sum_m (lmax + 1 - m) C], m after m; ``mixing`` [n]: W_0
    [(lmax + 1) C, (lmax + 1) H], then A_m and B_m [(lmax + 1 - m) C, (lmax + 1 - m) H] for each m;
    ``edge_index`` [2, edges] int64. Output: [nodes, (lmax + 1)^2 H].
    """

    name = "so2-convolution"
    differentiable = ("x", "vectors", "weights", "mixing")

    channels: int
    hidden: int
    lmax: int
    mmax: int

    @property
    def degrees(self) -> tuple[int, ...]:
        """Degrees that have each order m = 0, 1, ... mmax."""
        return tuple(self.lmax + 1 - m for m in range(self.mmax + 1))

    @property
    def into(self) -> FrameTurn:
        """How features come into the frames of the edges."""
        return FrameTurn(self.channels, 1, self.lmax, self.mmax, self.lmax, self.mmax)

    @property
    def back(self) -> FrameTurn:
        """How messages come out of them."""
        return FrameTurn(self.hidden, 1, self.lmax, self.mmax, self.lmax, self.mmax)

    @property
    def mixing_sizes(self) -> list[int]:
        """Numbers in W_0, then in A_m and B_m together."""
        pairs = self.channels * self.hidden
        return [(1 if m == 0 else 2) * n**2 * pairs for m, n in enumerate(self.degrees)]

    @property
    def mixing_size(self) -> int:
        """Numbers in ``mixing``."""
        return sum(self.mixing_sizes)

    def arguments(self, sizes: Sizes) -> dict[str, Drawn]:
        """Normal numbers, bonds that are not near the polar axis and the edges of molecules.

        The published way to Wigner matrices is by angles; near the axis y its derivatives lose
        digits in float32.
        """
        nodes, edges, rows = sizes["nodes"], sizes["edges"], self.lmax + 1
        return {
            "x": Drawn((nodes, rows**2 * self.channels)),
            "vectors": Drawn((edges, 3), "bonds_off_axis"),
            "weights": Drawn((edges, sum(self.degrees) * self.channels)),
            "mixing": Drawn((self.mixing_size,), scale=(self.channels * rows) ** -0.5),
            "edge_index": Drawn((2, edges), "neighbour_pairs"),
        }

    def reference(
        self, x: Tensor, vectors: Tensor, weights: Tensor, mixing: Tensor, edge_index: Tensor
    ) -> Tensor:
        """With Wigner matrices as matrix exponentials of the shortest rotation to the axis, and
        dense maps of all rows."""
        import torch

        lmax, channels, hidden = self.lmax, self.channels, self.hidden
        turn = _wigner(lmax, vectors)
        turned = turn @ x.reshape(len(x), (lmax + 1) ** 2, channels)[edge_index[0]]
        rows = {
            m: [degree**2 + degree + m for degree in range(abs(m), lmax + 1)]
            for m in range(-self.mmax, self.mmax + 1)
        }
        mixed = turned.new_zeros(*turned.shape[:2], hidden)
        first = start = 0
        for m, count in enumerate(self.degrees):
            scale = weights[:, first : first + count * channels]
            maps = mixing[start : start + self.mixing_sizes[m]].reshape(
                -1, count * channels, count * hidden
            )
            plus = turned[:, rows[m]].flatten(1) * scale
            if m == 0:
                places, parts = rows[0], plus @ maps[0]
            else:
                minus = turned[:, rows[-m]].flatten(1) * scale
                cosine, sine = plus @ maps[0] - minus @ maps[1], minus @ maps[0] + plus @ maps[1]
                places, parts = rows[m] + rows[-m], torch.cat([cosine, sine], dim=1)
            index = x.new_tensor(places, dtype=torch.int64)
            mixed = mixed.index_copy(1, index, parts.view(-1, len(places), hidden))
            first, start = first + count * channels, start + self.mixing_sizes[m]
        messages = (turn.mT @ mixed).flatten(1)
        zeros = messages.new_zeros(len(x), messages.shape[1])
        out: Tensor = zeros.index_add(0, edge_index[1], messages)
        return out

    def work(self, sizes: Sizes) -> tuple[int, int, int]:
        """Two rotations of the kept rows, the maps of each order, and the Wigner matrices."""
        edges, degrees = sizes["edges"], range(self.lmax + 1)
        widths = self.channels + self.hidden
        rows, heights = (self.lmax + 1) ** 2, [2 * min(l, self.mmax) + 1 for l in degrees]
        wigner = edges * sum(
            height * (2 * l + 1) for l, height in zip(degrees, heights, strict=True)
        )
        counts = sum((1 if m == 0 else 4) * count**2 for m, count in enumerate(self.degrees))
        set_up = edges * sum(4 * (2 * l + 1) ** 3 for l in degrees)
        return (
            sizes["nodes"] * rows * self.hidden,
            wigner + edges * (rows + sum(heights)) * widths,
            2 * wigner * widths + 2 * edges * counts * self.channels * self.hidden + set_up,
        )


def _wigner(lmax: int, vectors: Tensor) -> Tensor:
    """[edges, (lmax + 1)^2, (lmax + 1)^2]: Wigner matrices of the shortest rotation from each
    vector to y, not from -y."""
    import torch
    from torch.nn import functional

    unit = vectors / vectors.square().sum(1, keepdim=True).sqrt()
    x, y, z = unit.unbind(1)
    sine = (x.square() + z.square()).sqrt()
    angle = torch.atan2(sine, y)
    # unit cross y, over its length.
    axis = torch.stack([-z, torch.zeros_like(y), x], dim=1) / sine[:, None]
    size = (lmax + 1) ** 2
    out = functional.pad(torch.ones_like(unit[:, :1, None]), (0, size - 1) * 2)
    for degree in range(1, lmax + 1):
        generators = _generators(degree).to(unit)
        turns = torch.einsum("nk,kij->nij", axis * angle[:, None], generators)
        pad = (degree**2, size - (degree + 1) ** 2)
        out = out + functional.pad(torch.linalg.matrix_exp(turns), pad * 2)
    return out


def _generators(degree: int) -> Tensor:
    """[3, 2 l + 1, 2 l + 1] float64 generators of rotations about x, y, z: the Wigner 3j symbols of
    l, 1, l, scaled."""
    import torch
    from e3nn import o3

    wigner = o3.wigner_3j(1, degree, degree, dtype=torch.float64)
    found: Tensor = wigner * (degree * (degree + 1) * (2 * degree + 1)) ** 0.5
    # Of the two signs only one has [x, y] = z.
    sign = torch.einsum("ij,ij->", found[0] @ found[1] - found[1] @ found[0], found[2]).sign()
    return found * sign


CASES = (
    Case(
        "so2-c16-l2",
        SO2Convolution(16, 16, 2, 2),
        {"nodes": 160, "edges": 1_920},
        2,
        "eSCN's convolution at the tensor-product pair's edge count",
        quick=True,
    ),
    Case(
        "so2-c128-l3-m2",
        SO2Convolution(128, 128, 3, 2),
        {"nodes": 100, "edges": 2_000},
        2,
        "eSEN-30M: 128 channels, l = 3, m = 2 (2502.12147)",
    ),
)

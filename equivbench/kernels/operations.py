"""What a backend is asked for: equivariant operations as pure functions of named tensors, stated
without torch.

Irreps lie in blocks by degree l, and in a block channels are innermost: [..., 2 l + 1, C],
flattened. Components are in e3nn's order (for l = 1: x, y, z) and the spherical harmonics are
e3nn's with ``normalization="component"``. This is the layout of the stated tensors; a backend that
wants another says how to change them (:class:`equivbench.kernels.backend.Kernel`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar


def features(channels: Sequence[int]) -> int:
    """Numbers in blocks of degrees 0, 1, ... with so many ``channels``."""
    return sum((2 * degree + 1) * count for degree, count in enumerate(channels))


@dataclass(frozen=True)
class Operation:
    """Base of all operations; a subclass is a frozen dataclass of plain numbers."""

    name: ClassVar[str]
    """What it is called in ``equivbench kernels`` and by :meth:`Backend.build`."""
    differentiable: ClassVar[tuple[str, ...]] = ()
    """The inputs that gradients are taken by."""


@dataclass(frozen=True)
class Path:
    """Degree ``source`` of the neighbour times degree ``edge`` of the harmonics to degree
    ``target``."""

    source: int
    edge: int
    target: int


@dataclass(frozen=True)
class Convolution(Operation):
    """out_i = sum over edges j -> i of w_p(ij) [x_j (x) Y(r_ij)]_p for each path p and channel:
    e3nn's "uvu" product.

    Inputs: ``x`` [nodes, sum_l (2 l + 1) C_l]; ``harmonics`` [edges, (edge_lmax + 1)^2];
    ``weights`` [edges, sum_p C_p], path after path; ``edge_index`` [2, edges] int64, row 0 the
    neighbour j, row 1 the centre i. Output: [nodes, sum_p (2 l_p + 1) C_p], path after path. C_p is
    the number of channels of the path's source degree. Coefficients are Wigner 3j times (2 l_p +
    1)^1/2 (e3nn's "component" normalisation), in the index order target, source, edge.
    """

    name: ClassVar[str] = "convolution"
    differentiable: ClassVar[tuple[str, ...]] = ("x", "harmonics", "weights")

    channels: tuple[int, ...]
    """C_l for l = 0, 1, ... of the source."""
    edge_lmax: int
    target_lmax: int
    parity: bool = True
    """Only the paths of natural parity (-1)^l, which keep O(3)."""

    @cached_property
    def paths(self) -> tuple[Path, ...]:
        """The paths of the triangle rule, ordered by source, edge and target degree."""
        return tuple(
            Path(source, edge, target)
            for source in range(len(self.channels))
            for edge in range(self.edge_lmax + 1)
            for target in range(abs(source - edge), min(source + edge, self.target_lmax) + 1)
            if not (self.parity and (source + edge + target) % 2)
        )

    @property
    def weight_size(self) -> int:
        """Weights of an edge: one for each path and channel."""
        return sum(self.channels[path.source] for path in self.paths)

    @property
    def source_size(self) -> int:
        """Features of a node of ``x``."""
        return features(self.channels)

    @property
    def target_size(self) -> int:
        """Features of a node of the output."""
        return sum((2 * path.target + 1) * self.channels[path.source] for path in self.paths)


@dataclass(frozen=True)
class SphericalHarmonics(Operation):
    """Real spherical harmonics of directions, of degrees 0 to ``lmax``.

    Inputs: ``vectors`` [edges, 3], of any length but 0. Output: [edges, (lmax + 1)^2].
    """

    name: ClassVar[str] = "spherical-harmonics"
    differentiable: ClassVar[tuple[str, ...]] = ("vectors",)

    lmax: int


@dataclass(frozen=True)
class Linear(Operation):
    """out_l = x_l W_l for each degree: channels mixed, components alike, nothing scaled.

    Inputs: ``x`` [nodes, sum_l (2 l + 1) inputs_l]; ``weights`` [sum_l inputs_l outputs_l], each
    W_l [inputs_l, outputs_l] after the other. Output: [nodes, sum_l (2 l + 1) outputs_l].
    """

    name: ClassVar[str] = "linear"
    differentiable: ClassVar[tuple[str, ...]] = ("x", "weights")

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class RadialBasis(Operation):
    """Bessel functions times a cosine envelope, and the envelope alone (Gasteiger et al. 2020,
    2003.03123; Behler 2011).

    Inputs: ``distances`` [edges], > 0. Output: [edges, number + 1]: 2 (2 / c)^1/2 sin(n pi d / c) /
    d f(d) for n = 1 ... number, then f(d) = (1 + cos(pi d / c)) / 2; all 0 from the cutoff c on.
    """

    name: ClassVar[str] = "radial-basis"
    differentiable: ClassVar[tuple[str, ...]] = ("distances",)

    number: int
    cutoff: float


@dataclass(frozen=True)
class NeighbourSearch(Operation):
    """All directed edges between atoms of one molecule that are closer than ``cutoff``.

    Inputs: ``pos`` [atoms, 3]; ``batch`` [atoms] int64, sorted molecule index. Output: [2, edges]
    int64, row 0 the neighbour, row 1 the centre, sorted by centre, then neighbour.
    """

    name: ClassVar[str] = "neighbour-search"

    cutoff: float


@dataclass(frozen=True)
class EdgeProduct(Operation):
    """Allegro's tensor product ("uuu"): an edge's features times the environment of its centre,
    channel by channel.

    env_i = sum over edges j -> i of v_l(ij) Y_l(r_ij); out_ij,t = sum over paths into degree t of
    w_p [x_ij (x) env_i]_p (Musaelian et al. 2022, 2204.05249). Paths as in :class:`Convolution`, of
    natural parity.

    Inputs: ``x`` [edges, (lmax + 1)^2 C]; ``harmonics`` [edges, (lmax + 1)^2]; ``environment``
    [edges, (lmax + 1) C], the v of degree after degree; ``weights`` [paths, C]; ``edge_index`` [2,
    edges] int64. Output: [edges, (lmax + 1)^2 C].
    """

    name: ClassVar[str] = "edge-product"
    differentiable: ClassVar[tuple[str, ...]] = ("x", "harmonics", "environment", "weights")

    channels: int
    lmax: int

    @property
    def paths(self) -> tuple[Path, ...]:
        """The paths, ordered by source, edge and target degree."""
        return Convolution((self.channels,) * (self.lmax + 1), self.lmax, self.lmax).paths


@dataclass(frozen=True)
class SO2Convolution(Operation):
    """eSCN's convolution: turn each edge to the axis, mix orders m by SO(2) maps, turn back, and
    sum over the neighbours.

    z = D x_j with D the Wigner matrix that takes r_ij to the harmonics' polar axis (y); z_lm is
    scaled by the edge's weight of (l, |m|); y_0 = z_0 W_0, y_m = z_m A_m - z_-m B_m and y_-m = z_-m
    A_m + z_m B_m for 0 < m <= mmax, each over the degrees l >= m and channels together; out_i = sum
    over j of D^T y (Passaro & Zitnick 2023, 2302.03655). The angle about the edge that D leaves
    open does not matter. The Wigner matrices are part of the operation.

    Inputs: ``x`` [nodes, (lmax + 1)^2 C]; ``vectors`` [edges, 3]; ``weights`` [edges, sum_m (lmax +
    1 - m) C], m after m; ``mixing`` [n]: W_0 [(lmax + 1) C, (lmax + 1) H], then A_m and B_m [(lmax
    + 1 - m) C, (lmax + 1 - m) H] for each m; ``edge_index`` [2, edges] int64. Output: [nodes, (lmax
    + 1)^2 H].
    """

    name: ClassVar[str] = "so2-convolution"
    differentiable: ClassVar[tuple[str, ...]] = ("x", "vectors", "weights", "mixing")

    channels: int
    hidden: int
    lmax: int
    mmax: int

    @property
    def degrees(self) -> tuple[int, ...]:
        """Degrees that have each order m = 0, 1, ... mmax."""
        return tuple(self.lmax + 1 - m for m in range(self.mmax + 1))

    @property
    def mixing_size(self) -> int:
        """Numbers in ``mixing``."""
        pairs = self.channels * self.hidden
        return sum((1 if m == 0 else 2) * count**2 * pairs for m, count in enumerate(self.degrees))

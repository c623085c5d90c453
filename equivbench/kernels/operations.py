"""What a backend is asked for: equivariant operations as pure functions of named tensors, stated without torch.

Irreps lie in blocks by degree l, and in a block channels are innermost: [..., 2 l + 1, C], flattened. Components are in
e3nn's order (for l = 1: x, y, z) and the spherical harmonics are e3nn's with ``normalization="component"``. This is the
layout of the stated tensors; a backend that wants another says how to change them (:class:`equivbench.kernels.backend.Kernel`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar


@dataclass(frozen=True)
class Operation:
    """Base of all operations; a subclass is a frozen dataclass of plain numbers."""

    name: ClassVar[str]
    """What it is called in ``equivbench kernels`` and by :meth:`Backend.build`."""
    differentiable: ClassVar[tuple[str, ...]] = ()
    """The inputs that gradients are taken by."""


@dataclass(frozen=True)
class Path:
    """Degree ``source`` of the neighbour times degree ``edge`` of the harmonics to degree ``target``."""

    source: int
    edge: int
    target: int


@dataclass(frozen=True)
class Convolution(Operation):
    """out_i = sum over edges j -> i of w_p(ij) [x_j (x) Y(r_ij)]_p for each path p and channel: e3nn's "uvu" product.

    Inputs: ``x`` [nodes, sum_l (2 l + 1) C_l]; ``harmonics`` [edges, (edge_lmax + 1)^2]; ``weights`` [edges, sum_p C_p], path
    after path; ``edge_index`` [2, edges] int64, row 0 the neighbour j, row 1 the centre i. Output: [nodes, sum_p (2 l_p + 1)
    C_p], path after path. C_p is the number of channels of the path's source degree. Coefficients are Wigner 3j times
    (2 l_p + 1)^1/2 (e3nn's "component" normalisation), in the index order target, source, edge.
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
        return sum((2 * degree + 1) * count for degree, count in enumerate(self.channels))

    @property
    def target_size(self) -> int:
        """Features of a node of the output."""
        return sum((2 * path.target + 1) * self.channels[path.source] for path in self.paths)

"""The paths by which degrees couple, and their coefficients. Imports no torch before it is asked
for numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Path:
    """Degree ``source`` of the neighbour times degree ``edge`` of the harmonics to degree
    ``target``."""

    source: int
    edge: int
    target: int


def features(channels: Sequence[int]) -> int:
    """Numbers in blocks of degrees 0, 1, ... with so many ``channels``."""
    return sum((2 * degree + 1) * count for degree, count in enumerate(channels))


def triangle_paths(
    source_lmax: int, edge_lmax: int, target_lmax: int, *, parity: bool = True
) -> tuple[Path, ...]:
    """The paths of the triangle rule, ordered by source, edge and target degree.

    With ``parity`` only those of natural parity (-1)^l, which keep O(3).
    """
    return tuple(
        Path(source, edge, target)
        for source in range(source_lmax + 1)
        for edge in range(edge_lmax + 1)
        for target in range(abs(source - edge), min(source + edge, target_lmax) + 1)
        if not (parity and (source + edge + target) % 2)
    )


def coupling(path: Path) -> Tensor:
    """[2 l_target + 1, 2 l_source + 1, 2 l_edge + 1] float64: the Wigner 3j symbols times
    (2 l_target + 1)^1/2, which is e3nn's "component" normalisation of a TensorProduct."""
    import torch
    from e3nn import o3

    wigner = o3.wigner_3j(path.target, path.source, path.edge, dtype=torch.float64)
    scaled: Tensor = wigner * (2 * path.target + 1) ** 0.5
    return scaled


def coupled_orders(path: Path) -> list[int]:
    """For each pair of orders of target and source that a path couples, to how many orders of the
    harmonics.

    Its length counts entries of the matrix [2 l_target + 1, 2 l_source + 1] that the coefficients
    make of general harmonics, its sum the coefficients. For real harmonics, orders m and n couple
    to |m| + |n| and ||m| - |n||, of one kind (cosine or sine), which must exist at the edge's
    degree. A few coefficients that the rule allows are zero by accident.
    """
    odd = (path.source + path.edge + path.target) % 2
    found = []
    for m in range(-path.target, path.target + 1):
        for n in range(-path.source, path.source + 1):
            # Sines are the negative orders; an odd sum of degrees couples an odd number of them.
            sine = ((m < 0) + (n < 0) + odd) % 2
            orders = {abs(m) + abs(n), abs(abs(m) - abs(n))}
            found.append(sum(k <= path.edge and not (sine and k == 0) for k in orders))
    return [count for count in found if count]

"""Wigner matrices that turn irreps into the frames of edges, with derivatives in all directions."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import product

import torch
import torch._dynamo
from e3nn import o3
from torch import Tensor, nn

from equivbench.kernels.operations.edge_frames import frame_elements, frame_rows


class WignerToAxis(nn.Module):
    """Wigner matrices D of rotations that take vectors to the polar axis y.

    ``forward(vectors)`` returns [edges, F] from ``vectors`` [edges, 3], of any length but 0: the
    elements of :func:`equivbench.kernels.operations.edge_frames.frame_elements`. The angle about
    the vector that D leaves open is that of the shortest rotation where the vector points up; where
    it points down, half a turn about x brings it up first. What commutes with turns about the edge
    does not see this choice, and no vector is near one that has no shortest rotation: values and
    derivatives are as exact on the axis as elsewhere.

    The quaternion (w, a, 0, c) of the rotation has no part along y, and the elements of D are
    polynomials of degree 2 l in its three numbers, so all of them come from one matrix product.
    """

    coefficients: Tensor
    """[monomials of degree 2 lmax, F]."""
    upside_down: Tensor
    """[F]: what half a turn about x does to the harmonics that the elements stand for."""
    powers: Tensor
    """[3 monomials] int64: places of w^i, then a^j, then c^k among the powers of the three."""

    def __init__(self, lmax: int, mmax: int) -> None:
        super().__init__()
        self.lmax = lmax
        self._exact = _coefficients(lmax, mmax)
        dtype = torch.get_default_dtype()
        self.register_buffer("coefficients", self._exact.to(dtype), persistent=False)
        signs = [float((-1) ** (l + (m < 0))) for l in range(lmax + 1) for m in range(-l, l + 1)]
        upside_down = torch.tensor([signs[one] for _, one in frame_elements(lmax, mmax)])
        self.register_buffer("upside_down", upside_down, persistent=False)
        powers = torch.tensor(_exponents(lmax)) * 3 + torch.arange(3)
        self.register_buffer("powers", powers.T.flatten(), persistent=False)

    def forward(self, vectors: Tensor) -> Tensor:
        """The elements of all edges."""
        x, y, z = (vectors / vectors.square().sum(1, keepdim=True).sqrt()).unbind(1)
        down = y < 0
        y, z = torch.where(down, -y, y), torch.where(down, -z, z)
        w = ((1 + y) / 2).sqrt()
        numbers = torch.stack([w, -z / (2 * w), x / (2 * w)], dim=1)
        powers = [torch.ones_like(numbers)]
        for _ in range(2 * self.lmax):
            powers.append(powers[-1] * numbers)
        found = torch.cat(powers, dim=1).index_select(1, self.powers)
        first, second, third = found.chunk(3, dim=1)
        turns = (first * second * third) @ self.coefficients
        signs = torch.where(down.unsqueeze(1), self.upside_down, torch.ones_like(self.upside_down))
        out: Tensor = turns * signs
        return out

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> WignerToAxis:
        """A module that is turned to float64 has coefficients that were never rounded to less."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.coefficients = self._exact.to(self.coefficients)
        return self


def _exponents(lmax: int) -> list[tuple[int, int, int]]:
    """Those of the monomials of degree 2 lmax in three numbers."""
    degree = range(2 * lmax + 1)
    triples = product(degree, degree, degree)
    return [(i, j, k) for i, j, k in triples if i + j + k == 2 * lmax]


def whole_matrices(lmax: int, mmax: int, like: Tensor) -> Callable[[Tensor], Tensor]:
    """What makes matrices [edges, K, (lmax + 1)^2] of their elements [edges, F], with zeros for the
    others; its constants are on the device of ``like``."""
    rows, size = len(frame_rows(lmax, mmax)), (lmax + 1) ** 2
    flat = [row * size + one for row, one in frame_elements(lmax, mmax)]
    places = torch.tensor(flat, device=like.device)
    torch._dynamo.mark_static(places)

    def whole(elements: Tensor) -> Tensor:
        zeros = elements.new_zeros(elements.shape[0], rows * size)
        return torch.unflatten(zeros.index_copy(1, places, elements), 1, (rows, size))

    return whole


@cache
def _coefficients(lmax: int, mmax: int) -> Tensor:
    """[monomials, F] in float64, found from harmonics of turned points: e3nn's own Wigner matrices
    are good to float32 only."""
    exponents = torch.tensor(_exponents(lmax), dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(8 * len(exponents), 3, generator=generator, dtype=torch.float64)
    numbers = drawn / drawn.norm(dim=1, keepdim=True)
    monomials = (numbers.unsqueeze(1) ** exponents).prod(-1)
    points = torch.randn(8 * lmax + 4, 3, generator=generator, dtype=torch.float64)
    turned = points @ _rotations(numbers).mT
    size = (lmax + 1) ** 2
    matrices = numbers.new_zeros(len(numbers), size, size)
    for degree in range(lmax + 1):
        before, after = (
            o3.spherical_harmonics(degree, one, normalize=True) for one in (points, turned)
        )
        block = slice(degree**2, (degree + 1) ** 2)
        matrices[:, block, block] = (torch.linalg.pinv(before) @ after).mT
    rows = [degree**2 + degree + m for degree, m in frame_rows(lmax, mmax)]
    places = [(rows[row], one) for row, one in frame_elements(lmax, mmax)]
    kept = torch.stack([matrices[:, row, one] for row, one in places], dim=1)
    found: Tensor = torch.linalg.lstsq(monomials, kept).solution
    return found


def _rotations(numbers: Tensor) -> Tensor:
    """[n, 3, 3]: the rotations of the unit quaternions w + a i + c k, from [n, 3]."""
    w, a, c = numbers.unbind(1)
    rows = [
        torch.stack([1 - 2 * c * c, -2 * w * c, 2 * a * c], dim=1),
        torch.stack([2 * w * c, 1 - 2 * (a * a + c * c), -2 * w * a], dim=1),
        torch.stack([2 * a * c, 2 * w * a, 1 - 2 * a * a], dim=1),
    ]
    return torch.stack(rows, dim=1)

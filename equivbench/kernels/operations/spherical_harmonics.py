"""Real spherical harmonics of directions, which every network on irreps begins with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from equivbench.kernels.operations.base import Case, Drawn, Operation, Sizes

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SphericalHarmonics(Operation):
    """Real spherical harmonics of directions, of degrees 0 to ``lmax``.

    Inputs: ``vectors`` [edges, 3]. Output: [edges, (lmax + 1)^2]. A vector of length 0 has no
    direction: degree 0 is 1 there as everywhere, the others are their mean over all directions, 0,
    and all derivatives are 0.
    """

    name = "spherical-harmonics"
    differentiable = ("vectors",)

    lmax: int

    def arguments(self, sizes: Sizes) -> dict[str, Drawn]:
        """Bonds in all directions."""
        return {"vectors": Drawn((sizes["edges"], 3), "bonds")}

    def reference(self, vectors: Tensor) -> Tensor:
        """By recursion: Y_l+1 is the top component of Y_l (x) Y_1, with norm (2 l + 3)^1/2 and
        positive on the polar axis, y."""
        import torch
        from e3nn import o3

        squared = vectors.square().sum(1, keepdim=True)
        length = torch.where(squared == 0, 1.0, squared).sqrt()
        unit = torch.where(squared == 0, 0.0, vectors / length)
        degrees = [torch.ones_like(unit[:, :1])]
        pole = [unit.new_ones(1)]
        for degree in range(1, self.lmax + 1):
            wigner = o3.wigner_3j(degree, degree - 1, 1, dtype=torch.float64).to(unit)
            top = torch.einsum("abc,b,c->a", wigner, pole[-1], unit.new_tensor([0.0, 1.0, 0.0]))
            # On the pole only the component of order 0 is there.
            scale = (2 * degree + 1) ** 0.5 / top[degree]
            pole.append(top * scale)
            degrees.append(torch.einsum("abc,nb,nc->na", wigner, degrees[-1], unit) * scale)
        return torch.cat(degrees, dim=1)

    def work(self, sizes: Sizes) -> tuple[int, int, int]:
        """Ten operations for the direction, then two products and a sum a harmonic, by recursion
        over degrees."""
        edges, size = sizes["edges"], (self.lmax + 1) ** 2
        return size * edges, 3 * edges, (10 + 3 * size) * edges


CASES = tuple(
    Case(
        f"harmonics-l{lmax}",
        SphericalHarmonics(lmax),
        {"edges": 10_000},
        2,
        "every network on harmonics; the edges of the convolution cases",
        quick=True,
    )
    for lmax in (1, 2, 3, 4)
)

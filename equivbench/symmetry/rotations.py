"""The one sampler of rotations: Haar on SO(3), and the 24 rotations of the cube."""

from __future__ import annotations

import itertools
from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor


def random_rotations(
    n: int,
    *,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Float[Tensor, "{n} 3 3"]:
    """``n`` independent rotations from the Haar measure on SO(3).

    A unit quaternion uniform on the 3-sphere is a Haar rotation (Shoemake, Graphics Gems III,
    1992); three uniform Euler angles are not. Drawn in float64 whatever ``dtype``, so the same
    generator gives the same rotations.

    Parameters
    ----------
    n
        How many.
    generator
        Source of randomness, on any device; None is torch's global one.
    dtype, device
        Of the result; None is torch's default.

    Returns
    -------
    Tensor
        [n, 3, 3], orthogonal with determinant +1; ``rotation @ vector`` rotates.
    """
    drawn_on = generator.device if generator is not None else device
    quaternions = torch.randn(n, 4, generator=generator, dtype=torch.float64, device=drawn_on)
    unit = quaternions / quaternions.norm(dim=1, keepdim=True)
    # Of w + (x, y, z): 1 - 2 (yy + zz) and so on along the diagonal, and off it, in pairs,
    # 2 (xy + wz) and 2 (xy - wz).
    vector = unit[:, 1:]
    next_one, last_one = vector.roll(-1, 1), vector.roll(-2, 1)
    products, turned = next_one * last_one, unit[:, :1] * vector
    xx, yy, zz = (1 - 2 * (next_one * next_one + last_one * last_one)).unbind(1)
    zy, xz, yx = (2 * (products + turned)).unbind(1)
    yz, zx, xy = (2 * (products - turned)).unbind(1)
    matrices = torch.stack((xx, xy, xz, yx, yy, yz, zx, zy, zz), dim=1).reshape(n, 3, 3)
    return matrices.to(dtype=dtype or torch.get_default_dtype(), device=device)


def random_orthogonal(
    n: int, group: Literal["so3", "o3"], generator: torch.Generator
) -> Float[Tensor, "{n} 3 3"]:
    """``n`` independent Haar draws from ``group`` in float64; over ``o3`` each rotation is turned
    inside out with probability 1/2."""
    matrices = random_rotations(n, generator=generator, dtype=torch.float64)
    if group == "so3":
        return matrices
    inside_out = torch.randint(2, (n, 1, 1), generator=generator)
    return matrices * (1 - 2 * inside_out)


def octahedral_rotations(
    dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> Shaped[Tensor, "24 3 3"]:
    """The 24 rotations of the cube: every signed permutation matrix of determinant +1, the identity
    first.

    Returns
    -------
    Tensor
        [24, 3, 3] of exact integers in ``dtype`` (None: torch's default).
    """
    identity = torch.eye(3, dtype=torch.float64)
    matrices = []
    for order in itertools.permutations(range(3)):
        parity = (-1) ** sum(order[i] > order[j] for i, j in itertools.combinations(range(3), 2))
        for signs in itertools.product((1, -1), repeat=3):
            if parity * signs[0] * signs[1] * signs[2] == 1:
                matrices.append(
                    torch.tensor(signs, dtype=torch.float64)[:, None] * identity[list(order)]
                )
    return torch.stack(matrices).to(dtype=dtype or torch.get_default_dtype(), device=device)

"""Rotation of voxel grids: cube rotations by moving voxels, all others by an orthogonal map made of
shears."""

from __future__ import annotations

import torch
from torch import Tensor

from equivbench.errors import UsageError
from equivbench.symmetry.rotations import octahedral_rotations


def rotate_grid(grid: Tensor, rotations: Tensor) -> Tensor:
    """Scalars on a periodic grid carried along: the value at r becomes the value at R r, about the
    grid's centre.

    Cube rotations permute and flip the axes, which is exact. Any other R = C S is its nearest cube
    rotation C after three turns about the axes, each as three shears (Unser, Thevenaz & Yaroslavsky
    1995; Larkin, Oldenburg & Klemm 1997) that shift grid lines by phases of their Fourier series. A
    shift of a line is orthogonal, so the whole map is: norms are kept, white noise stays white, and
    fields that the grid resolves rotate to spectral accuracy (no voxel is averaged with its
    neighbours). The order of the shears follows from R such that for generic R the map of R^T
    undoes that of R, and that cube rotations before or after R compose with it, all to rounding.
    For two rotations off the cube group the product of the maps is the map of the product only as
    far as the grid resolves the field.

    Parameters
    ----------
    grid
        [rows, channels, size, size, size] float; even and odd sizes.
    rotations
        [rows, 3, 3], of the grid's dtype.

    Raises
    ------
    UsageError
        If the grid is not cubic.
    """
    if len(set(grid.shape[2:])) != 1:
        raise UsageError(
            f"a voxel grid must be cubic to be rotated, this one is {tuple(grid.shape[2:])}"
        )
    cube = (rotations == rotations.round()).flatten(1).all(dim=1)
    if bool(cube.all()):
        return permute_grid(grid, rotations)
    out = torch.empty_like(grid)
    out[cube] = permute_grid(grid[cube], rotations[cube])
    rest = ~cube
    nearest, order, forward, angles = _decompose(rotations[rest])
    turned = permute_grid(grid[rest], order)
    for direction in (True, False):
        rows = (forward == direction).nonzero().flatten()
        if len(rows):
            turned[rows] = _turn(turned[rows], angles[rows], largest=2 if direction else 0)
    out[rest] = permute_grid(turned, nearest @ order.transpose(1, 2))
    return out


def permute_grid(grid: Tensor, rotations: Tensor) -> Tensor:
    """[rows, channels, x, y, z] under rows of the cube group [rows, 3, 3]: axes permuted and
    flipped, values untouched."""
    out = torch.empty_like(grid)
    # Rows that share an element move together: an exhaustive measurement has 24 elements, whatever
    # the number of rows.
    elements, which = torch.unique(
        rotations.round().to(torch.int8).flatten(1), dim=0, return_inverse=True
    )
    for number, element in enumerate(elements.reshape(-1, 3, 3).tolist()):
        sources = [next(axis for axis in range(3) if row[axis]) for row in element]
        flipped = [axis + 2 for axis in range(3) if element[axis][sources[axis]] < 0]
        rows = which == number
        out[rows] = grid[rows].permute(0, 1, *(axis + 2 for axis in sources)).flip(flipped)
    return out


def _decompose(rotations: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """R = C K^T X(a) Y(b) Z(c) K: (C [rows, 3, 3], K [rows, 3, 3], which way round [rows] bool,
    angles [rows, 3]).

    C is the nearest cube rotation, K the cube rotation that sorts the axes by how far S = C^T R
    turns about each: in rising order where the pseudo-invariant w_x w_y w_z (w_x^2 - w_y^2) (w_y^2
    - w_z^2) (w_z^2 - w_x^2) of the cube group is positive at S's rotation vector w, else in falling
    order. The polynomial is even under cube rotations and odd under inversion: S and S^T are split
    the same way but in opposite orders, and conjugate S alike.
    """
    elements = octahedral_rotations(rotations.dtype, rotations.device)
    nearest = elements[torch.einsum("gij,nij->ng", elements, rotations).argmax(dim=1)]
    small = nearest.transpose(1, 2) @ rotations
    vector = torch.stack(
        [
            small[:, 2, 1] - small[:, 1, 2],
            small[:, 0, 2] - small[:, 2, 0],
            small[:, 1, 0] - small[:, 0, 1],
        ],
        dim=1,
    )
    length = vector.abs()
    sign = vector.sign().prod(dim=1) * (length - length.roll(-1, 1)).sign().prod(dim=1)
    # On the polynomial's zeros (a turn about an axis, say) the first nonzero component still tells
    # S from S^T.
    first = (
        vector.gather(1, (vector != 0).to(torch.int8).argmax(dim=1, keepdim=True)).squeeze(1).sign()
    )
    forward = torch.where(sign == 0, first, sign) >= 0
    rising = length.argsort(dim=1, stable=True)
    axes = torch.where(forward[:, None], rising, rising.flip(1))
    order = torch.eye(3, dtype=rotations.dtype, device=rotations.device)[axes]
    order = order * torch.linalg.det(order).round()[:, None, None]
    sorted_small = order @ small @ order.transpose(1, 2)
    angles = torch.stack(
        [
            torch.atan2(-sorted_small[:, 1, 2], sorted_small[:, 2, 2]),
            torch.asin(sorted_small[:, 0, 2].clamp(-1, 1)),
            torch.atan2(-sorted_small[:, 0, 1], sorted_small[:, 0, 0]),
        ],
        dim=1,
    )
    return nearest, order, forward, angles


def _turn(grid: Tensor, angles: Tensor, largest: int) -> Tensor:
    """X(a) Y(b) Z(c) applied to the grid, each turn as three shears; ``largest`` is the axis that Y
    shears twice."""
    for axis, twice in ((2, 1), (1, largest), (0, 1)):
        once = 3 - axis - twice
        # Turning from `twice` towards `once` is positive about +axis if (twice, once, axis) is
        # cyclic.
        angle = angles[:, axis] if (once - twice) % 3 == 1 else -angles[:, axis]
        for along, by, slope in (
            (twice, once, -(angle / 2).tan()),
            (once, twice, angle.sin()),
            (twice, once, -(angle / 2).tan()),
        ):
            grid = _shear(grid, along, by, slope)
    return grid


def _shear(grid: Tensor, along: int, by: int, slope: Tensor) -> Tensor:
    """Every line along one axis shifted by ``slope`` [rows] times its coordinate on the axis
    ``by``, periodically."""
    shifts = slope[:, None] * (
        torch.arange(grid.shape[-1], dtype=grid.dtype, device=grid.device)
        - (grid.shape[-1] - 1) / 2
    )
    other = 3 - along - by
    # [rows, by, along, other x channels]: one product of matrices a plane, faster than FFTs at
    # sizes up to about a hundred.
    lines = grid.permute(0, by + 2, along + 2, other + 2, 1)
    moved = (_shift_matrices(shifts, grid.shape[-1]) @ lines.flatten(3)).reshape(lines.shape)
    places = [0] * 5
    for place, axis in enumerate((0, by + 2, along + 2, other + 2, 1)):
        places[axis] = place
    return moved.permute(places)


def _shift_matrices(shifts: Tensor, size: int) -> Tensor:
    """[..., size, size] orthogonal matrices that shift a periodic line by ``shifts`` [...] voxels.

    Fourier phases; the Nyquist term of an even size, whose phase would be complex, stays as it is.
    """
    frequencies = torch.arange(size // 2 + 1, dtype=shifts.dtype, device=shifts.device)
    turns = -2 * torch.pi / size * frequencies * shifts[..., None]
    if size % 2 == 0:
        turns = torch.cat([turns[..., :-1], torch.zeros_like(turns[..., -1:])], dim=-1)
    kernel: Tensor = torch.fft.irfft(torch.polar(torch.ones_like(turns), turns), n=size)
    place = torch.arange(size, device=shifts.device)
    return kernel[..., (place[:, None] - place) % size]

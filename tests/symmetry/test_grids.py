"""Rotations of grids: exact on the cube group, orthogonal and invertible everywhere, accurate where
the grid resolves."""

import pytest
import torch

from equivbench.symmetry.grids import rotate_grid
from equivbench.symmetry.rotations import octahedral_rotations, random_rotations

SIZES = pytest.mark.parametrize("size", [5, 8, 16, 24])
# Nine shears of sums over at most 24 voxels: some tens of eps of values below about 5.
ROUNDING = {"atol": 1e-12, "rtol": 0}


def haar(n: int, seed: int = 0) -> torch.Tensor:
    return random_rotations(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def white(rows: int, size: int, channels: int = 1, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, channels, size, size, size, generator=generator, dtype=torch.float64)


def blob(size: int, at: torch.Tensor, width: float) -> torch.Tensor:
    """[rows, 1, size, size, size]: a Gaussian at [rows, 3] voxels from the centre."""
    centres = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    points = torch.stack(torch.meshgrid(centres, centres, centres, indexing="ij"), -1)
    return torch.exp(-((points - at[:, None, None, None]) ** 2).sum(-1) / (2 * width**2))[:, None]


def trilinear(grid: torch.Tensor, rotations: torch.Tensor) -> torch.Tensor:
    """The textbook interpolation, for comparison."""
    size = grid.shape[-1]
    centres = (2 * torch.arange(size, dtype=grid.dtype) + 1) / size - 1
    points = torch.stack(torch.meshgrid(centres, centres, centres, indexing="ij"), -1).reshape(
        1, -1, 3
    )
    sources = (points @ rotations).reshape(len(grid), size, size, size, 3).flip(-1)
    return torch.nn.functional.grid_sample(grid, sources, align_corners=False)


@SIZES
def test_norms_are_kept_and_the_transpose_undoes(size: int) -> None:
    grid, rotations = white(6, size, 2), haar(6)
    rotated = rotate_grid(grid, rotations)
    torch.testing.assert_close(
        rotated.flatten(1).norm(dim=1), grid.flatten(1).norm(dim=1), atol=0, rtol=1e-12
    )
    torch.testing.assert_close(rotate_grid(rotated, rotations.transpose(1, 2)), grid, **ROUNDING)


def test_white_noise_stays_white() -> None:
    # The covariance of rotated white noise is M M^T, M the map's matrix: the identity if and only
    # if it stays white.
    size = 5
    basis = torch.eye(size**3, dtype=torch.float64).reshape(-1, 1, size, size, size)
    matrix = rotate_grid(basis, haar(1).expand(len(basis), 3, 3)).flatten(1)
    torch.testing.assert_close(
        matrix.T @ matrix, torch.eye(size**3, dtype=torch.float64), **ROUNDING
    )
    assert (matrix - torch.eye(size**3, dtype=torch.float64)).abs().max() > 0.1


@SIZES
def test_cube_rotations_compose_with_every_other(size: int) -> None:
    grid, rotations = white(24, size), haar(24)
    cube = octahedral_rotations(torch.float64)
    torch.testing.assert_close(
        rotate_grid(rotate_grid(grid, rotations), cube),
        rotate_grid(grid, cube @ rotations),
        **ROUNDING,
    )
    torch.testing.assert_close(
        rotate_grid(rotate_grid(grid, cube), rotations),
        rotate_grid(grid, rotations @ cube),
        **ROUNDING,
    )


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_turns_about_an_axis_are_undone_too(axis: int) -> None:
    # Where the rule for the order of shears has ties.
    cosine, sine = torch.tensor(0.3).double().cos(), torch.tensor(0.3).double().sin()
    rotation = torch.eye(3, dtype=torch.float64)
    first, second = (axis + 1) % 3, (axis + 2) % 3
    rotation[first, first] = rotation[second, second] = cosine
    rotation[second, first], rotation[first, second] = sine, -sine
    grid = white(1, 8)
    torch.testing.assert_close(
        rotate_grid(rotate_grid(grid, rotation[None]), rotation.T[None]), grid, **ROUNDING
    )


def test_rows_mix_cube_rotations_and_others() -> None:
    grid, rotations = white(4, 6), haar(4)
    rotations[1] = octahedral_rotations(torch.float64)[7]
    together = rotate_grid(grid, rotations)
    for row in range(4):
        part = slice(row, row + 1)
        torch.testing.assert_close(
            together[part], rotate_grid(grid[part], rotations[part]), **ROUNDING
        )


# A Gaussian of 1.32 voxels is VoxMol's atom (.33 A at .25 A); its spectrum is down to 2e-4 at the
# Nyquist frequency.
@pytest.mark.parametrize(("width", "bound"), [(1.0, 0.03), (1.32, 2e-3), (2.0, 5e-3)])
@pytest.mark.parametrize("size", [24, 25])
def test_resolved_fields_rotate_accurately(size: int, width: float, bound: float) -> None:
    rotations = haar(6)
    at = torch.nn.functional.normalize(haar(6, seed=1)[:, 0], dim=1) * size / 4
    expected = blob(size, torch.einsum("nij,nj->ni", rotations, at), width)
    error = (rotate_grid(blob(size, at, width), rotations) - expected).norm() / expected.norm()
    # What remains is the part of the spectrum past Nyquist (narrow blobs) or of the blob past the
    # box (wide ones).
    assert error < bound
    assert (
        error
        < 0.2 * (trilinear(blob(size, at, width), rotations) - expected).norm() / expected.norm()
    )

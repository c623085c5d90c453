"""The voxeliser against a dense float64 reference, and the symmetries of what it computes."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from equivbench.symmetry.rotations import octahedral_rotations
from equivbench.symmetry.types import SymmetryType
from equivbench.tasks.voxel.data import voxelise
from equivbench.tasks.voxel.table import DEV, PUBLISHED, SMALL, Grid, standard

ATOM = 0.93 * 0.5
"""A: the width of a published atom's Gaussian exp(-(d/width)^2), written out again."""


def dense(
    pos: Tensor, channel: Tensor, batch: Tensor, n_samples: int, grid: Grid, channels: int
) -> Tensor:
    """1 - prod (1 - exp(-d^2 / (.93 radius)^2)) with every atom evaluated on every voxel."""
    centres = (torch.arange(grid.size, dtype=torch.float64) - (grid.size - 1) / 2) * grid.resolution
    voxels = torch.stack(torch.meshgrid(centres, centres, centres, indexing="ij"), dim=-1)
    empty = torch.ones(n_samples, channels, grid.size, grid.size, grid.size, dtype=torch.float64)
    for position, c, b in zip(pos.double(), channel.tolist(), batch.tolist(), strict=True):
        empty[b, c] *= 1 - torch.exp(
            -((voxels - position) ** 2).sum(-1) / (0.93 * grid.radius) ** 2
        )
    return 1 - empty


def atoms(
    seed: int, count: int, spread: float, samples: int, channels: int
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    pos = spread * torch.randn(count, 3, generator=generator, dtype=torch.float64)
    channel = torch.randint(channels, (count,), generator=generator)
    return pos, channel, torch.randint(samples, (count,), generator=generator)


grids = st.builds(
    Grid,
    size=st.integers(1, 20),
    resolution=st.sampled_from([0.2, 0.25, 0.5, 0.9]),
    radius=st.sampled_from([0.5, 0.8]),
    sigma=st.just(1.0),
)


@given(
    seed=st.integers(0, 2**20),
    count=st.integers(0, 12),
    spread=st.sampled_from([0.0, 1.0, 4.0, 1e3, 1e12]),
    samples=st.integers(1, 3),
    channels=st.integers(1, 4),
    grid=grids,
)
def test_windows_miss_nothing_that_counts(
    seed: int, count: int, spread: float, samples: int, channels: int, grid: Grid
) -> None:
    pos, channel, batch = atoms(seed, count, spread, samples, channels)
    made = voxelise(pos, channel, batch, samples, grid, channels)
    reference = dense(pos, channel, batch, samples, grid, channels)
    assert made.shape == reference.shape
    assert made.dtype == torch.float64
    # At most 12 atoms of a channel, each with less than 1e-8 outside its window; rounding is far
    # below.
    assert (made - reference).abs().max() < 12e-8


@settings(max_examples=20)
@given(seed=st.integers(0, 2**20), spread=st.sampled_from([1.0, 4.0]))
def test_single_precision_loses_rounding_only(seed: int, spread: float) -> None:
    pos, channel, batch = atoms(seed, 40, spread, 2, 8)
    pos = pos.float()
    made = voxelise(pos, channel, batch, 2, SMALL)
    assert made.dtype == torch.float32
    # Densities are at most 1 with slopes up to 1.8/A; differences of positions up to 6 A round at
    # 5e-7 A.
    assert (made - dense(pos, channel, batch, 2, SMALL, 8)).abs().max() < 1e-6


def test_many_atoms_go_through_in_several_pieces() -> None:
    pos, channel, batch = atoms(0, 700, 2.0, 5, 8)
    order = batch.argsort(stable=True)
    whole = voxelise(pos[order], channel[order], batch[order], 5, SMALL)
    for sample in range(5):
        own = batch == sample
        alone = voxelise(pos[own], channel[own], torch.zeros_like(batch[own]), 1, SMALL)
        assert torch.equal(whole[sample], alone[0])


@given(seed=st.integers(0, 2**20))
def test_the_order_of_atoms_does_not_matter(seed: int) -> None:
    pos, channel, batch = atoms(seed, 30, 2.0, 2, 3)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(seed + 1))
    made, permuted = (
        voxelise(pos[o], channel[o], batch[o], 2, SMALL, 3) for o in (torch.arange(30), order)
    )
    # Sums of up to 30 logarithms in another order; a logarithm near a centre is some 10, and its
    # rounding falls with 1 - density.
    assert (made - permuted).abs().max() < 1e-13


@pytest.mark.parametrize(
    "grid", [DEV, SMALL, PUBLISHED, standard(15, 0.5)], ids=lambda grid: str(grid.size)
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-15), (torch.float32, 1e-6)])
def test_rotating_the_cube_permutes_voxels(
    grid: Grid, dtype: torch.dtype, tolerance: float
) -> None:
    pos, channel, batch = atoms(1, 24, grid.box / 6, 1, 1)
    pos = pos.to(dtype)
    rotations = octahedral_rotations(dtype=dtype)
    made = voxelise(pos, channel, batch, 1, grid, 1)
    turned = (pos @ rotations.transpose(1, 2)).flatten(0, 1)
    rotated = voxelise(
        turned, channel.repeat(24), torch.arange(24).repeat_interleave(24), 24, grid, 1
    )
    moved = SymmetryType.parse("voxel(0e)").act(made.expand(24, -1, -1, -1, -1), rotations)
    # Axis permutations change the order of two products, no distance: an ulp of values up to 1.
    assert (rotated - moved).abs().max() < tolerance


@given(st.tuples(*[st.integers(-3, 3)] * 3))
def test_moving_atoms_by_voxels_moves_the_density(steps: tuple[int, int, int]) -> None:
    pos, channel, batch = atoms(2, 6, 0.7, 1, 2)
    moved = voxelise(pos + SMALL.resolution * torch.tensor(steps), channel, batch, 1, SMALL, 2)
    made = voxelise(pos, channel, batch, 1, SMALL, 2)
    # Atoms lie within 3 A, 3 A of reach and 1.5 A of shift off the centre, so nothing wraps round;
    # positions round at 1e-16.
    assert (moved - made.roll(steps, dims=(2, 3, 4))).abs().max() < 1e-13


@given(st.tuples(*[st.floats(-0.5, 0.5)] * 3), st.sampled_from([(24, 0.5, 2e-3), (40, 0.25, 2e-8)]))
def test_an_atom_has_the_mass_of_its_gaussian(
    position: tuple[float, float, float], case: tuple[int, float, float]
) -> None:
    size, resolution, tolerance = case
    grid = standard(size, resolution)
    made = voxelise(
        torch.tensor([position], dtype=torch.float64), torch.tensor([5]), torch.tensor([0]), 1, grid
    )
    # A sum over voxels errs by 6 exp(-(pi width/h)^2): 1.2e-3 at .5 A, 1e-14 at .25 A; the window
    # cuts off at most 3.1e-9 of the mass on each of its six sides: voxels beyond reach, of which
    # the first, where it lies just outside, has h / (sqrt(pi) width) times NEGLIGIBLE.
    assert made.sum().item() * resolution**3 == pytest.approx(
        (math.sqrt(math.pi) * ATOM) ** 3, rel=tolerance
    )
    assert made[:, [0, 1, 2, 3, 4, 6, 7]].count_nonzero() == 0


@given(seed=st.integers(0, 2**20))
def test_density_is_a_probability_and_at_most_the_sum_of_its_atoms(seed: int) -> None:
    pos, channel, _ = atoms(seed, 10, 1.0, 1, 1)
    together = voxelise(pos, channel, torch.zeros_like(channel), 1, SMALL, 1)
    separate = voxelise(pos, channel, torch.arange(10), 10, SMALL, 1)
    assert together.min() >= 0
    assert together.max() <= 1
    # Rounding of values up to 10.
    assert (together[0] - separate.sum(0)).max() < 1e-14
    assert (together[0] - separate.amax(0)).min() > -1e-14


def test_values_are_the_published_ones_on_and_off_a_centre() -> None:
    grid = standard(9, 0.25)
    made = voxelise(torch.zeros(1, 3), torch.tensor([0]), torch.tensor([0]), 1, grid)[0, 0]
    assert made[4, 4, 4] == 1
    # exp(-(.5 / .465)^2): two voxels, one radius, off the centre; float32.
    assert made[6, 4, 4].item() == pytest.approx(0.31466, rel=1e-4)


def test_no_atoms_are_an_empty_grid() -> None:
    nothing = torch.zeros(0, dtype=torch.int64)
    made = voxelise(torch.zeros(0, 3), nothing, nothing, 2, DEV)
    assert made.shape == (2, 8, 16, 16, 16)
    assert made.count_nonzero() == 0


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("grid", [SMALL, PUBLISHED], ids=lambda grid: str(grid.size))
def test_the_gpu_agrees_with_the_cpu(grid: Grid) -> None:
    pos, channel, batch = atoms(3, 200, grid.box / 6, 4, 8)
    made = voxelise(pos.cuda(), channel.cuda(), batch.cuda(), 4, grid)
    # Another library's exp and log1p, another order of summation, in float64.
    assert (made.cpu() - voxelise(pos, channel, batch, 4, grid)).abs().max() < 1e-13

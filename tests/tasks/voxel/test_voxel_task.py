"""The voxel task: what a batch becomes, how it turns, and its baselines."""

import pytest
import torch

from equivbench.errors import UsageError
from equivbench.symmetry.grids import rotate_grid
from equivbench.symmetry.rotations import octahedral_rotations, random_rotations
from equivbench.tasks.voxel.sources import conformers_16
from equivbench.tasks.voxel.task import LinearDenoiser, VoxelDenoising, frequency_bins, grid_of


@pytest.fixture(scope="module")
def data():
    return conformers_16().load()


@pytest.fixture(scope="module")
def batch(data):
    return data.test.collate(torch.arange(4))


def with_noise(task, batch):
    return task.noise(batch, torch.Generator().manual_seed(0))


def test_assembled_grids_are_density_plus_scaled_noise(batch) -> None:
    task = VoxelDenoising()
    noise = with_noise(task, batch)
    inputs, targets = task.assemble(batch, noise, {})
    grid = grid_of(batch)
    assert (
        inputs["noisy"].shape == targets["density"].shape == (4, 8, grid.size, grid.size, grid.size)
    )
    # One rounding each of the product, the sum and the difference, of values up to 2.
    residual = (inputs["noisy"] - targets["density"]) / grid.sigma
    torch.testing.assert_close(residual, noise["noise"], atol=1e-5, rtol=0)
    assert float(targets["density"].max()) <= 1
    assert float(task.objective(targets, targets, inputs)) == 0
    with pytest.raises(UsageError, match="edge_index"):
        task.assemble(batch, noise, {"edge_index": 5.0})


def test_cube_rotations_of_the_sample_rotate_inputs_and_targets(batch) -> None:
    task = VoxelDenoising()
    sample = {
        name: tensor.double() if tensor.is_floating_point() else tensor
        for name, tensor in batch.items()
    }
    noise = {"noise": with_noise(task, batch)["noise"].double()}
    rotations = octahedral_rotations(torch.float64)[[3, 8, 13, 21]]
    moved = task.rotate({**sample, **noise}, rotations, batch["batch"])
    inputs, targets = task.assemble(moved, {"noise": moved["noise"]}, {})
    still_inputs, still_targets = task.assemble(sample, noise, {})
    # Coordinates are permuted exactly; densities of the same distances differ by the order of a
    # product.
    torch.testing.assert_close(
        inputs["noisy"], rotate_grid(still_inputs["noisy"], rotations), atol=1e-12, rtol=0
    )
    torch.testing.assert_close(
        targets["density"], rotate_grid(still_targets["density"], rotations), atol=1e-12, rtol=0
    )


def test_weights_make_the_metric_a_mean_over_voxels_and_channels(batch) -> None:
    task = VoxelDenoising()
    noise = with_noise(task, batch)
    weights = task.weights({**batch, **noise})
    assert weights.shape == noise["noise"].shape
    assert float(weights.sum()) == noise["noise"].numel()


def test_the_zero_predictor_s_error_is_the_objective_at_zero(data) -> None:
    task = VoxelDenoising()
    everything = data.test.collate(torch.arange(len(data.test)))
    inputs, targets = task.assemble(everything, with_noise(task, everything), {})
    zero = {"density": torch.zeros_like(targets["density"])}
    assert task.baseline(data.test) == pytest.approx(
        float(task.objective(zero, targets, inputs)), rel=1e-5
    )


def test_the_linear_denoiser_beats_empty_space_and_every_rescaling_of_itself(data) -> None:
    task = VoxelDenoising()
    linear = task.untrained(data)["linear"]
    everything = data.train.collate(torch.arange(len(data.train)))
    turned = task.rotate(
        everything,
        random_rotations(len(data.train), generator=torch.Generator().manual_seed(0)).double(),
        everything["batch"],
    )
    inputs, targets = task.assemble(turned, with_noise(task, turned), {})
    predicted = linear(**inputs)["density"]

    def error(scale: float) -> float:
        return float(task.objective({"density": scale * predicted}, targets, inputs))

    assert error(1.0) < error(0.0)
    # It is the minimiser on this split up to the draws of noise and rotations, so a change of scale
    # by a third is worse.
    assert error(1.0) < min(error(0.67), error(1.5))


def test_the_linear_denoiser_commutes_with_the_cube_s_rotations_and_nearly_with_all() -> None:
    size = 16
    bins = int(frequency_bins(size).max()) + 1
    # A smooth low-pass filter that mixes channels.
    gain = torch.exp(-torch.arange(bins, dtype=torch.float64)[:, None, None] / 4) * torch.rand(
        1, 2, 2, dtype=torch.float64
    )
    model = LinearDenoiser(gain)
    x = torch.randn(
        3, 2, size, size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    cube = octahedral_rotations(torch.float64)[[2, 9, 17]]
    torch.testing.assert_close(
        model(rotate_grid(x, cube))["density"],
        rotate_grid(model(x)["density"], cube),
        atol=1e-12,
        rtol=0,
    )


def test_declared_fields_are_what_a_batch_holds(batch) -> None:
    task = VoxelDenoising()
    noise = with_noise(task, batch)
    inputs, targets = task.assemble(batch, noise, {})
    held = {**batch, **noise, **inputs, **targets}
    assert set(held) == {field.name for field in task.fields}
    for field in task.fields:
        assert held[field.name].dtype == getattr(torch, field.dtype), field.name
        assert held[field.name].dim() == len(field.shape), field.name

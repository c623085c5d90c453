"""The force-field task: how a rotation acts on its batches, its derived inputs, objective and
baseline."""

import pytest
import torch

from equivbench.errors import UsageError
from equivbench.symmetry.rotations import random_rotations
from equivbench.tasks.base import TaskData
from equivbench.tasks.forcefield.task import ForceField

REQUIRES = {"edge_index": 5.0}


def test_rotating_a_batch_rotates_positions_and_forces_and_leaves_edges_and_energies(
    task: ForceField, shipped: TaskData
) -> None:
    batch = shipped.test.collate(torch.arange(0, 60, 3))
    rotations = random_rotations(
        20, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    turned = task.rotate(batch, rotations, batch["batch"])
    for name in ("pos", "forces"):
        expected = torch.einsum("aij,aj->ai", rotations[batch["batch"]], batch[name].double())
        # float32 of a float64 rotation: half a unit in the last place of values up to 20.
        assert (turned[name] - expected).abs().max() < 2e-6
    for name in ("z", "batch", "energy"):
        assert torch.equal(turned[name], batch[name])
    edges, turned_edges = (
        task.assemble(each, {}, REQUIRES)[0]["edge_index"] for each in (batch, turned)
    )
    # Rounding of positions to float32 may move a pair over the cutoff: of about 9,000 pairs none is
    # that near here.
    assert torch.equal(edges, turned_edges)


def test_the_order_of_molecules_in_a_batch_permutes_its_rows(
    task: ForceField, shipped: TaskData
) -> None:
    order = torch.tensor([4, 0, 3, 1, 2])
    batch, shuffled = shipped.train.collate(torch.arange(5)), shipped.train.collate(order)
    rows = torch.cat([(batch["batch"] == molecule).nonzero()[:, 0] for molecule in order])
    for name in ("z", "pos", "forces"):
        assert torch.equal(shuffled[name], batch[name][rows])
    assert torch.equal(shuffled["energy"], batch["energy"][order])
    edges, shuffled_edges = (
        task.assemble(each, {}, REQUIRES)[0]["edge_index"] for each in (batch, shuffled)
    )
    assert sorted(map(tuple, rows[shuffled_edges].T.tolist())) == sorted(
        map(tuple, edges.T.tolist())
    )


def test_inputs_are_those_that_the_model_requires(task: ForceField, shipped: TaskData) -> None:
    batch = shipped.test.collate(torch.arange(4))
    inputs, targets = task.assemble(batch, {}, {})
    assert list(inputs) == ["z", "pos", "batch"]
    assert set(targets) == {"forces", "energy"}
    inputs, _ = task.assemble(batch, {}, {"edge_index": 12.0, "max_neighbours": 6.0})
    assert torch.bincount(inputs["edge_index"][1]).max() == 6


@pytest.mark.parametrize("requires", [{"edge_indx": 5.0}, {"max_neighbours": 6.0}])
def test_requirements_that_cannot_be_met_are_usage_errors(
    task: ForceField, shipped: TaskData, requires: dict[str, float]
) -> None:
    with pytest.raises(UsageError, match="edge_index"):
        task.assemble(shipped.test.collate(torch.arange(2)), {}, requires)


def test_every_tensor_of_a_batch_is_declared_with_its_type(
    task: ForceField, shipped: TaskData
) -> None:
    inputs, targets = task.assemble(shipped.test.collate(torch.arange(3)), {}, REQUIRES)
    declared = {field.name: field for field in task.fields}
    for name, tensor in {**inputs, **targets}.items():
        assert str(tensor.dtype) == f"torch.{declared[name].dtype}"
        assert tensor.ndim == len(declared[name].shape)
    assert declared["forces"].symmetry == declared["pos"].symmetry == "1o"


def test_objective_is_the_weighted_norm_of_force_errors_and_energy_error_per_atom(
    task: ForceField,
) -> None:
    inputs = {"batch": torch.tensor([0, 0, 1])}
    targets = {"forces": torch.zeros(3, 3), "energy": torch.tensor([1.0, 2.0])}
    outputs = {
        "forces": torch.tensor([[3.0, 4, 0], [0, 0, 0], [0, 0, 1]]),
        "energy": torch.tensor([3.0, 1.0]),
    }
    # forces: (5 + 0 + 1) / 3; energy: (2 eV over 2 atoms + 1 eV over 1 atom) / 2 molecules.
    assert task.objective(outputs, targets, inputs).item() == pytest.approx(100 * 2 + 4 * 1)
    del outputs["energy"]
    assert task.objective(outputs, targets, inputs).item() == pytest.approx(100 * 2)


def test_the_gradient_of_the_objective_is_finite_at_a_perfect_prediction(task: ForceField) -> None:
    forces = torch.ones(3, 3, requires_grad=True)
    task.objective({"forces": forces}, {"forces": torch.ones(3, 3)}, {}).backward()
    assert forces.grad is not None
    assert forces.grad.isfinite().all()


def test_the_baseline_is_the_mean_squared_force_and_does_not_depend_on_orientation(
    task: ForceField, shipped: TaskData
) -> None:
    batch = shipped.test.collate(torch.arange(len(shipped.test)))
    turned = task.rotate(
        batch, random_rotations(len(shipped.test), dtype=torch.float64), batch["batch"]
    )
    # Rotations keep |F| to float32 rounding, far below 1e-5 of the mean.
    assert turned["forces"].square().sum(1).mean().item() == pytest.approx(
        task.baseline(shipped.test), rel=1e-5
    )


def test_strata_are_element_symbols(task: ForceField) -> None:
    names, index = task.strata({"z": torch.tensor([1, 6, 53, 92, 0, 200])})
    assert [names[i] for i in index.tolist()] == ["H", "C", "I", "U", "other", "other"]


def test_direct_forces_leave_the_model_as_it_is_and_unknown_forces_are_refused(
    task: ForceField,
) -> None:
    model = torch.nn.Identity()
    assert task.adapt(model, {}) is model
    with pytest.raises(UsageError, match="conservative"):
        task.adapt(model, {"forces": "conservativ"})

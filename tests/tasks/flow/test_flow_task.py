"""The flow task: its noise, its test conditions, its objective and its metric."""

import pytest
import torch
from chains import backbones, random_walks
from torch import Tensor

from equivbench.errors import UsageError
from equivbench.symmetry.rotations import random_rotations
from equivbench.tasks.flow.declarations import TASKS
from equivbench.tasks.flow.task import (
    TIMES,
    FlowMatching,
    board_quadrature,
    objective_quadrature,
    objective_weight,
)

FLOW = FlowMatching()


def batch() -> dict[str, Tensor]:
    return backbones().collate(torch.arange(3))


def judged() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(batch, noise) of a measurement: every chain once a time."""
    rows = {name: value.repeat_interleave(FLOW.test_points, 0) for name, value in batch().items()}
    return rows, FLOW.test_noise(rows, torch.Generator().manual_seed(0))


def test_the_declaration_is_the_tasks() -> None:
    (declared,) = TASKS
    assert (declared.name, declared.fields, declared.board_unit) == (
        FLOW.name,
        FLOW.fields,
        FLOW.board_unit,
    )
    rows, noise = judged()
    inputs, _ = FLOW.assemble(rows, noise, {})
    roles = {field.name: field.role for field in FLOW.fields}
    assert set(noise) == {name for name, role in roles.items() if role == "noise"}
    assert set(rows) | set(inputs) | set(noise) == set(roles)
    assert FLOW.feedback is not None
    assert FLOW.feedback.input in inputs


def test_the_noise_is_centred_and_stays_out_of_the_padding() -> None:
    sample = batch()
    noise = FLOW.noise(sample, torch.Generator().manual_seed(1))
    assert bool((noise["x0"][~sample["mask"]] == 0).all())
    assert float(noise["x0"].sum(1).abs().max()) < 1e-5  # float32 sums of 24 numbers
    torch.testing.assert_close(noise["weight"], objective_weight(noise["t"]))


def test_equal_seeds_give_equal_noise() -> None:
    first, second = (FLOW.noise(batch(), torch.Generator().manual_seed(4)) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_each_chain_is_judged_once_at_each_time_with_noise_of_its_own() -> None:
    rows, noise = judged()
    assert noise["t"].reshape(3, -1).tolist() == [pytest.approx(TIMES)] * 3
    assert len({row.numpy().tobytes() for row in noise["x0"]}) == len(rows["mask"])
    names, stratum = FLOW.strata({**rows, **noise})
    assert names == ("t=0", "t=0.2", "t=0.4", "t=0.6", "t=0.8", "t=0.9", "t=0.95", "t=0.99")
    assert stratum.tolist() == [*range(8)] * 3


def test_the_metric_is_the_quadrature_over_times_of_the_mean_over_residues() -> None:
    rows, noise = judged()
    errors = torch.rand(
        rows["x1"].shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )
    weights = FLOW.weights({**rows, **noise})
    found = (weights * errors.square()).sum() / weights.sum()
    by_time = [
        (errors[k::8].square().sum(-1)[rows["mask"][k::8]]).mean() * weight
        for k, weight in enumerate(board_quadrature())
    ]
    assert float(found) == pytest.approx(float(sum(by_time)), rel=1e-6)  # the weights are float32


def test_the_objective_judged_is_its_expectation_by_quadrature() -> None:
    rows, noise = judged()
    inputs, targets = FLOW.assemble(rows, noise, {})
    shift = torch.linspace(0.1, 0.8, 8).repeat(3)[:, None, None].double()
    found = FLOW.objective({"x1": targets["x1"] + shift}, targets, inputs)
    expected = sum(
        weight * 3 * (0.1 * (k + 1)) ** 2
        for k, weight in enumerate(objective_quadrature().tolist())
    )
    assert float(found) == pytest.approx(expected, rel=1e-5)  # float32 weights and times


def test_the_objective_sees_no_padding_and_counts_samples_alike() -> None:
    sample = batch()
    inputs, targets = FLOW.assemble(
        sample, FLOW.noise(sample, torch.Generator().manual_seed(3)), {}
    )
    predicted = (targets["x1"] + 0.1).masked_fill(~sample["mask"][..., None], float("nan"))
    loss = FLOW.objective({"x1": predicted}, targets, inputs)
    assert float(loss) == pytest.approx(float(0.03 * targets["weight"].mean()), rel=1e-5)


def test_a_perfect_velocity_has_no_error_and_a_rotation_changes_nothing() -> None:
    rows, noise = judged()
    inputs, targets = FLOW.assemble(rows, noise, {})
    assert float(FLOW.objective({"x1": targets["x1"]}, targets, inputs)) == 0
    rotations = random_rotations(
        len(rows["mask"]), generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    moved = FLOW.rotate({**rows, **noise}, rotations, None)
    turned, _ = FLOW.assemble(
        {name: moved[name] for name in rows}, {name: moved[name] for name in noise}, {}
    )
    # x_t mixes float32 noise and float64 chains: rounding of the rotated noise.
    torch.testing.assert_close(
        turned["x_t"], inputs["x_t"] @ rotations.transpose(1, 2), rtol=0, atol=1e-6
    )
    assert torch.equal(turned["t"], inputs["t"])


def test_the_baseline_is_the_mean_square_of_the_chains() -> None:
    split = random_walks(70, 20)
    everything = split.collate(torch.arange(70))
    expected = float(everything["x1"].square().sum() / everything["mask"].sum())
    assert FLOW.baseline(split) == pytest.approx(expected)


def test_an_unknown_requirement_is_a_users_error() -> None:
    sample = batch()
    with pytest.raises(UsageError, match="edge_index"):
        FLOW.assemble(sample, FLOW.noise(sample, torch.Generator()), {"edge_index": 5.0})

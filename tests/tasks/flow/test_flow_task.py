"""The flow task: its noise, its test conditions, its objective and its metric."""

import pytest
import torch
from chains import backbones, random_walks
from torch import Tensor, nn

from equivbench.errors import UsageError
from equivbench.measure.evaluator import Evaluator
from equivbench.symmetry.rotations import random_rotations
from equivbench.tasks.flow.declarations import TASKS
from equivbench.tasks.flow.task import (
    TIMES,
    FlowMatching,
    GaussianChain,
    mean_squares,
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
    assert names == ("t=0.2", "t=0.4", "t=0.6", "t=0.8", "t=0.9", "t=0.95", "t=0.99")
    assert stratum.tolist() == [*range(7)] * 3


def test_the_metric_is_the_objective_over_the_mean_of_its_weights() -> None:
    rows, noise = judged()
    inputs, targets = FLOW.assemble(rows, noise, {})
    errors = torch.rand(
        rows["x1"].shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )
    weights = FLOW.weights({**rows, **noise})
    found = (weights * errors.square()).sum() / weights.sum()
    objective = FLOW.objective({"x1": targets["x1"] + errors}, targets, inputs)
    # The weights are float32.
    assert float(found) == pytest.approx(float(objective / objective_quadrature().sum()), rel=1e-6)


def gaussian_error(chain: GaussianChain, length: int) -> Tensor:
    """[times] the mean over residues of the posterior variance: what a Gaussian chain of ``length``
    is expected to err by."""
    variance = torch.linalg.eigvalsh(chain.covariance(length)).clamp(min=0)
    t = torch.tensor(TIMES, dtype=torch.float64)[:, None]
    return 3 / length * (variance * (1 - t) ** 2 / (t**2 * variance + (1 - t) ** 2)).sum(1)


def test_a_gaussian_predictor_has_the_metric_the_parts_and_the_objective_of_its_closed_form() -> (
    None
):
    length = 12
    walk = GaussianChain(0.38**2 * torch.arange(length, dtype=torch.float64))
    split = random_walks(1500, length)
    evaluator = Evaluator(FLOW, split, requires={}, rotations=2, batch_size=3000)
    r = evaluator.evaluate(walk, floor=False)
    expected, weights = gaussian_error(walk, length), objective_quadrature()
    # 1,500 chains of 33 numbers at each time: a standard error of sqrt(2 / 49,500) = .6% if all
    # modes weigh alike, some three times as much where the softest one rules.
    found = [part.total for part in r.by.values()]
    assert found == pytest.approx(expected.tolist(), rel=0.06)
    assert r.objective == pytest.approx(float((weights * expected).sum()), rel=0.03)
    assert r.total == pytest.approx(r.objective / float(weights.sum()), rel=1e-5)
    # The parts add up to it, and so do the two kinds of error.
    mean = float((weights * torch.tensor(found)).sum() / weights.sum())
    assert r.total == pytest.approx(mean, rel=1e-6)
    assert r.total == pytest.approx(r.twirled + r.equivariance, rel=1e-12)


class Tilted(nn.Module):
    """``chain`` with a constant of ``tilt`` nm along x, times 1 - t, added on every residue."""

    def __init__(self, chain: GaussianChain, tilt: float) -> None:
        super().__init__()
        self.chain, self.tilt = chain, tilt

    def forward(self, x_t: Tensor, t: Tensor, mask: Tensor, **_: Tensor) -> dict[str, Tensor]:
        out = self.chain(x_t=x_t, t=t, mask=mask)["x1"]
        shift = self.tilt * (1 - t)[:, None, None] * torch.tensor([1.0, 0.0, 0.0])
        return {"x1": out + shift}


def test_the_share_is_that_of_the_weighted_metric() -> None:
    split, tilt = backbones(6), 0.5
    chain = GaussianChain.fit(split)
    evaluator = Evaluator(FLOW, split, requires={}, rotations=64)
    exact, tilted = (evaluator.evaluate(Tilted(chain, by), floor=False) for by in (0.0, tilt))
    # Under all rotations a constant vector averages to nothing: it is equivariance error alone,
    # tilt^2 (1 - t)^2 at each time.
    weights, t = objective_quadrature(), torch.tensor(TIMES, dtype=torch.float64)
    expected = float((weights * tilt**2 * (1 - t) ** 2).sum() / weights.sum())
    assert exact.share < 1e-9  # rounding of float32 inputs
    # The mean of 64 random directions has a square of 1/64 +- 1/78 at each of 21 samples and times.
    assert tilted.equivariance == pytest.approx(expected, rel=0.05)
    assert tilted.twirled == pytest.approx(exact.total, rel=0.02)
    assert tilted.share == tilted.equivariance / tilted.total


def test_the_objective_judged_is_its_expectation_by_quadrature() -> None:
    rows, noise = judged()
    inputs, targets = FLOW.assemble(rows, noise, {})
    shift = torch.linspace(0.1, 0.7, 7).repeat(3)[:, None, None].double()
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


def test_the_baseline_is_the_metric_of_the_isotropic_predictor() -> None:
    split = random_walks(1500, 12)
    isotropic = GaussianChain.unbonded(mean_squares(split)[0])
    evaluator = Evaluator(FLOW, split, requires={}, rotations=2, batch_size=3000)
    r = evaluator.evaluate(isotropic, floor=False)
    assert r.total == pytest.approx(FLOW.baseline(split), rel=0.03)  # as above
    assert r.explained == pytest.approx(1 - r.total / FLOW.baseline(split), abs=1e-12)


def test_no_single_gain_does_better_than_the_baseline() -> None:
    """On chains of unequal length too; at 0 it predicts the centre, at 1 what it is given."""
    split = backbones(6)
    signal, noise = mean_squares(split)
    t = torch.tensor(TIMES, dtype=torch.float64)
    weights = objective_quadrature() / objective_quadrature().sum()
    gains = torch.linspace(0, 1.2, 2001, dtype=torch.float64)[:, None]
    errors = signal * (1 - gains * t) ** 2 + noise * (gains * (1 - t)) ** 2
    least = float((weights * errors.min(0).values).sum())
    assert FLOW.baseline(split) == pytest.approx(least, rel=1e-3)


def test_an_unknown_requirement_is_a_users_error() -> None:
    sample = batch()
    with pytest.raises(UsageError, match="edge_index"):
        FLOW.assemble(sample, FLOW.noise(sample, torch.Generator()), {"edge_index": 5.0})

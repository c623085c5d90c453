"""The linear baseline is the exact posterior mean where chains are Gaussian, and commutes with
every rotation."""

import pytest
import torch
from chains import Chains, backbones, random_walks

from equivbench.symmetry.rotations import random_rotations
from equivbench.tasks.flow.task import GaussianChain, centred

LENGTH = 16
# Steps of .38 nm: D(s) = .38^2 s.
WALK = GaussianChain(0.38**2 * torch.arange(LENGTH, dtype=torch.float64))


def walks_covariance() -> torch.Tensor:
    """Of one coordinate of a centred walk, from its steps: no mean squared distances."""
    sums = torch.tril(torch.ones(LENGTH, LENGTH, dtype=torch.float64))
    centring = torch.eye(LENGTH, dtype=torch.float64) - 1 / LENGTH
    return 0.38**2 / 3 * centring @ sums @ sums.T @ centring


def test_the_covariance_is_that_of_the_walk() -> None:
    torch.testing.assert_close(WALK.covariance(LENGTH), walks_covariance())


def test_a_fit_recovers_the_walks_squared_distances() -> None:
    fitted = GaussianChain.fit(random_walks(2000, LENGTH))
    # 2,000 chains of three coordinates: a relative standard error of sqrt(2 / 6000) = .018 at most.
    torch.testing.assert_close(
        fitted.squared_distances[1:], WALK.squared_distances[1:], rtol=0.09, atol=0
    )
    assert float(fitted.squared_distances[0]) == 0


def test_a_fit_pools_chains_of_all_lengths_and_skips_padding() -> None:
    chains = Chains(
        (torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0]]), torch.tensor([[0.0, 0, 0], [2, 0, 0]]))
    )
    assert GaussianChain.fit(chains).squared_distances.tolist() == pytest.approx(
        [0, (1 + 1 + 4) / 3, 2], abs=1e-6
    )


@pytest.mark.parametrize("time", [0.05, 0.4, 0.95])
def test_the_prediction_is_the_posterior_mean_of_the_joint_normal(time: float) -> None:
    x1 = random_walks(3, LENGTH, seed=4).collate(torch.arange(3))["x1"]
    mask, t = torch.ones(3, LENGTH, dtype=torch.bool), torch.full((3,), time, dtype=torch.float64)
    x0 = centred(
        torch.randn(x1.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64), mask
    )
    x_t = (1 - time) * x0 + time * x1
    covariance, noise = walks_covariance(), torch.eye(LENGTH, dtype=torch.float64) - 1 / LENGTH
    exact = (
        time
        * covariance
        @ torch.linalg.pinv(time**2 * covariance + (1 - time) ** 2 * noise, rtol=1e-12)
        @ x_t
    )
    # The pseudo-inverse's cut loses some digits where modes are small.
    torch.testing.assert_close(WALK(x_t=x_t, t=t, mask=mask)["x1"], exact, rtol=0, atol=1e-8)


def test_no_filter_of_another_strength_does_better_on_gaussian_chains() -> None:
    x1 = random_walks(4000, LENGTH, seed=6).collate(torch.arange(4000))["x1"]
    mask, t = (
        torch.ones(4000, LENGTH, dtype=torch.bool),
        torch.full((4000,), 0.5, dtype=torch.float64),
    )
    x0 = centred(
        torch.randn(x1.shape, generator=torch.Generator().manual_seed(8), dtype=torch.float64), mask
    )
    errors = {}
    for factor in (0.5, 0.8, 1.0, 1.25, 2.0):
        chain = GaussianChain(factor * WALK.squared_distances)
        errors[factor] = float(
            (chain(x_t=(x0 + x1) / 2, t=t, mask=mask)["x1"] - x1).square().sum(-1).mean()
        )
    assert min(errors, key=lambda factor: errors[factor]) == 1.0


def test_at_the_ends_of_the_flow_it_gives_the_centre_and_the_chain() -> None:
    batch = backbones().collate(torch.arange(3))
    chain = GaussianChain.fit(backbones())
    for time, expected in ((0.0, torch.zeros_like(batch["x1"])), (1.0, batch["x1"])):
        out = chain(
            x_t=batch["x1"], t=torch.full((3,), time, dtype=torch.float64), mask=batch["mask"]
        )["x1"]
        if time == 0:
            assert torch.equal(out, expected)
    assert bool(out.isfinite().all())


def test_it_commutes_with_rotations_and_reflections_and_skips_padding() -> None:
    batch = backbones().collate(torch.arange(3))
    chain, t, mask = (
        GaussianChain.fit(backbones(1)),
        torch.tensor([0.2, 0.5, 0.9]).double(),
        batch["mask"],
    )
    matrix = -random_rotations(1, generator=torch.Generator().manual_seed(2), dtype=torch.float64)[
        0
    ]
    out = chain(x_t=batch["x1"], t=t, mask=mask)["x1"]
    turned = chain(x_t=batch["x1"] @ matrix.T, t=t, mask=mask)["x1"]
    torch.testing.assert_close(turned, out @ matrix.T, rtol=0, atol=1e-12)  # float64 rounding
    filled = batch["x1"].masked_fill(~mask[..., None], float("nan"))
    assert torch.equal(chain(x_t=filled, t=t, mask=mask)["x1"], out)


def test_without_bonds_each_residue_is_filtered_by_itself() -> None:
    mean_square, t = 1.5, torch.tensor([0.0, 0.3, 0.8, 1.0], dtype=torch.float64)
    random = torch.Generator().manual_seed(4)
    mask = torch.ones(4, 9, dtype=torch.bool)
    x_t = centred(torch.randn(4, 9, 3, generator=random, dtype=torch.float64), mask)
    found = GaussianChain.unbonded(mean_square)(x_t=x_t, t=t, mask=mask)["x1"]
    # The scalar posterior mean, at a variance of a third of the mean square.
    variance = mean_square / 3
    gain = t * variance / (t**2 * variance + (1 - t) ** 2)
    torch.testing.assert_close(found, gain[:, None, None] * x_t, atol=1e-12, rtol=0)

"""The flow's times and weights against closed forms and plain numerical integration."""

import math

import pytest
import torch

from equivbench.tasks.flow.task import (
    TIMES,
    WEIGHT_OFFSET,
    centred,
    density,
    draw_times,
    interpolate,
    objective_quadrature,
    objective_weight,
    x1_from_velocity,
)


def grid() -> tuple[torch.Tensor, torch.Tensor]:
    """(t, dt): midpoints that crowd towards t = 1, where the weight is only .003 wide."""
    edges = 1 - torch.cat(
        [torch.logspace(0, -8, 400_001, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)]
    )
    return (edges[1:] + edges[:-1]) / 2, edges.diff()


def test_the_density_of_times_adds_up_to_one() -> None:
    t, dt = grid()
    # The midpoint rule on 400,000 panels is good to some 1e-9.
    assert float((density(t) * dt).sum()) == pytest.approx(1, abs=1e-7)


def test_times_are_drawn_from_their_density() -> None:
    drawn = draw_times(200_000, torch.Generator().manual_seed(0)).double()
    assert 0 <= float(drawn.min()) <= float(drawn.max()) <= 1
    for edge in (0.01, 0.2, 0.5, 0.9, 0.99):
        expected = 0.02 * edge + 0.98 * edge**1.9
        # Five standard errors of a frequency among 200,000 draws.
        assert float((drawn < edge).double().mean()) == pytest.approx(
            expected, abs=5 * math.sqrt(expected / 200_000)
        )


def test_81_percent_of_the_objectives_weight_lies_above_the_last_time() -> None:
    t, dt = grid()
    mass = density(t) * objective_weight(t) * dt
    assert float(mass[t > 0.99].sum() / mass.sum()) == pytest.approx(0.81, abs=0.005)


def test_the_weight_at_the_end_is_the_published_offsets() -> None:
    assert float(objective_weight(torch.ones(()))) == pytest.approx(1 / WEIGHT_OFFSET)


@pytest.mark.parametrize(
    "velocity_error",
    [
        lambda t: torch.ones_like(t),
        lambda t: t.clamp(TIMES[0], TIMES[-1]),
        lambda t: (t.clamp(TIMES[0], TIMES[-1]) - 0.4).abs(),
    ],
    ids=["constant", "line", "kink at a node"],
)
def test_the_objectives_rule_is_exact_for_velocity_errors_linear_between_the_times(
    velocity_error,
) -> None:
    t, dt = grid()
    expected = float(
        (density(t) * objective_weight(t) * (1 - t) ** 2 * velocity_error(t) * dt).sum()
    )
    times = torch.tensor(TIMES, dtype=torch.float64)
    found = float((objective_quadrature() * (1 - times) ** 2 * velocity_error(times)).sum())
    assert found == pytest.approx(expected, rel=1e-6)  # the midpoint sums' own error


def test_the_path_runs_from_noise_to_data_and_its_velocity_leads_to_the_end() -> None:
    x0, x1 = torch.randn(
        2, 4, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    t = torch.tensor([0.0, 0.3, 0.9, 1.0], dtype=torch.float64)
    x_t = interpolate(x0, x1, t)
    assert torch.equal(x_t[0], x0[0])
    assert torch.equal(x_t[3], x1[3])
    torch.testing.assert_close(x1_from_velocity(x_t, t, x1 - x0), x1)
    # At the end no velocity matters: a v-prediction is exact there.
    assert torch.equal(x1_from_velocity(x_t, t, 1e6 * x0)[3], x1[3])


def test_centring_sees_residues_only() -> None:
    x = torch.randn(2, 6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    mask = torch.arange(6) < torch.tensor([6, 4])[:, None]
    out = centred(x.masked_fill(~mask[..., None], float("nan")), mask)
    assert float(out.sum(1).abs().max()) < 1e-14  # rounding of sums of six numbers of order 1
    assert bool((out[~mask] == 0).all())
    torch.testing.assert_close(out[1, 0] - out[1, 3], x[1, 0] - x[1, 3])

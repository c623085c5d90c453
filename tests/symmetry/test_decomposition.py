"""The estimators against closed forms, and the interval against its promise."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from equivbench.errors import UsageError
from equivbench.symmetry.decomposition import Decomposition, Loss, decompose, ratio_interval
from equivbench.symmetry.rotations import octahedral_rotations, random_rotations

REPEATS = 4000


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def haar(n: int, seed: int) -> Tensor:
    return random_rotations(n, generator=seeded(seed), dtype=torch.float64)


def linear(rotations: Tensor, matrix: Tensor, x: Tensor) -> Tensor:
    """R^T A R x for every R of [..., 3, 3]: the pulled-back predictions of f(x) = A x."""
    return (rotations.transpose(-1, -2) @ (matrix @ (rotations @ x[:, None])))[..., 0]


def linear_truth(matrix: Tensor, x: Tensor, y: Tensor) -> tuple[float, float]:
    """(M, V) of f(x) = A x under Haar: the twirl is tr(A)/3, and E |A R x|^2 = |A|_F^2 |x|^2 /
    3."""
    twirl = matrix.trace() / 3 * x
    m = (twirl - y).square().sum()
    v = matrix.square().sum() * x.square().sum() / 3 - twirl.square().sum()
    return float(m), float(v)


def tied_head(rotations: Tensor, s: Tensor, d: Tensor, m: float) -> Tensor:
    """f = m sum_j s_j (*) d_j with invariant s_j in R^3, pulled back: the head of EScAIP."""
    turned = torch.einsum("...ab,jb->...ja", rotations, d)
    return m * torch.einsum("...ba,...b->...a", rotations, (s * turned).sum(-2))


def assert_means(d: Decomposition, m: float, v: float) -> None:
    """The means over rows (independent repeats) lie within 5 standard errors: a false alarm in 2
    million."""
    for estimates, truth in ((d.twirled, m), (d.equivariance, v), (d.total, m + v)):
        error = estimates.std() / math.sqrt(len(estimates))
        assert abs(float(estimates.mean()) - truth) < 5 * float(error) + 1e-12 * (m + v)
    # Both sides are the same sum of two terms, one of them split: a few eps of the total.
    assert float((d.total - d.twirled - d.equivariance).abs().max()) <= 1e-14 * float(d.total.max())


MATRIX = torch.tensor([[1.0, 0.3, -0.2], [0.1, 0.7, 0.4], [-0.5, 0.2, 1.4]], dtype=torch.float64)
X = torch.tensor([0.4, -1.1, 0.8], dtype=torch.float64)
Y = torch.tensor([0.6, -0.9, 0.5], dtype=torch.float64)


@pytest.mark.parametrize("n", [2, 4, 10])
def test_linear_map_is_unbiased(n: int) -> None:
    predictions = linear(haar(n * REPEATS, n).reshape(n, REPEATS, 3, 3), MATRIX, X)
    assert_means(decompose(predictions, Y.expand(REPEATS, 3)), *linear_truth(MATRIX, X, Y))


@pytest.mark.parametrize("n", [2, 4, 10])
def test_tied_head_is_unbiased(n: int) -> None:
    s, d = (
        torch.randn(5, 3, generator=seeded(0)).double(),
        torch.randn(5, 3, generator=seeded(1)).double(),
    )
    # The twirl replaces s by the mean of its components; E |p|^2 follows from E (R a)(R b)^T =
    # (a.b) I / 3.
    twirl = 0.7 * (s.mean(1, keepdim=True) * d).sum(0)
    second = 0.49 * ((s @ s.T) * (d @ d.T)).sum() / 3
    m, v = float((twirl - Y).square().sum()), float(second - twirl.square().sum())
    predictions = tied_head(haar(n * REPEATS, n).reshape(n, REPEATS, 3, 3), s, d, 0.7)
    assert_means(decompose(predictions, Y.expand(REPEATS, 3)), m, v)
    # The map is bilinear in the rotation, for which the cube group averages exactly.
    every = tied_head(octahedral_rotations(torch.float64), s, d, 0.7)[:, None]
    assert float(decompose(every, Y[None], exhaustive=True).twirled) == pytest.approx(m, rel=1e-12)


def test_tied_rows_make_the_head_equivariant() -> None:
    s, d = (
        torch.randn(5, 1, generator=seeded(0)).double().expand(5, 3),
        torch.randn(5, 3, generator=seeded(1)).double(),
    )
    predictions = tied_head(haar(4, 0), s, d, 0.7)
    # Rounding of float64 squared.
    assert decompose(predictions[:, None], Y[None]).share < 1e-28


def test_whole_group_is_exact() -> None:
    group = octahedral_rotations(torch.float64)
    predictions = linear(group, MATRIX, X)[:, None]
    m, v = linear_truth(MATRIX, X, Y)
    d = decompose(predictions, Y[None], exhaustive=True)
    # Vectors are irreducible under the cube group too, so it averages a linear map exactly as all
    # of SO(3) does (Schur).
    assert float(d.twirled) == pytest.approx(m, rel=1e-13)
    assert float(d.equivariance) == pytest.approx(v, rel=1e-13)
    assert float(d.total) == pytest.approx(m + v, rel=1e-13)
    assert decompose(predictions[:1], Y[None], exhaustive=True).share == 0.0


@pytest.mark.parametrize("n", [2, 4, 10])
def test_masked_nan_rows_and_components_contribute_nothing(n: int) -> None:
    rows = 50
    predictions = linear(haar(n * rows, n).reshape(n, rows, 3, 3), MATRIX, X)
    target = Y.expand(rows, 3).clone()
    mask = torch.rand(rows, generator=seeded(3)) < 0.6
    clean = decompose(predictions, target)
    spoilt, spoilt_target = predictions.clone(), target.clone()
    spoilt[:, ~mask] = math.nan
    spoilt_target[~mask] = math.inf
    d = decompose(spoilt, spoilt_target, weights=mask)
    assert torch.equal(d.total, torch.where(mask, clean.total, 0))
    assert torch.equal(d.twirled, torch.where(mask, clean.twirled, 0))
    assert torch.equal(d.equivariance, torch.where(mask, clean.equivariance, 0))
    component = torch.tensor([[1.0, 0.0, 2.0]])
    spoilt = predictions.clone()
    spoilt[..., 1] = math.nan
    by_hand = (
        decompose(predictions[..., :1], target[:, :1]).equivariance
        + 2 * decompose(predictions[..., 2:], target[:, 2:]).equivariance
    )
    torch.testing.assert_close(decompose(spoilt, target, weights=component).equivariance, by_hand)


def test_weights_count_from_the_batch_axis() -> None:
    predictions, target = torch.randn(4, 3, 3, generator=seeded(0)), torch.zeros(3, 3)
    mask = torch.tensor([1.0, 0.0, 1.0])
    d = decompose(predictions, target, weights=mask)
    assert torch.equal(d.total, decompose(predictions, target, weights=mask[:, None]).total)
    assert torch.equal(
        d.total, decompose(predictions, target, weights=mask[:, None].expand(3, 3)).total
    )
    atoms = decompose(torch.randn(2, 5, 7, 3), torch.zeros(5, 7, 3), weights=torch.ones(5, 7))
    assert atoms.total.shape == (5,)


def test_masked_gradient_is_finite() -> None:
    predictions = torch.randn(3, 2, 3, dtype=torch.float64)
    predictions[:, 1] = math.nan
    predictions.requires_grad_()
    decompose(
        predictions, torch.zeros(2, 3), weights=torch.tensor([1, 0])
    ).equivariance.sum().backward()
    assert predictions.grad is not None
    assert torch.isfinite(predictions.grad).all()


def test_float32_with_a_large_offset_loses_nothing() -> None:
    # Deviations on float32's grid at 1024 (2^-13), so that the same numbers with and without the
    # offset are exact.
    steps = torch.randint(-40, 40, (4, 100, 3), generator=seeded(0)).double() * 2.0**-13
    truth = decompose(steps, torch.zeros(100, 3))
    shifted = decompose((1024 + steps).float(), torch.full((100, 3), 1024.0))
    for name in ("total", "twirled", "equivariance"):
        # Sums of exact squares in float64.
        torch.testing.assert_close(
            getattr(shifted, name), getattr(truth, name), rtol=1e-13, atol=1e-20
        )


@pytest.mark.parametrize("small", [1e-6, 1e-12, 1e-20])
@pytest.mark.parametrize("n", [2, 4, 10])
def test_tiny_shares_are_right(n: int, small: float) -> None:
    # f(x) = x + e A x with traceless A: V scales with e^2 exactly, down to far below the rounding
    # of the total.
    rotations = haar(n * REPEATS, n).reshape(n, REPEATS, 3, 3)
    scale = math.sqrt(small)
    traceless = MATRIX - MATRIX.trace() / 3 * torch.eye(3, dtype=torch.float64)
    deviations = linear(rotations, traceless, X)
    v = linear_truth(traceless, X, Y)[1]
    predictions = X + scale * deviations
    d = decompose(predictions, Y.expand(REPEATS, 3))
    exact = small * v / (float((X - Y).square().sum()) + small * v)
    spread = 5 * float(d.equivariance.std() / d.equivariance.mean()) / math.sqrt(REPEATS)
    # Adding X to the deviations rounds them by 1e-16 of X: relative 1e-16 / scale.
    assert d.share == pytest.approx(exact, rel=spread + 4e-16 / scale)


@pytest.mark.parametrize("n", [2, 4, 10])
def test_share_one(n: int) -> None:
    # The target is the exact twirl: everything is equivariance error, and the twirled part scatters
    # about 0 unclipped.
    predictions = linear(haar(n * REPEATS, n).reshape(n, REPEATS, 3, 3), MATRIX, X)
    d = decompose(predictions, (MATRIX.trace() / 3 * X).expand(REPEATS, 3))
    assert float(d.twirled.min()) < 0
    assert_means(d, 0.0, linear_truth(MATRIX, X, X * 0)[1])
    assert abs(d.share - 1) < 5 * float(d.twirled.std() / d.total.mean()) / math.sqrt(REPEATS)


def test_norm_of_a_whole_group_is_exact_and_jackknife_approaches_it() -> None:
    group = octahedral_rotations(torch.float64)
    every = linear(group, MATRIX, X)[:, None]
    exact = decompose(every, Y[None], exhaustive=True, loss="norm")
    assert float(exact.twirled) == pytest.approx(float((every.mean(0) - Y).norm()), rel=1e-13)
    assert float(exact.total) == pytest.approx(float((every - Y).norm(dim=-1).mean()), rel=1e-13)
    draws = torch.randint(24, (16, REPEATS), generator=seeded(0))
    d = decompose(every[draws, 0], Y.expand(REPEATS, 3), loss="norm")
    # The jackknife leaves a bias of order 1/n^2; the plug-in's, of order 1/n, must be gone.
    plug_in = (every[draws, 0].mean(0) - Y).norm(dim=-1).mean() - exact.twirled
    assert abs(float(d.twirled.mean() - exact.twirled)) < 0.3 * float(plug_in)
    assert torch.equal(d.equivariance, d.total - d.twirled)


def test_jackknife_of_squared_error_is_the_unbiased_twirled_part() -> None:
    # For one-component vectors far from 0 the norm is linear there, so V vanishes; masks drop whole
    # vectors.
    predictions = 5 + torch.rand(8, 20, 2, 1, generator=seeded(0), dtype=torch.float64)
    target = torch.zeros(20, 2, 1, dtype=torch.float64)
    # Differences of numbers of size 8 x 6.
    assert decompose(predictions, target, loss="norm").equivariance.abs().max() < 1e-13
    mask = torch.ones(20, 2, 1)
    mask[3, 1] = 0
    predictions[:, 3, 1] = math.nan
    d = decompose(predictions, target, weights=mask, loss="norm")
    assert float(d.total[3]) == pytest.approx(float(predictions[:, 3, 0].mean()))


@pytest.mark.usefixtures("unchecked_types")
def test_what_cannot_be_estimated_is_refused() -> None:
    one, seven = torch.zeros(1, 5, 3), torch.zeros(7, 5, 3)
    target = torch.zeros(5, 3)
    with pytest.raises(ValueError, match="at least 2 rotations"):
        decompose(one, target)
    with pytest.raises(ValueError, match="at least 8 rotations"):
        decompose(seven, target, loss="norm")
    with pytest.raises(ValueError, match="not one of"):
        decompose(seven, target, loss="mae")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="target's shape"):
        decompose(seven, torch.zeros(4, 3))
    with pytest.raises(ValueError, match="one a row"):
        decompose(seven, target, groups=torch.zeros(4, dtype=torch.int64))
    with pytest.raises(ValueError, match="do not broadcast"):
        decompose(seven, target, weights=torch.ones(4))
    with pytest.raises(ValueError, match="at least 0"):
        decompose(seven, target, weights=-torch.ones(5))
    with pytest.raises(ValueError, match="weights differ"):
        decompose(
            torch.zeros(8, 5, 3), target, weights=torch.tensor([[1.0, 0.0, 1.0]]), loss="norm"
        )
    with pytest.raises(ValueError, match="confidence level"):
        decompose(seven, target).interval(95)


def test_share_is_a_ratio_of_sums_and_nan_only_without_error() -> None:
    d = decompose(torch.tensor([[[0.0], [10.0]], [[2.0], [12.0]]]), torch.tensor([[1.0], [0.0]]))
    assert d.share == pytest.approx(float(d.equivariance.sum() / d.total.sum()))
    perfect = decompose(torch.ones(2, 4, 3), torch.ones(4, 3))
    assert math.isnan(perfect.share)
    assert all(math.isnan(end) for end in perfect.interval())
    assert all(
        math.isnan(end) for end in decompose(torch.randn(2, 1, 3), torch.ones(1, 3)).interval()
    )
    constant = decompose(torch.ones(2, 4, 3), torch.zeros(4, 3))
    assert constant.interval() == (0.0, 0.0)


def synthetic(sets: int, spread: float, n: int, seed: int) -> tuple[Tensor, Tensor, float]:
    """``sets`` sets of 100 groups of 5 rows in R^3, group sizes of error log-normal with
    ``spread``, and the true share."""
    generator = seeded(seed)
    shape = (sets, 100, 5, 3)
    scale = torch.exp(
        spread * torch.randn(sets, 100, 1, 1, generator=generator, dtype=torch.float64)
    )
    bias = scale * torch.randn(shape, generator=generator, dtype=torch.float64)
    noise = 0.3 * scale * torch.randn((n, *shape), generator=generator, dtype=torch.float64)
    return (bias + noise).reshape(n, sets, 500, 3), torch.arange(500) // 5, 0.09 / 1.09


@pytest.mark.slow
@pytest.mark.parametrize(("spread", "n"), [(0.0, 2), (0.3, 4), (0.5, 4)])
def test_interval_covers_its_true_share(spread: float, n: int) -> None:
    predictions, groups, share = synthetic(1000, spread, n, seed=n)
    target = torch.zeros(500, 3)
    covered = 0
    for which in range(1000):
        low, high = decompose(predictions[:, which], target, groups=groups).interval()
        covered += low <= share <= high
    assert 920 <= covered <= 970


@pytest.mark.parametrize("count", [2, 3, 5, 10, 100])
def test_interval_from_few_groups_is_one_that_can_be(count: int) -> None:
    share, generator, covered, shown = 0.8, seeded(count), 0, 0
    for _ in range(100):
        size = torch.exp(0.5 * torch.randn(count, 1, generator=generator, dtype=torch.float64))
        squares = torch.randn(2, count, 6, generator=generator, dtype=torch.float64).square()
        v, m = (size * squares).mean(-1) * torch.tensor([[share], [1 - share]])
        low, high = ratio_interval(v, v + m, most=1.0)
        assert (math.isnan(low) and math.isnan(high)) or 0 <= low <= high <= 1
        shown += not math.isnan(low)
        covered += low <= share <= high
    # Four standard errors of 100 intervals that cover 95%.
    assert covered >= 0.86 * shown
    assert shown >= 90 if count >= 5 else shown == 0


@pytest.mark.parametrize("share", [0.0, 0.02])
def test_the_interval_of_a_difference_covers_it(share: float) -> None:
    generator, covered = seeded(3), 0
    for _ in range(100):
        size = torch.exp(0.5 * torch.randn(60, generator=generator, dtype=torch.float64))
        noise = torch.randn(2, 60, generator=generator, dtype=torch.float64)
        v, t = size * (share + 0.05 * noise[0]), size * (1 + 0.1 * noise[1])
        low, high = ratio_interval(v, t, most=1.0, signed=True)
        assert 0 <= low <= high <= 1
        covered += low <= share <= high
    # Four standard errors of 100 intervals that cover 95%.
    assert covered >= 86
    assert covered < 100


def test_an_interval_knows_no_more_than_its_bounds() -> None:
    # The unbiased estimate of a share near 1 may lie above it.
    high = torch.tensor([1.3, 1.2, 1.4, 1.1, 1.3])
    assert ratio_interval(high, torch.ones(5), most=1.0)[1] == 1.0
    assert ratio_interval(high, torch.ones(5))[1] > 1.3
    low = torch.tensor([-0.02, 0.03, 0.01, 0.02, -0.01])
    assert ratio_interval(low, torch.ones(5))[0] == 0.0


def test_interval_widens_with_the_level_and_resamples_groups_not_rows() -> None:
    predictions, groups, _ = synthetic(1, 0.5, 4, seed=0)
    d = decompose(predictions[:, 0], torch.zeros(500, 3), groups=groups)
    low, high = d.interval()
    assert low < d.share < high
    assert d.interval() == (low, high)
    wide = d.interval(0.99)
    assert wide[0] < low < high < wide[1]
    rows = decompose(predictions[:, 0], torch.zeros(500, 3)).interval()
    assert rows[1] - rows[0] < high - low
    # Names of groups do not matter, nor the order of rows.
    order = torch.randperm(500, generator=seeded(0))
    shuffled = decompose(
        predictions[:, 0, order], torch.zeros(500, 3), groups=groups[order] * 7 - 3
    )
    assert shuffled.interval() == pytest.approx((low, high), rel=1e-9)


@pytest.mark.parametrize("loss", ["squared", "norm"])
def test_all_subsets_of_a_finite_group_average_to_the_whole(loss: Loss) -> None:
    generator = torch.Generator().manual_seed(5)
    every = torch.randn(9, 3, 3, dtype=torch.float64, generator=generator)
    target = torch.randn(3, 3, dtype=torch.float64, generator=generator)
    whole = decompose(every, target, exhaustive=True, loss=loss)
    assert torch.equal(decompose(every, target, drawn_from=9, loss=loss).twirled, whole.twirled)
    parts = [
        decompose(every[list(chosen)], target, drawn_from=9, loss=loss)
        for chosen in itertools.combinations(range(9), 8)
    ]
    mean = torch.stack([part.twirled for part in parts]).mean(0)
    if loss == "squared":
        few = [
            decompose(every[list(chosen)], target, drawn_from=9).twirled
            for chosen in itertools.combinations(range(9), 2)
        ]
        torch.testing.assert_close(torch.stack(few).mean(0), whole.twirled, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(mean, whole.twirled, rtol=1e-12, atol=1e-12)
    else:
        # The jackknife leaves what is of second order in 1/n - 1/N.
        torch.testing.assert_close(mean, whole.twirled, rtol=2e-3, atol=2e-3)


def test_more_draws_than_elements_are_refused() -> None:
    with pytest.raises(UsageError, match="cannot be drawn from a group of 3"):
        decompose(torch.zeros(4, 2, 3), torch.zeros(2, 3), drawn_from=3)

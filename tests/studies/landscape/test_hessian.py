"""Spectra and traces of Hessians that are known, found by products with vectors alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from toy_task import Clouds, Raw, clouds

from equivbench.errors import FailedError, UsageError
from equivbench.studies.landscape.hessian import (
    DENSE,
    TOLERANCE,
    Hessian,
    choose,
    outer_spectrum,
    probed_trace,
)
from equivbench.studies.run import FixedLoss, still

MANY = 200
"""Parameters: enough for Lanczos, few enough to write down."""
SPECTRUM = np.concatenate([[100.0, 80.0], np.linspace(0.0, 5.0, MANY - 4), [-2.0, -3.0]])
"""A few stiff directions, a bulk at 0, a little negative curvature: what networks have."""
ROUNDING = 1e-10
"""Relative, of sums of 200 products of float64, with room for ARPACK's own."""


class Vector(nn.Module):
    """Parameters of a function of a vector, in two pieces."""

    def __init__(self, size: int, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Parameter(torch.randn(size // 2, dtype=dtype))
        self.body = nn.Parameter(torch.randn(2, (size - size // 2) // 2, dtype=dtype))

    def flat(self) -> torch.Tensor:
        return torch.cat([self.head, self.body.reshape(-1)])


def quadratic(matrix: np.ndarray) -> Hessian:
    """That of w A w / 2 + sum(w): the linear term must not matter."""
    model = Vector(len(matrix))
    w = model.flat()
    return Hessian(w @ torch.from_numpy(matrix) @ w / 2 + w.sum(), choose(model))


def turned(spectrum: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A symmetric matrix with this spectrum in random directions, and the directions as columns."""
    axes, _ = np.linalg.qr(
        np.random.default_rng(seed).standard_normal((len(spectrum), len(spectrum)))
    )
    return (axes * spectrum) @ axes.T, axes


def test_products_are_those_with_the_matrix() -> None:
    matrix, _ = turned(SPECTRUM)
    hessian = quadratic(matrix)
    for vector in np.random.default_rng(1).standard_normal((3, MANY)):
        np.testing.assert_allclose(
            hessian.product(vector), matrix @ vector, rtol=ROUNDING, atol=100 * ROUNDING
        )
    assert hessian.products == 3


def test_outer_eigenpairs_are_those_of_the_matrix() -> None:
    matrix, axes = turned(SPECTRUM)
    found = outer_spectrum(quadratic(matrix), 2, seed=3, tolerance=ROUNDING)
    np.testing.assert_allclose(found.largest, [100.0, 80.0], rtol=ROUNDING)
    np.testing.assert_allclose(
        found.smallest, [-3.0, -2.0], rtol=100 * ROUNDING
    )  # beside a spectrum that reaches to 100
    overlap = np.abs(found.vectors @ axes[:, [0, 1, -1, -2]])
    np.testing.assert_allclose(
        overlap, np.eye(4), atol=1e-6
    )  # a vector is off by the residual over the gap, 1e-8 / 1
    assert found.residual < 10 * ROUNDING


def test_at_the_usual_tolerance_values_are_off_by_less_than_the_residual() -> None:
    matrix, _ = turned(SPECTRUM)
    hessian = quadratic(matrix)
    found = outer_spectrum(hessian, 1, seed=0)
    # Weyl: an eigenvalue lies within the residual; the tolerance is of the shifted ends, half and
    # three halves of the reach.
    assert found.residual < 2 * TOLERANCE
    assert abs(found.largest[0] - 100) <= found.residual * 100
    assert abs(found.smallest[0] + 3) <= found.residual * 100
    assert hessian.products < MANY // 2


@pytest.mark.parametrize("size", [8, DENSE, DENSE + 4])
def test_few_parameters_are_as_good_as_many(size: int) -> None:
    spectrum = np.linspace(-1.0, 10.0, size)
    found = outer_spectrum(quadratic(turned(spectrum)[0]), 2, seed=0, tolerance=ROUNDING)
    np.testing.assert_allclose(found.largest, spectrum[::-1][:2], rtol=ROUNDING)
    np.testing.assert_allclose(found.smallest, spectrum[:2], rtol=10 * ROUNDING)
    np.testing.assert_allclose(found.vectors @ found.vectors.T, np.eye(4), atol=ROUNDING)


def test_a_linear_model_has_the_gram_matrix_of_its_data() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(500, 100, generator=generator), torch.randn(500, 1, generator=generator)
    scales = torch.cat(
        [torch.tensor([5.0, 3.0]), torch.linspace(1.0, 0.5, 96), torch.tensor([0.05, 0.02])]
    )
    x, y = x.double() * scales, y.double()
    model = nn.Linear(100, 1, bias=False).double()
    hessian = Hessian((model(x) - y).square().mean(), choose(model))
    known = np.linalg.eigvalsh(2 * (x.T @ x / 500).numpy())
    found = outer_spectrum(hessian, 2, seed=0, tolerance=ROUNDING)
    np.testing.assert_allclose(found.largest, known[::-1][:2], rtol=ROUNDING)
    np.testing.assert_allclose(found.smallest, known[:2], rtol=1e-6)  # a thousandth of the largest
    estimates = np.array([probed_trace(hessian, found, 8, seed=seed) for seed in range(30)])
    error = estimates[:, 0].std(ddof=1) / np.sqrt(30)
    assert abs(estimates[:, 0].mean() - known.sum()) < 4 * error
    assert (
        0.5 < np.sqrt(np.square(estimates[:, 1]).mean()) / estimates[:, 0].std(ddof=1) < 2
    )  # 30 values give it to a tenth or two


def test_the_trace_is_unbiased_its_error_true_and_the_known_vectors_make_it_small() -> None:
    matrix, _ = turned(SPECTRUM)
    hessian = quadratic(matrix)
    rough = outer_spectrum(
        hessian, 2, seed=0, tolerance=0.3
    )  # far from converged: unbiased nevertheless
    estimates = np.array([probed_trace(hessian, rough, 8, seed=seed) for seed in range(60)])
    known, standard = SPECTRUM.sum(), estimates[:, 0].std(ddof=1)
    assert abs(estimates[:, 0].mean() - known) < 4 * standard / np.sqrt(60)
    assert (
        0.7 < np.sqrt(np.square(estimates[:, 1]).mean()) / standard < 1.4
    )  # 60 values give a standard deviation to 9%
    signs = np.random.default_rng(0).integers(0, 2, (60, 8, MANY)) * 2.0 - 1
    plain = np.einsum("spn,nm,spm->sp", signs, matrix, signs).mean(1)
    assert standard < plain.std(ddof=1) / 2


def test_the_same_seed_gives_the_same_bits() -> None:
    matrix, _ = turned(SPECTRUM)
    runs = [outer_spectrum(quadratic(matrix), 1, seed=5) for _ in range(2)]
    assert np.array_equal(runs[0].vectors, runs[1].vectors)
    assert not np.array_equal(runs[0].vectors, outer_spectrum(quadratic(matrix), 1, seed=6).vectors)


def test_a_networks_hessian_is_symmetric_and_what_differences_of_gradients_say() -> None:
    task, model = Clouds(), Raw().double()
    loss = FixedLoss(task, clouds(8), requires={}, rotations=3, precision="float64")
    varied = choose(model)
    first, second = np.random.default_rng(0).standard_normal((2, varied.size))
    step, centre = 1e-5, varied.read()
    with still(model):
        for part in ("total", "twirled", "equivariance"):

            def hessian(part: str = part) -> Hessian:
                return Hessian(getattr(loss.parts(model, loss.chunks[0]), part), varied)

            here = hessian()
            image = here.product(second)
            assert first @ image == pytest.approx(second @ here.product(first), rel=1e-9)
            ends = []
            for sign in (1, -1):
                varied.write(centre + sign * step * second)
                ends.append(hessian().gradient)
            varied.write(centre)
            # Central differences: an error of step^2 and one of rounding / step, both 1e-10 or so
            # of the gradient.
            np.testing.assert_allclose(
                (ends[0] - ends[1]) / (2 * step), image, rtol=1e-5, atol=1e-5 * np.abs(image).max()
            )


def test_what_does_not_curve_has_a_hessian_of_zeros() -> None:
    model = Vector(100)
    hessian = Hessian(model.head.sum(), choose(model))
    assert not hessian.product(np.ones(100)).any()
    found = outer_spectrum(Hessian(model.head.square().sum(), choose(model, "body")), 1, seed=0)
    assert (found.largest[0], found.smallest[0], found.residual) == (0, 0, 0)


def test_layers_are_chosen_by_pattern_and_written_where_they_belong() -> None:
    model = Vector(20, torch.float32)
    assert [each is model.head for each in choose(model, "h*").tensors] == [True]
    varied = choose(model)
    before, wanted = varied.read(), np.arange(20.0)
    varied.write(wanted)
    assert model.body.tolist() == [list(range(10, 15)), list(range(15, 20))]
    np.testing.assert_array_equal(varied.read(), wanted)
    varied.write(before)
    np.testing.assert_array_equal(varied.read(), before)
    with pytest.raises(
        UsageError, match=r"no parameter's name matches '\*haed\*'; did you mean head"
    ):
        choose(model, "*haed*")
    model.requires_grad_(requires_grad=False)
    with pytest.raises(UsageError, match="none that are trained"):
        choose(model)


def test_what_cannot_be_is_said() -> None:
    matrix, _ = turned(np.linspace(-1, 1, 100))
    with pytest.raises(UsageError, match="ask for fewer"):
        outer_spectrum(quadratic(matrix), 51, seed=0)
    broken = np.full((100, 100), np.nan)
    with pytest.raises(FailedError, match="not finite"):
        outer_spectrum(quadratic(broken), 1, seed=0)
    with pytest.raises(FailedError, match="not finite"):
        outer_spectrum(quadratic(broken[:8, :8]), 1, seed=0)

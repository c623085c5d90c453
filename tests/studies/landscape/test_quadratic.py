"""Bowls fitted to slices: exact ones, noise, and shapes that are smooth without being quadratic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from equivbench.studies.landscape.measuring import fit_quadratic

FIRST, SECOND = np.linspace(-0.03, 0.03, 15), np.linspace(-2.0, 2.0, 11)
X, Y = np.meshgrid(FIRST, SECOND, indexing="ij")


@given(
    larger=st.floats(0.1, 1e3),
    ratio=st.floats(-1.0, 1.0),
    angle=st.floats(0, np.pi),
    slopes=st.tuples(st.floats(-1, 1), st.floats(-1, 1)),
)
def test_an_exact_quadratic_gives_its_curvatures(
    larger: float, ratio: float, angle: float, slopes: tuple[float, float]
) -> None:
    x, y = np.meshgrid(np.linspace(-1, 1, 9), np.linspace(-2, 2, 9), indexing="ij")
    u, v = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    bowl = fit_quadratic(
        x[:, 0],
        y[0],
        (larger * u**2 + ratio * larger * v**2) / 2 + slopes[0] * x + slopes[1] * y + 0.3,
    )
    # Rounding of a fit of six coefficients of order 1.
    np.testing.assert_allclose(
        bowl.curvatures, (larger, ratio * larger), rtol=1e-10, atol=1e-10 * larger
    )
    assert bowl.r2 == pytest.approx(1, abs=1e-12)
    if ratio > 1e-3:
        assert bowl.condition == pytest.approx(1 / ratio, rel=1e-6)
    if ratio < -1e-3:
        assert bowl.condition is None


def test_axes_of_very_different_length_are_as_good() -> None:
    bowl = fit_quadratic(FIRST, SECOND, 900 * X**2 / 2 + 0.5 * Y**2 / 2 + 0.1)
    np.testing.assert_allclose(bowl.curvatures, (900, 0.5), rtol=1e-9)
    assert bowl.condition == pytest.approx(1800, rel=1e-9)
    assert bowl.roughness is None


def test_what_a_quadratic_leaves_is_smooth_or_noise() -> None:
    smooth = fit_quadratic(FIRST, SECOND, (X / 0.03) ** 4 + (Y / 2) ** 3)
    assert smooth.r2 is not None
    assert smooth.r2 < 0.99
    assert smooth.roughness is not None
    assert smooth.roughness < 1e-9
    wavy = fit_quadratic(FIRST, SECOND, np.sin(X / 0.03 * np.pi / 2) + np.exp(Y / 2))
    assert wavy.roughness is not None
    assert wavy.roughness < 0.02  # the next terms of both series, of order five and more
    noise = np.random.default_rng(0).standard_normal((40, 15, 11))
    drawn = [fit_quadratic(FIRST, SECOND, each) for each in noise]
    # Of white noise, 5 of 164 degrees of freedom are fitted.
    assert np.mean([bowl.r2 for bowl in drawn]) == pytest.approx(5 / 164, abs=0.01)
    assert np.mean([bowl.roughness for bowl in drawn]) == pytest.approx(1.0, abs=0.05)


def test_a_flat_slice_has_no_quality() -> None:
    bowl = fit_quadratic(FIRST, SECOND, np.full_like(X, 3.7) + 1e-15 * X)
    assert (bowl.r2, bowl.roughness, bowl.condition) == (None, None, None)

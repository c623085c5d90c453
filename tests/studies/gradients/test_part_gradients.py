"""Gradients of both parts of an error, against a model whose gradients are known."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from toy_linear import Matrix, Vectors, VectorSplit, matrix
from toy_task import Central, Clouds, clouds

from equivbench.errors import UsageError
from equivbench.studies.gradients.measuring import PartGradients, gram, part_gradients
from equivbench.studies.gradients.statistics import norm, ratio, square
from equivbench.studies.run import FixedLoss

SIZE = 3.0
"""Mean of |x|^2 over all normal vectors."""


def measured(model: nn.Module, seed: int, samples: int = 24, **options) -> PartGradients:
    """On samples of their own for each seed, so that what is estimated is of all vectors there
    could be."""
    split = VectorSplit(samples, seed)
    options = {"chunks": 4, "rotations": 2, **options}
    return part_gradients(
        model, FixedLoss(Vectors(), split, requires={}, seed=seed, precision="float64", **options)
    )


def test_norms_are_unbiased_and_plain_norms_are_not() -> None:
    model = matrix(3)
    found = [measured(model, seed) for seed in range(150)]
    truths = {
        "twirled_gram": float(model.twirled_gradient(SIZE).square().sum()),
        "equivariance_gram": float(model.equivariance_gradient(SIZE).square().sum()),
    }

    def off(values: list[float], truth: float) -> float:
        return float((np.mean(values) - truth) / (np.std(values) / math.sqrt(len(values))))

    for name, truth in truths.items():
        products = [square(getattr(each, name), each.weights) for each in found]
        plain = [float(each.weights @ getattr(each, name) @ each.weights) for each in found]
        # Four standard errors: a chance of 1e-4 each, and the seeds are fixed.
        assert abs(off(products, truth)) < 4
        assert off(plain, truth) > 4


def test_the_ratio_is_that_of_the_closed_form_with_an_interval_round_it() -> None:
    model = matrix(3)
    truth = float(model.equivariance_gradient(SIZE).norm() / model.twirled_gradient(SIZE).norm())
    found = measured(model, 0, samples=3000, chunks=8)
    interval = ratio(found.equivariance_gram, found.twirled_gram, found.weights).quantity
    assert interval.value is not None
    assert interval.low is not None
    assert interval.high is not None
    assert interval.low < truth < interval.high
    # 3000 vectors of |x|^2 = 3 +- 2.4 and two rotations each: a few per cent.
    assert interval.value == pytest.approx(truth, rel=0.1)


def test_under_the_whole_cube_group_every_chunk_has_the_gradient_of_the_closed_form() -> None:
    model, split = matrix(), VectorSplit(12)
    loss = FixedLoss(
        Vectors(),
        split,
        requires={},
        chunks=3,
        rotations=24,
        group="octahedral",
        precision="float64",
    )
    found = part_gradients(model, loss)
    sizes = np.array([float(chunk.target.square().sum(1).mean()) / 4 for chunk in loss.chunks])
    for products, gradient in (
        (found.twirled_gram, model.twirled_gradient(1.0)),
        (found.equivariance_gram, model.equivariance_gradient(1.0)),
    ):
        np.testing.assert_allclose(
            products, float(gradient.square().sum()) * np.outer(sizes, sizes), rtol=1e-12
        )


class Switched(Matrix):
    """With a dropout that evaluation must take out, a frozen scale and a parameter that nothing
    reads."""

    def __init__(self, start: torch.Tensor) -> None:
        super().__init__(start)
        self.dropout = nn.Dropout(0.5)
        self.scale = nn.Parameter(torch.ones((), dtype=torch.float64), requires_grad=False)
        self.idle = nn.Parameter(torch.ones(5))

    def forward(self, x, e):
        return {"y": self.dropout(self.scale * super().forward(x, e)["y"])}


def test_dropout_frozen_and_idle_parameters_change_nothing() -> None:
    plain, model = matrix(), Switched(matrix().matrix.detach())
    found, expected = measured(model.train(), 0), measured(plain, 0)
    np.testing.assert_array_equal(found.equivariance_gram, expected.equivariance_gram)
    np.testing.assert_array_equal(found.twirled_gram, expected.twirled_gram)
    assert found.unused == {"idle"}
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_model_with_nothing_to_train_is_refused() -> None:
    model = matrix()
    model.matrix.requires_grad_(False)
    with pytest.raises(UsageError, match="no parameter that is trained"):
        measured(model, 0)


def test_an_equivariant_model_has_a_gradient_of_its_main_error_alone() -> None:
    model = Central().double()
    loss = FixedLoss(Clouds(), clouds(64), requires={}, chunks=4, rotations=2, precision="float64")
    found = part_gradients(model, loss)
    assert norm(found.twirled_gram, found.weights).quantity.value is not None
    # V is the square of rounding in float64, about 1e-31.
    assert np.abs(found.equivariance_gram).max() < 1e-24 * np.abs(found.twirled_gram).max()


@pytest.mark.parametrize("missing", [lambda k: False, lambda k: k == 1, lambda k: True])
def test_products_take_a_missing_gradient_for_zero(missing: Callable[[int], bool]) -> None:
    rows = [[torch.ones(2), torch.full((3,), 2.0)], [torch.ones(2), torch.full((3,), 2.0)]]
    known = [[first, None if missing(k) else second] for k, (first, second) in enumerate(rows)]
    zero = [
        [first, torch.zeros(3) if missing(k) else second] for k, (first, second) in enumerate(rows)
    ]
    np.testing.assert_array_equal(gram(known), gram(zero))

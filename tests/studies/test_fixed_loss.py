"""The parts of an error as functions of the parameters: fixed, unbiased, made of chunks that share
nothing."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn
from toy_linear import Matrix, Vectors, VectorSplit, matrix

from equivbench.errors import UsageError
from equivbench.studies.run import FixedLoss, still


def fixed(split: VectorSplit, **options) -> FixedLoss:
    return FixedLoss(Vectors(), split, requires={}, precision="float64", **options)


def test_under_the_whole_cube_group_the_parts_and_their_derivatives_are_the_closed_form() -> None:
    model, split = matrix(), VectorSplit(7)
    loss = fixed(split, rotations=24, group="octahedral")
    size = float(split.x.square().sum(1).mean())
    parts = loss.parts(model, loss.chunks[0])
    # Averages of second-rank tensors over the cube group are those over SO(3); the rest is rounding
    # in float64.
    assert parts.twirled.item() == pytest.approx(model.twirled(size), rel=1e-12)
    assert parts.equivariance.item() == pytest.approx(model.equivariance(size), rel=1e-12)
    assert parts.total.item() == pytest.approx(
        model.twirled(size) + model.equivariance(size), rel=1e-12
    )
    (twirled,) = torch.autograd.grad(parts.twirled, [model.matrix], create_graph=True)
    (equivariance,) = torch.autograd.grad(parts.equivariance, [model.matrix], create_graph=True)
    torch.testing.assert_close(twirled, model.twirled_gradient(size), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        equivariance, model.equivariance_gradient(size), rtol=1e-12, atol=1e-12
    )
    direction = matrix(1).matrix.detach()
    (product,) = torch.autograd.grad(equivariance, [model.matrix], direction)
    # V is quadratic: its Hessian takes a direction to 2 S / 3 times its traceless part.
    torch.testing.assert_close(
        product, Matrix(direction).equivariance_gradient(size), rtol=1e-12, atol=1e-12
    )


def test_two_rotations_are_unbiased_where_the_plug_in_mean_is_not() -> None:
    model, split = matrix(), VectorSplit(60)
    size = float(split.x.square().sum(1).mean())
    twirled, equivariance, plug_in = [], [], []
    for seed in range(200):
        loss = fixed(split, rotations=2, seed=seed)
        parts = loss.parts(model, loss.chunks[0])
        twirled.append(parts.twirled.item())
        equivariance.append(parts.equivariance.item())
        # With two draws the mean of the predictions is off by half of V.
        plug_in.append(twirled[-1] + equivariance[-1] / 2)

    def off(values: list[float], truth: float) -> float:
        found = torch.tensor(values, dtype=torch.float64)
        return float((found.mean() - truth) / (found.std() / math.sqrt(len(values))))

    # Four standard errors: a chance of 1e-4 each, and the seeds are fixed.
    assert abs(off(twirled, model.twirled(size))) < 4
    assert abs(off(equivariance, model.equivariance(size))) < 4
    assert off(plug_in, model.twirled(size)) > 10


def test_chunks_share_no_group_no_rotation_and_no_noise_and_hold_every_sample_once() -> None:
    split = VectorSplit(40)
    loss = fixed(split, rotations=3, chunks=4)
    drawn = [
        (next(iter(chunk.draws)).inverse, next(iter(chunk.draws)).inputs["e"])
        for chunk in loss.chunks
    ]
    for first, second in itertools.combinations(range(4), 2):
        assert not set(loss.chunks[first].groups.tolist()) & set(
            loss.chunks[second].groups.tolist()
        )
        for mine, other in zip(drawn[first], drawn[second], strict=True):
            apart = mine[:, None].flatten(2) - other[None].flatten(2)
            assert float(apart.abs().amax(-1).min()) > 1e-6
    assert sum(chunk.samples for chunk in loss.chunks) == loss.samples == 40
    held = torch.cat([chunk.target for chunk in loss.chunks])
    torch.testing.assert_close(
        held[held[:, 0].argsort()], 2 * split.x[split.x[:, 0].argsort()], rtol=0, atol=0
    )


def test_a_chunk_weighs_by_its_rows_and_the_weights_add_up_to_one() -> None:
    loss = fixed(VectorSplit(40), chunks=3)
    assert sum(loss.weights()) == pytest.approx(1.0, rel=1e-12)
    assert loss.weights() == pytest.approx([chunk.samples / 40 for chunk in loss.chunks], rel=1e-12)
    assert len(set(loss.weights())) > 1


def test_the_same_seed_gives_the_same_bits_and_another_seed_another_set() -> None:
    def values(seed: int) -> list[float]:
        loss = fixed(VectorSplit(40), samples=20, chunks=3, seed=seed)
        model = matrix()
        return [loss.parts(model, chunk).equivariance.item() for chunk in loss.chunks]

    assert values(3) == values(3)
    assert not set(values(3)) & set(values(4))


def test_it_refuses_one_rotation_and_more_chunks_than_groups() -> None:
    with pytest.raises(UsageError, match="at least 2 rotations, not 1"):
        fixed(VectorSplit(40), rotations=1)
    with pytest.raises(
        UsageError, match="6 samples of 6 independent groups cannot be dealt into 7 chunks"
    ):
        fixed(VectorSplit(40), samples=6, chunks=7)


def test_still_takes_dropout_out_and_leaves_every_mode_as_it_was() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.Sequential(nn.Dropout(0.5)).eval())
    with torch.no_grad(), still(model):
        assert torch.is_grad_enabled()
        assert not any(module.training for module in model.modules())
        assert torch.equal(model(torch.ones(100)), torch.ones(100))
    assert [module.training for module in model.modules()] == [True, True, False, False]

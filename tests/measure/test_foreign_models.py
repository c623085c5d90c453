"""Measuring somebody's model: it may use autograd, cannot change what it is lent, is checked for
what it returns, and is found out where it changes itself or its process."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
import torch
from cheats import OUTPUTS, SETTINGS, Act, Doing, Gradient
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from toy_task import Central, Clouds, clouds

from equivbench.errors import ModelError
from equivbench.kernels.process_settings import Settings
from equivbench.measure.calls import checked, fingerprints
from equivbench.measure.equivariance import measure_equivariance
from equivbench.measure.evaluator import Evaluator

TASK = Clouds()


class Bonds(nn.Module):
    """An invariant energy of each point: a network of the distances to the others."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(1, 16), nn.SiLU(), nn.Linear(16, 1))

    def forward(self, z: Tensor, pos: Tensor, batch: Tensor) -> Tensor:
        cloud = pos.reshape(-1, 6, 3)
        apart = cloud[:, None] - cloud[:, :, None]
        return self.layers(apart.square().sum(-1, keepdim=True)).flatten()


def forces() -> Gradient:
    return Gradient(Bonds(), "pos", "pull")


@pytest.mark.parametrize(
    "inside", [contextlib.nullcontext, torch.no_grad, torch.inference_mode], ids=str
)
def test_a_model_may_differentiate_in_its_forward(
    inside: Callable[[], contextlib.AbstractContextManager[object]],
) -> None:
    model = forces()
    with inside():
        r = measure_equivariance(model, TASK, split=clouds(60))
    assert r.verdict is not None
    assert r.verdict.holds, r.verdict.reason
    assert r.total > 0
    # No trace of it is left in the model.
    assert all(each.requires_grad and each.grad is None for each in model.parameters())
    assert model.training


def test_autograd_inside_gives_what_it_gives_outside() -> None:
    class Outside(nn.Module):
        def __init__(self, energy: nn.Module) -> None:
            super().__init__()
            self.energy = energy

        def forward(self, z: Tensor, pos: Tensor, batch: Tensor) -> dict[str, Tensor]:
            slope = torch.func.grad(lambda at: self.energy(z=z, pos=at, batch=batch).sum())(pos)
            return {"pull": -slope}

    model, split = forces(), clouds(40)
    inside = measure_equivariance(model, TASK, split=split)
    outside = measure_equivariance(Outside(model.energy), TASK, split=split)
    assert inside.total == pytest.approx(outside.total, rel=1e-6)


def centre_in_place(inputs: dict[str, Tensor]) -> None:
    inputs["pos"] -= inputs["pos"].mean(0) + 5.0
    inputs["z"].zero_()


def through_numpy(inputs: dict[str, Tensor]) -> None:
    inputs["pos"].numpy()[:] = 0.0


def behind_autograd(inputs: dict[str, Tensor]) -> None:
    inputs["pos"].data.mul_(2.0)


@pytest.mark.parametrize("act", [centre_in_place, through_numpy, behind_autograd])
def test_what_a_model_writes_into_its_inputs_changes_nothing_for_the_next(act: Act) -> None:
    judge = Evaluator(TASK, clouds(40), requires={}, rotations=2)
    honest = judge.evaluate(Central(), floor=False).total
    first = judge.evaluate(Doing(Central(), "pull", act), floor=False).total
    assert first != honest
    assert judge.evaluate(Doing(Central(), "pull", act), floor=False).total == first
    assert judge.evaluate(Central(), floor=False).total == honest


@pytest.mark.parametrize("says", SETTINGS)
def test_a_call_that_changes_its_process_is_refused_and_undone(says: str) -> None:
    before = Settings.now()
    with pytest.raises(ModelError, match=says):
        measure_equivariance(Doing(Central(), "pull", SETTINGS[says]), TASK, split=clouds(10))
    assert Settings.now() == before


@pytest.mark.parametrize("says", OUTPUTS)
def test_what_is_no_prediction_is_refused(says: str) -> None:
    model = Doing(Central(), "pull", twist=OUTPUTS[says])
    with pytest.raises(ModelError, match=says) as caught:
        measure_equivariance(model, TASK, split=clouds(10))
    assert "'pull'" in str(caught.value)
    assert "toy-clouds" in str(caught.value)


@given(st.lists(st.integers(0, 4), max_size=3).map(tuple))
def test_nothing_broadcasts(shape: tuple[int, ...]) -> None:
    like = {"pull": torch.zeros(4, 3)}
    outputs = {"pull": torch.zeros(shape)}
    if shape == (4, 3):
        assert checked(TASK, outputs, like) is outputs
    else:
        with pytest.raises(ModelError, match="has shape"):
            checked(TASK, outputs, like)


def test_weights_that_change_while_they_are_judged_are_named() -> None:
    model = Central()

    def learn(_: dict[str, Tensor]) -> None:
        next(model.parameters()).data.mul_(0.999)

    with pytest.raises(ModelError, match=r"'model.radial.0.weight' while it was evaluated"):
        measure_equivariance(Doing(model, "pull", learn), TASK, split=clouds(10))


def test_a_counter_in_training_mode_and_a_cache_that_is_not_saved_are_no_change() -> None:
    class Caching(Central):
        seen: Tensor
        last: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(()))
            self.register_buffer("last", torch.zeros(()), persistent=False)

        def forward(self, z: Tensor, pos: Tensor, batch: Tensor) -> dict[str, Tensor]:
            self.seen += self.training
            self.last = pos.sum()
            return super().forward(z, pos, batch)

    assert measure_equivariance(Caching(), TASK, split=clouds(10)).total > 0


def test_whoever_digs_out_the_test_set_and_changes_it_is_found_out() -> None:
    judge = Evaluator(TASK, clouds(40), requires={}, rotations=2)

    def forge(_: dict[str, Tensor]) -> None:
        for chunk in judge._chunks:
            chunk.target.zero_()

    with pytest.raises(ModelError, match=r"the test set changed .*'pull' is not what it was"):
        judge.evaluate(Doing(Central(), "pull", forge), floor=False)


@given(st.sampled_from([torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.complex64]))
def test_a_fingerprint_is_of_every_byte(dtype: torch.dtype) -> None:
    ones, other = torch.ones(3, 2).to(dtype), torch.ones(3, 2).to(dtype)
    other[2, 1] = 0
    tensors = {"a": ones, "b": other, "c": ones.T, "d": ones[:0], "e": ones[0, 0]}
    found = fingerprints(tensors)
    assert found["a"] == found["c"]
    assert len(set(found.values())) == 4


def test_a_lazy_layer_may_take_its_shape_at_the_first_call() -> None:
    class Lazy(Central):
        def __init__(self) -> None:
            super().__init__()
            self.radial[0] = nn.LazyLinear(64)

    assert measure_equivariance(Lazy(), TASK, split=clouds(10), device="cpu").total > 0


def test_building_a_foreign_model_leaves_the_default_dtype_as_it_was() -> None:
    from equivbench.execution.loading import _built

    def build() -> nn.Module:
        torch.set_default_dtype(torch.float64)
        return nn.Linear(2, 2)

    before = Settings.now()
    assert next(_built("theirs", build).parameters()).dtype == torch.float64
    assert Settings.now() == before

"""How the weights move: every optimiser that a recipe may name (a fresh start, one layout of its
state at every step, resumable), the learning rate, and the average of the weights."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from toy_training import RECIPE, ToyNet, record_so_far, total, toy_trainer

from equivbench.specs import OPTIMIZERS, Optimizer
from equivbench.training.optim import (
    Average,
    build_optimizer,
    clip_gradients,
    decay_at,
    learning_rate,
    named_state,
    set_rate,
)

EACH = pytest.mark.parametrize("name", OPTIMIZERS)
TORCH: dict[str, tuple[Any, dict[str, Any]]] = {
    "adamw": (torch.optim.AdamW, {}),
    "adam": (torch.optim.Adam, {}),
    "nadam": (torch.optim.NAdam, {"decoupled_weight_decay": True}),
    "radam": (torch.optim.RAdam, {"decoupled_weight_decay": True}),
    "adamax": (torch.optim.Adamax, {}),
    "rmsprop": (torch.optim.RMSprop, {}),
    "sgd": (torch.optim.SGD, {"momentum": 0.9}),
}


def net() -> ToyNet:
    torch.manual_seed(0)
    return ToyNet()


def walk(model: ToyNet, optimizer: torch.optim.Optimizer, start: int, stop: int) -> None:
    """Steps with gradients that depend on the step alone."""
    for step in range(start, stop):
        generator = torch.Generator().manual_seed(step)
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()


def weights(model: ToyNet) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@EACH
def test_it_goes_as_torch_s_own_from_a_fresh_start(name: Optimizer) -> None:
    ours, theirs = net(), net()
    kind, options = TORCH[name]
    optimizer = build_optimizer(ours, dataclasses.replace(RECIPE, optimizer=name, weight_decay=0.1))
    set_rate(optimizer, 1e-2)
    walk(ours, optimizer, 0, 8)
    walk(theirs, kind(theirs.parameters(), lr=1e-2, weight_decay=0.1, **options), 0, 8)
    # Fused and plain kernels round differently, some 1e-7 of weights and moves of order one.
    torch.testing.assert_close(weights(ours), weights(theirs), rtol=1e-5, atol=1e-6)
    assert (weights(ours) - weights(net())).abs().max() > 1e-3


@EACH
def test_its_state_has_one_layout_and_carries_it_on(name: Optimizer) -> None:
    model, recipe = net(), dataclasses.replace(RECIPE, optimizer=name)
    optimizer = build_optimizer(model, recipe)
    layout = {
        key: (value.shape, value.dtype) for key, value in named_state(optimizer, model).items()
    }
    assert layout
    set_rate(optimizer, 1e-2)
    walk(model, optimizer, 0, 4)
    saved = {key: value.clone() for key, value in named_state(optimizer, model).items()}
    assert {key: (value.shape, value.dtype) for key, value in saved.items()} == layout

    other = net()
    other.load_state_dict(model.state_dict())
    resumed = build_optimizer(other, recipe)
    set_rate(resumed, 1e-2)
    for key, value in named_state(resumed, other).items():
        value.copy_(saved[key])
    walk(model, optimizer, 4, 8)
    walk(other, resumed, 4, 8)
    assert torch.equal(weights(model), weights(other))


@EACH
def test_it_trains_and_its_record_says_which(name: Optimizer) -> None:
    trainer = toy_trainer("200steps", optimizer=name)
    trainer.train_slice(1e9)
    record = record_so_far(trainer)
    assert record.recipe.optimizer == name
    assert total(record.trace[-1]) < total(record.trace[0])


@pytest.mark.parametrize("limit", [0.5, 1e6, None])
def test_gradients_are_clipped_as_torch_clips_them(limit: float | None) -> None:
    ours, theirs = net(), net()
    for model in (ours, theirs):
        generator = torch.Generator().manual_seed(0)
        for parameter in list(model.parameters())[1:]:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
    norm = clip_gradients(list(ours.parameters()), limit)
    whole = math.inf if limit is None else limit
    assert torch.equal(norm, torch.nn.utils.clip_grad_norm_(theirs.parameters(), whole))
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert (mine.grad is None) is (other.grad is None)
        assert mine.grad is None or torch.equal(mine.grad, other.grad)
    clipped = torch.cat([each.grad.flatten() for each in list(ours.parameters())[1:]]).norm()
    # The sum of some hundred squares in float32.
    assert float(clipped) == pytest.approx(min(float(norm), whole), rel=1e-5)


def test_without_gradients_there_is_nothing_to_clip() -> None:
    assert float(clip_gradients(list(net().parameters()), 1.0)) == 0.0


def test_warm_up_is_linear_then_constant() -> None:
    assert [learning_rate(step, 2.0, 4) for step in range(6)] == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]
    assert learning_rate(0, 2.0, 0) == 2.0


def test_update_is_the_recursion_of_the_design() -> None:
    model = ToyNet()
    average = Average(model, decay=0.5)
    expected = {name: parameter.detach().double() for name, parameter in model.named_parameters()}
    for step in range(12):
        for parameter in model.parameters():
            parameter.data.add_(torch.randn_like(parameter))
        average.update(step)
        d = min(0.5, (1 + step) / (10 + step))
        expected = {
            name: d * expected[name] + (1 - d) * p.detach().double()
            for name, p in model.named_parameters()
        }
    for name, value in expected.items():
        torch.testing.assert_close(
            average.average[name].double(), value, rtol=1e-5, atol=1e-6
        )  # float32, 12 roundings


def test_a_short_run_forgets_its_initial_weights() -> None:
    kept = 1.0
    for step in range(200):
        kept *= decay_at(step, 0.999)
    assert kept < 1e-9  # a fixed 0.999 would keep 82%


def test_swapping_exchanges_storage_and_comes_back_after_an_error() -> None:
    model = ToyNet()
    average = Average(model, decay=0.9)
    weight = model.get_parameter("layers.0.weight")
    weight.data.add_(1.0)
    raw, averaged = weight.data_ptr(), average.average["layers.0.weight"].data_ptr()
    before = weight.detach().clone()
    try:
        with average.swapped_in():
            assert (weight.data_ptr(), average.average["layers.0.weight"].data_ptr()) == (
                averaged,
                raw,
            )
            raise KeyError
    except KeyError:
        pass
    assert weight.data_ptr() == raw
    assert torch.equal(weight, before)

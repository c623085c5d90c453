"""Random streams and the order of samples: pure functions, the same for both arms."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equivbench.errors import FailedError
from equivbench.training.data import Order, generator, seed_global, stream_seed


def read(seed: int, size: int, total: int, batch: int) -> torch.Tensor:
    order = Order(seed, size)
    return torch.cat(
        [order.take(start, min(batch, total - start)) for start in range(0, total, batch)]
    )


@given(st.integers(1, 30), st.integers(1, 50), st.integers(1, 50), st.integers(0, 3))
def test_the_order_does_not_depend_on_the_batch_size(
    size: int, first: int, second: int, seed: int
) -> None:
    assert torch.equal(read(seed, size, 100, first), read(seed, size, 100, second))


@given(st.integers(1, 30), st.integers(1, 40))
def test_each_epoch_holds_every_sample_once(size: int, batch: int) -> None:
    epochs = read(0, size, 3 * size, batch).reshape(3, size)
    assert torch.equal(epochs.sort(1).values, torch.arange(size).expand(3, size))


def test_epochs_and_seeds_differ() -> None:
    assert not torch.equal(read(0, 30, 30, 30), read(1, 30, 30, 30))
    first, second = read(0, 30, 60, 30).reshape(2, 30)
    assert not torch.equal(first, second)


def test_going_back_gives_the_same_samples() -> None:
    order = Order(0, 7)
    late = order.take(20, 3)
    order.take(0, 5)
    assert torch.equal(order.take(20, 3), late)


def test_an_empty_split_is_refused() -> None:
    with pytest.raises(FailedError, match="no samples"):
        Order(0, 0)


def test_streams_are_functions_of_seed_name_and_counters() -> None:
    keys: list[tuple[Any, ...]] = [
        (0, "a", 1),
        (1, "a", 1),
        (0, "b", 1),
        (0, "a", 2),
        (0, "a", 1, 0),
        (0, "a"),
    ]
    draws = {key: torch.randn(4, generator=generator(*key)).tolist() for key in keys}
    assert len({tuple(draw) for draw in draws.values()}) == len(draws)
    assert all(
        torch.randn(4, generator=generator(*key)).tolist() == draw for key, draw in draws.items()
    )
    assert stream_seed(0, "a", 11) != stream_seed(0, "a", 1, 1)


def test_the_global_generators_are_set_without_a_queue_for_absent_devices() -> None:
    seed_global(0, "dropout", 3)
    first = torch.rand(3)
    seed_global(0, "dropout", 3)
    assert torch.equal(torch.rand(3), first)
    assert torch.equal(first, torch.rand(3, generator=generator(0, "dropout", 3)))


def test_a_step_seeds_the_gpu_that_it_runs_on_and_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Generators of the CPU stand in for those of three GPUs.
    gpus = [torch.Generator().manual_seed(number) for number in range(3)]
    monkeypatch.setattr(torch.cuda, "default_generators", gpus)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 2)
    expected = stream_seed(0, "dropout", 3)
    seed_global(0, "dropout", 3, device=torch.device("cpu"))
    assert [each.initial_seed() for each in gpus] == [0, 1, 2]
    seed_global(0, "dropout", 3, device=torch.device("cuda:1"))
    assert [each.initial_seed() for each in gpus] == [0, expected, 2]
    seed_global(0, "dropout", 3, device=torch.device("cuda"))
    assert [each.initial_seed() for each in gpus] == [0, expected, expected]
    assert torch.default_generator.initial_seed() == expected

"""Speed of a training step: in a bare loop and in the trainer's, and the pieces that the trainer
adds.

The ratio of the two, in alternation, is what ``benchmarks/harness_overhead.py`` reports.
"""

from __future__ import annotations

import pytest
import torch
from toy_training import ToyNet, toy_trainer

from equivbench.training.clock import Clock
from equivbench.training.data import Order, generator, seed_global


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def trainer(tmp_path):
    """A trainer with a step of some 10 ms, its budget far away."""
    trainer = toy_trainer(
        "24h",
        rungs=0,
        traced=False,
        folder=tmp_path,
        model=ToyNet(width=1000),
        batch_size=512,
    )
    trainer.train_slice(0.0)
    return trainer


def test_step_alone(benchmark, trainer):
    clock = trainer.clock.scratch()
    before = trainer.facts.step
    benchmark(lambda: trainer.step(clock))
    assert trainer.facts.step > before


def test_step_in_the_loop(benchmark, trainer):
    before = trainer.facts.step
    benchmark(lambda: trainer.train_slice(1e-9))  # ends after one step
    assert trainer.facts.step > before


def test_checkpoint(benchmark, trainer):
    path = benchmark(trainer.save)
    assert path.stat().st_size > 4 * 4 * sum(p.numel() for p in trainer.arm.model.parameters())


def test_heartbeat(benchmark, trainer):
    benchmark(lambda: trainer.keeper.beat(trainer.facts, trainer.clock))
    assert trainer.keeper.heartbeat.read().step == trainer.facts.step


def test_clock_part(benchmark):
    clock = Clock()
    clock.resume()

    def part():
        with clock.part("train"):
            pass

    benchmark(part)
    assert clock.seconds()["train"] > 0


def test_random_streams_of_a_step(benchmark):
    def streams():
        seed_global(0, "dropout", 7)
        return generator(0, "rotations", 7)

    assert torch.equal(
        torch.rand(2, generator=benchmark(streams)),
        torch.rand(2, generator=generator(0, "rotations", 7)),
    )


def test_order_of_twenty_thousand_samples(benchmark):
    order = Order(0, 20_000)
    taken = benchmark(lambda: order.take(19_990, 32))
    assert len(taken) == 32

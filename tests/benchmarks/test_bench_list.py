"""pytest-benchmark: what the gate and asv time, but for the kernels, which are beside this."""

from __future__ import annotations

import pytest
import torch

from equivbench.gate.benchmarks import AbsentBenchmark, Benchmark, benchmarks, of_kernels

ROUNDS = 5
KERNELS = {each.name for each in of_kernels()}
LISTED = [each for each in benchmarks() if not each.control and each.name not in KERNELS]


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("one", LISTED, ids=lambda one: one.name)
def test_listed(benchmark, one: Benchmark) -> None:
    try:
        timed = one.build()
    except AbsentBenchmark as error:
        pytest.skip(str(error))
    benchmark.extra_info["calls"] = timed.calls
    begun = []

    def begin() -> None:
        end()
        timed.before()
        begun.append(True)

    def end() -> None:
        if begun:
            begun.pop()
            timed.after()

    benchmark.pedantic(timed.run, setup=begin, rounds=ROUNDS)
    end()

"""What ``check --interleave`` measures (a control, the command line, kernels and training steps),
and how one round of it is timed. Imports torch only when a benchmark is built."""

from __future__ import annotations

import atexit
import gc
import math
import shutil
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from typing import TYPE_CHECKING

from equivbench.specs import Mode

if TYPE_CHECKING:
    from equivbench.training.loop import Trainer

Round = Callable[[float], float]
"""Measures for about so many seconds and returns seconds a call, the least that was seen."""
SAMPLE = 0.01
"""Seconds below which the clock and the scheduler show in a sample."""
FEWEST = 3
"""Samples of which the least is taken, however long they are."""


def looped(call: Callable[[], None]) -> Round:
    """``call`` repeated to at least ``SAMPLE`` a sample; it has been called before the first sample
    is taken."""
    call()
    sample = timeit.Timer(call, timer=time.perf_counter).timeit
    repeats = 1
    while (taken := sample(repeats)) < SAMPLE:
        # Half as much again as seems needed, and never ten times more at once: the first calls may
        # be slow.
        needed = int(1.5 * repeats * SAMPLE / max(taken, 1e-9))
        repeats = max(repeats + 1, min(10 * repeats, needed))

    def measure(seconds: float) -> float:
        end = time.perf_counter() + seconds
        samples: list[float] = []
        gc.collect()
        while len(samples) < FEWEST or time.perf_counter() < end:
            samples.append(sample(repeats) / repeats)
        return min(samples)

    return measure


STEPS = 8
"""Training steps that make up one call: the first ones after the start, the same on both sides."""


class AbsentBenchmark(Exception):
    """The benchmark cannot run on this machine, and why: no error, both sides leave it out."""


@dataclass(frozen=True)
class Benchmark:
    """``build()``, called once in each worker process, returns what measures one round.

    ``version`` is set by hand: raise it when the benchmark itself changes, so that it is not
    compared with its former self.
    """

    name: str
    build: Callable[[], Round]
    version: str = "1"
    control: bool = False


def _control() -> Round:
    """Work that no revision of this package can change: the interpreter's and numpy's."""
    import numpy as np

    generator = np.random.default_rng(0)
    small, large = generator.random((128, 128)), generator.random(250_000)

    def work() -> None:
        words = {str(number): number for number in range(4_000)}
        sorted(words, key=lambda word: -words[word])
        for _ in range(4):
            small @ small
        np.add(large, 1.0, out=large)
        large.sum()

    return looped(work)


def _command_line() -> Round:
    """A command that must import nothing heavy, from the start of its process to its end."""
    command = [sys.executable, "-m", "equivbench", "list", "pairs", "--json"]

    def run() -> None:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    return looped(run)


def _kernel(case_name: str, mode: Mode, backend: str) -> Round:
    from equivbench.kernels.measuring import AbsentError, prepare
    from equivbench.kernels.operations import case

    try:
        return prepare(case(case_name), mode, backend).round
    except AbsentError as error:
        raise AbsentBenchmark(str(error)) from error


def dev_trainer(pair: str, arm: str) -> Trainer:
    """The trainer of the ``dev`` preset of ``arm`` of ``pair`` (``task/pair``), seed 0, on one CPU
    thread, its budget far away.

    Its state lies in a temporary folder that is removed with the process. Raises as
    :func:`equivbench.training.assembly.build_trainer`.
    """
    from equivbench.request import RunRequest
    from equivbench.training.assembly import build_trainer
    from equivbench.training.job import Job

    folder = tempfile.mkdtemp(prefix="equivbench-dev-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return build_trainer(
        Job(
            pair=pair,
            arm=arm,
            request=RunRequest(preset="dev"),
            budget="1000000steps",
            seed=0,
            run_id="dev-seed0",
            state_dir=folder,
        )
    )


def _training_step(pair: str, arm: str) -> Round:
    trainer = dev_trainer(pair, arm)
    return partial(least_of_each, lambda seconds: trainer.time_block(seconds).readings)


def least_of_each(replay: Callable[[float], list[float]], seconds: float) -> float:
    """Mean over the first ``STEPS`` steps of the least seconds that each took in about ``seconds``
    of replays.

    ``replay(s)`` takes the same steps from the same state every time, for at least ``s`` seconds,
    and returns their seconds.
    """
    stretch, spent = seconds / 3, 0.0
    least = [math.inf] * STEPS
    while spent < seconds or not all(map(math.isfinite, least)):
        times = replay(stretch)
        spent += sum(times)
        least = [
            min(old, new) for old, new in zip_longest(least, times[:STEPS], fillvalue=math.inf)
        ]
        if len(times) < STEPS:
            stretch *= 2
    return math.fsum(least) / STEPS


KERNELS: tuple[tuple[str, Mode, str], ...] = (
    ("convolution-c32-l2", "forward", "torch"),
    ("convolution-c32-l2", "double_backward", "torch"),
    ("convolution-c32-l2", "forward", "fused"),
    ("convolution-c32-l2", "double_backward", "fused"),
    ("harmonics-l2", "double_backward", "torch"),
    ("so2-c16-l2", "double_backward", "torch"),
    ("point-attention-64", "backward", "torch"),
)
STEPPED = ("forcefield/vector", "forcefield/tensor-product")
BENCHMARKS: tuple[Benchmark, ...] = (
    Benchmark("control", _control, control=True),
    Benchmark("list-pairs", _command_line),
    *(
        Benchmark(f"{case} {mode} {backend}", partial(_kernel, case, mode, backend))
        for case, mode, backend in KERNELS
    ),
    *(
        Benchmark(f"{pair} {arm} dev step", partial(_training_step, pair, arm))
        for pair in STEPPED
        for arm in ("equivariant", "augmented")
    ),
)

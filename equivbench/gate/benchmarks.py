"""What is timed from commit to commit: the one list that ``check --interleave``, asv and
pytest-benchmark draw on. It follows from what is registered, plug-ins included: every pair's step,
evaluation and batch, every quick kernel case on every backend, the data sets, and the harness.

Imports torch only when a benchmark is built.
"""

from __future__ import annotations

import atexit
import contextlib
import fnmatch
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from typing import TYPE_CHECKING

from equivbench.environment import cpu_model
from equivbench.errors import FailedError
from equivbench.kernels.backends import absent
from equivbench.kernels.operations import CASES, Case
from equivbench.registry import DATASETS, KERNEL_BACKENDS, PAIRS, resolve
from equivbench.specs import MODES, Mode, PairSpec

if TYPE_CHECKING:
    from equivbench.training.loop import Trainer

SAMPLE = 0.01
"""Seconds below which the clock and the scheduler show in a sample."""


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Workload:
    """What is timed, built and warm: a sample is ``calls`` times ``call``."""

    call: Callable[[], object]
    calls: int = 1
    before: Callable[[], object] = _nothing
    """Done before a sample, off the clock; ``after`` when it is over."""
    after: Callable[[], object] = _nothing
    timer: Callable[[], float] | None = None
    """Seconds a call of one sample, where it is timed by a clock of its own."""

    def run(self) -> None:
        """All calls of a sample."""
        for _ in range(self.calls):
            self.call()

    def sample(self) -> float:
        """Seconds a call, of one sample."""
        if self.timer is not None:
            return self.timer()
        self.before()
        try:
            start = time.perf_counter()
            self.run()
            return (time.perf_counter() - start) / self.calls
        finally:
            self.after()


def long_enough(timed: Workload) -> Workload:
    """``timed`` with as many calls as last ``SAMPLE``; it is called on the way."""
    timed.sample()
    calls = 1
    while True:
        tried = Workload(timed.call, calls, timed.before, timed.after)
        taken = tried.sample() * calls
        if taken >= SAMPLE:
            return tried
        # Half as much again as seems needed, and never ten times more at once: the first calls may
        # be slow.
        needed = int(1.5 * calls * SAMPLE / max(taken, 1e-9))
        calls = max(calls + 1, min(10 * calls, needed))


class AbsentBenchmark(Exception):
    """The benchmark cannot run on this machine, and why: no error, both sides leave it out."""


@dataclass(frozen=True)
class Benchmark:
    """``build()`` returns what is timed.

    ``version`` is set by hand: raise it when the benchmark itself changes, so that it is not
    compared with its former self.
    """

    name: str
    build: Callable[[], Workload]
    version: str = "1"
    control: bool = False


@cache
def benchmarks() -> tuple[Benchmark, ...]:
    """All of them, those that share what they are built from next to each other."""
    return (
        Benchmark("control", _control, control=True),
        *of_harness(),
        *of_symmetry(),
        *of_kernels(),
        *of_data(),
        *of_pairs(),
    )


def selected(patterns: Sequence[str]) -> list[Benchmark]:
    """Those whose name matches a pattern (all without patterns), and always the control."""
    return [
        each
        for each in benchmarks()
        if each.control or not patterns or any(fnmatch.fnmatch(each.name, p) for p in patterns)
    ]


def _control() -> Workload:
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

    return long_enough(Workload(work))


# --- the harness


def of_harness() -> Iterator[Benchmark]:
    """The command line's start."""
    yield Benchmark("help", partial(_command, "--help"))
    yield Benchmark("list-pairs", partial(_command, "list", "pairs", "--json"))


def _command(*arguments: str) -> Workload:
    """A command that must import nothing heavy, from the start of its process to its end."""
    command = [sys.executable, "-m", "equivbench", *arguments]

    def run() -> None:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    return long_enough(Workload(run))


# --- the measure

_ATOMS = 10_000
"""About those of one evaluation of the quick-start pair."""


def of_symmetry() -> Iterator[Benchmark]:
    """Rotations and the decomposition."""
    yield Benchmark("rotations draw", _draw)
    yield Benchmark("rotations act", _act)
    for rotations in (4, 24):
        yield Benchmark(f"decompose {rotations} rotations", partial(_decompose, rotations))
    yield Benchmark("decompose interval", _interval)


def _draw() -> Workload:
    from equivbench.symmetry.rotations import random_rotations

    return long_enough(Workload(partial(random_rotations, _ATOMS)))


def _act() -> Workload:
    import torch

    from equivbench.symmetry.rotations import random_rotations
    from equivbench.symmetry.types import SymmetryType

    vectors = torch.randn(_ATOMS, 3, generator=torch.Generator().manual_seed(0))
    return long_enough(
        Workload(partial(SymmetryType.parse("1o").act, vectors, random_rotations(_ATOMS)))
    )


def _decomposition(rotations: int) -> Callable[[], object]:
    import torch

    from equivbench.symmetry.decomposition import decompose

    generator = torch.Generator().manual_seed(0)
    target = torch.randn(_ATOMS, 3, generator=generator)
    predictions = torch.randn(rotations, _ATOMS, 3, generator=generator)
    return partial(decompose, predictions, target, groups=torch.arange(_ATOMS) // 25)


def _decompose(rotations: int) -> Workload:
    return long_enough(Workload(_decomposition(rotations)))


def _interval() -> Workload:
    from equivbench.symmetry.decomposition import Decomposition

    found = _decomposition(4)()
    assert isinstance(found, Decomposition)
    return long_enough(Workload(found.interval))


# --- kernels


def of_kernels() -> Iterator[Benchmark]:
    """Every quick case, forward and in the highest mode that networks need, which holds the others,
    on every backend that is here and does not compile for tens of seconds. What a backend does not
    do is absent."""
    backends = [
        name
        for name, each in KERNEL_BACKENDS.entries().items()
        if not each.value.slow_to_build and absent(each.value, "cpu") is None
    ]
    for case in CASES:
        modes = dict.fromkeys((MODES[0], MODES[case.derivatives])) if case.quick else ()
        for mode in modes:
            for name in backends:
                yield Benchmark(f"{case.name} {mode} {name}", partial(_kernel, case, mode, name))


def _kernel(case: Case, mode: Mode, backend: str) -> Workload:
    """Right before it is timed; each sample is checked again, and is none if no machine is so
    fast."""
    from equivbench.kernels.backend import UnsupportedError
    from equivbench.kernels.measuring import AbsentError, prepare
    from equivbench.kernels.operations import costs
    from equivbench.records.peaks import beyond, peak_of

    try:
        prepared = prepare(case, mode, backend)
    except (AbsentError, UnsupportedError) as error:
        raise AbsentBenchmark(str(error)) from error
    cost, peak = costs(case, mode, 4), peak_of("cpu", cpu_model(), 1)
    assert peak is not None

    def timer() -> float:
        seconds = prepared.round(0.0)
        for clause in beyond(
            peak, "32", operations=cost.operations, moved=cost.bytes_fused, seconds=seconds
        ):
            raise FailedError(f"this cannot be: {clause}")
        return seconds

    return Workload(prepared.once, prepared.calls, after=prepared.verify, timer=timer)


# --- data and training


def _dev_pairs() -> Iterator[tuple[str, PairSpec]]:
    for name, entry in PAIRS.entries().items():
        pair: PairSpec = entry.value
        if "dev" in pair.presets and all("dev" in arm.presets for arm in pair.contestants):
            yield name, pair


def of_data() -> Iterator[Benchmark]:
    """Loading the data sets of the pairs' ``dev`` presets."""
    for name in dict.fromkeys(pair.presets["dev"].dataset for _, pair in _dev_pairs()):
        yield Benchmark(f"{name} load", partial(_load, name))


def _load(dataset: str) -> Workload:
    """From file to splits, checksum included."""
    source = resolve(DATASETS.get(dataset).factory)()
    return long_enough(Workload(source.load))


def of_pairs() -> Iterator[Benchmark]:
    """A step and an evaluation of each arm at its ``dev`` preset, and a batch of each pair."""
    for name, pair in _dev_pairs():
        for arm in pair.contestants:
            yield Benchmark(f"{name} {arm.name} step", partial(_step, name, arm.name))
            yield Benchmark(f"{name} {arm.name} evaluation", partial(_evaluation, name, arm.name))
        # Of the last arm, which is the one that rotates its samples.
        yield Benchmark(f"{name} {arm.name} batch", partial(_batch, name, arm.name))


@lru_cache(maxsize=1)
def dev_trainer(pair: str, arm: str) -> Trainer:
    """The trainer of the ``dev`` preset of ``arm`` of ``pair`` (``task/pair``), seed 0, on one CPU
    thread, its budget far away, prepared.

    Its state lies in a temporary folder that is removed with the process. Raises as
    :func:`equivbench.training.assembly.build_trainer`.
    """
    from equivbench.request import RunRequest
    from equivbench.training.assembly import build_trainer
    from equivbench.training.job import Job

    folder = tempfile.mkdtemp(prefix="equivbench-dev-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    trainer = build_trainer(
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
    trainer.prepare()
    return trainer


def _step(pair: str, arm: str) -> Workload:
    """The first training steps, data included, from the same state every time."""
    trainer = dev_trainer(pair, arm)
    undoing = contextlib.ExitStack()

    def before() -> None:
        for each in (trainer.running(), trainer.clock.part("timing"), trainer.undone()):
            undoing.enter_context(each)
        undoing.enter_context(clock.running())

    clock = trainer.clock.scratch()
    return long_enough(Workload(partial(trainer.step, clock), before=before, after=undoing.close))


def _evaluation(pair: str, arm: str) -> Workload:
    """Loss and its two parts on the whole test set."""
    return long_enough(Workload(dev_trainer(pair, arm).measuring.evaluate))


def _batch(pair: str, arm: str) -> Workload:
    """A training batch: chosen, rotated where the arm augments, assembled."""
    trainer = dev_trainer(pair, arm)
    return long_enough(Workload(partial(trainer.batches.at, 0, trainer.arm.recipe.batch_size)))

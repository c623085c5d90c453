"""Kernels of the convolution that are after a better time, or judge themselves, after what contests
of kernels have met (gpu-mode/reference-kernels#162, gpu-mode/pygpubench PR#7)."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from toy_kernels import Change, Inputs, Run, right

from equivbench.kernels import checking, timing
from equivbench.kernels.backend import Kernel
from equivbench.kernels.operations import Convolution, Operation
from equivbench.kernels.problem import KernelProblem

WORK = 2e-3
"""Seconds that an honest call takes at least."""


def slowly(run: Run) -> Run:
    def honest(inputs: Inputs) -> Tensor:
        time.sleep(WORK)
        return run(inputs)

    return honest


# --- replays


def _replays(fingerprint: Callable[[Inputs], object], otherwise: Change) -> Change:
    def change(operation: Operation) -> Run:
        run, unknown = slowly(right(operation)), otherwise(operation)
        kept: dict[object, Tensor] = {}

        def remembered(inputs: Inputs) -> Tensor:
            key = fingerprint(inputs)
            if key in kept:
                return kept[key].clone()
            if len(kept) < 2:
                kept[key] = run(inputs).detach().clone()
                return kept[key].clone()
            return unknown(inputs)

        return remembered

    return change


def _exactly(inputs: Inputs) -> object:
    return tuple(float(inputs[name][1, 1]) for name in ("x", "harmonics", "weights"))


def _about(inputs: Inputs) -> object:
    return round(float(inputs["weights"][0, 0]), 3), round(float(inputs["x"][1, 1]), 3)


def _honest(operation: Operation) -> Run:
    return slowly(right(operation))


replays_by_content = _replays(_exactly, _honest)
replays_by_what_is_near = _replays(_about, _honest)


def _anything(operation: Operation) -> Run:
    assert isinstance(operation, Convolution)
    return lambda inputs: inputs["x"].new_ones(len(inputs["x"]), operation.target_size)


right_where_it_was_looked_at = _replays(_exactly, _anything)


def takes_the_answers(operation: Operation) -> Run:
    """The answers of the problem at hand, wherever it lies in memory."""
    otherwise = _anything(operation)

    def thief(inputs: Inputs) -> Tensor:
        for one in gc.get_objects():
            if type(one) is KernelProblem:
                for instance in one.instances:
                    if torch.equal(instance.arguments.inputs["x"], inputs["x"]):
                        return instance.answers["output"].to(inputs["x"])
        return otherwise(inputs)

    return thief


def spoils_the_answers(operation: Operation) -> Run:
    """Where the answer is no number, any result is near it, or is it?"""

    def vandal(inputs: Inputs) -> Tensor:
        for one in gc.get_objects():
            if type(one) is KernelProblem:
                for instance in one.instances:
                    instance.answers["output"].fill_(math.nan)
        return _anything(operation)(inputs)

    return vandal


# --- work off the clock


def works_in_adapt(operation: Operation) -> Kernel:
    run = right(operation)
    return Kernel(lambda inputs: inputs["output"], "idle", lambda inputs: {"output": run(inputs)})


def works_in_restore(operation: Operation) -> Kernel:
    run = right(operation)
    assert isinstance(operation, Convolution)
    kept: list[Inputs] = []

    def later(inputs: Inputs) -> Tensor:
        kept[:] = [inputs]
        return inputs["x"].new_zeros(len(inputs["x"]), operation.target_size)

    return Kernel(later, "idle", restore=lambda output: output + run(kept[0]))


def lazy_by_a_method_of_its_own(operation: Operation) -> Run:
    run = right(operation)
    assert isinstance(operation, Convolution)

    def later(inputs: Inputs) -> Tensor:
        promised = inputs["x"].new_zeros(len(inputs["x"]), operation.target_size)
        promised.detach = lambda: run(inputs)  # type: ignore[method-assign]
        return promised

    return later


def sparse(operation: Operation) -> Run:
    run = right(operation)
    return lambda inputs: run(inputs).to_sparse()


def one_piece_of_memory(operation: Operation) -> Run:
    run = right(operation)
    kept: list[Tensor] = []

    def again(inputs: Inputs) -> Tensor:
        output = run(inputs)
        if not kept:
            kept.append(torch.empty_like(output))
        return kept[0].copy_(output)

    return again


# --- the clock, the judge and the process


def _sets(owner: Any, name: str, value: Any) -> Change:
    def change(operation: Operation) -> Run:
        run = right(operation)

        def patched(inputs: Inputs) -> Tensor:
            setattr(owner, name, value)
            return run(inputs)

        return patched

    return change


def _calls(act: Callable[[], object]) -> Change:
    def change(operation: Operation) -> Run:
        run = right(operation)

        def disturbing(inputs: Inputs) -> Tensor:
            act()
            return run(inputs)

        return disturbing

    return change


class _Everything(TorchFunctionMode):
    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return function(*args, **(kwargs or {}))


class _Below(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return function(*args, **(kwargs or {}))


def _enter(mode: Any) -> None:
    mode().__enter__()


CHANGES: dict[str, tuple[Change, str]] = {
    "time.perf_counter": (_sets(time, "perf_counter", lambda: 0.0), r"time\.perf_counter"),
    "the timer's clock": (_sets(timing, "perf_counter", lambda: 0.0), r"timing\.perf_counter"),
    "the timer": (_sets(timing.Timer, "seconds", lambda self, work: 1e-9), r"Timer\.seconds"),
    "waiting for a GPU": (
        _sets(torch.cuda, "synchronize", lambda *_: None),
        r"torch\.cuda\.synchronize",
    ),
    "the judge": (_sets(checking, "relative_error", lambda *_: 0.0), r"checking\.relative_error"),
    "torch.equal": (_sets(torch, "equal", lambda *_: True), r"torch\.equal"),
    "a method": (_sets(torch.Tensor, "norm", lambda *_, **__: torch.zeros(())), r"Tensor\.norm"),
    "threads": (
        _calls(lambda: torch.set_num_threads(torch.get_num_threads() + 1)),
        "the number of threads",
    ),
    "precision": (
        _calls(lambda: torch.set_float32_matmul_precision("medium")),
        "the precision of matrix products",
    ),
    "TF32": (
        _calls(lambda: setattr(torch.backends.cudnn, "allow_tf32", True)),
        "TF32 in convolutions",
    ),
    "determinism": (
        _calls(lambda: torch.use_deterministic_algorithms(True)),
        r"whether algorithms are deterministic \(from False to True\)",
    ),
    "the default dtype": (
        _calls(lambda: torch.set_default_dtype(torch.float64)),
        "the default dtype",
    ),
    "a function mode": (_calls(lambda: _enter(_Everything)), "the number of torch function modes"),
    "a dispatch mode": (_calls(lambda: _enter(_Below)), "the number of torch dispatch modes"),
}
"""What is changed, the kernel, and how the refusal names it."""

"""torch.compile by the route whose gradients are right, against an empty cache, checked against
eager before training.

The model is compiled in place by ``Module.compile(dynamic=True)``. A model with inner derivatives
(forces from an energy) overrides ``compile`` to compile ``torch.func.grad_and_value(energy)``
whole: the other routes fail, or give silently wrong parameter gradients in double backward. That is
why gradients, and not outputs, are compared here. Arms whose recipe does not compile need nothing
of this file.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from equivbench.environment import cxx_compiler
from equivbench.errors import FailedError
from equivbench.kernels.private_folder import private_folder
from equivbench.measure.calls import call
from equivbench.records.schema import NotMeasured
from equivbench.specs import Precision
from equivbench.training.arm import Arm
from equivbench.training.clock import Clock, ClockPart
from equivbench.training.data import Assembled, Batches
from equivbench.training.memory import is_out_of_memory
from equivbench.training.optim import copied, put_back

BACKEND = "inductor, dynamic shapes"
"""What ``recipe.compile`` says in the record of a compiled run."""
NO_COMPILER = (
    "no C++ compiler was found, so the model runs eagerly; install g++ or clang, or set CXX, to "
    "compile it"
)

# Relative error of one parameter's gradient. Kernel fusion reorders float32 sums of up to 1e5 terms
# (measured: to 1e-5); wrong double backward was off by 0.2-1.6. TF32 and bfloat16 round each
# product to 2^-11 and 2^-9.
_TOLERANCE: dict[Precision, float] = {"float32": 2e-3, "tf32": 2e-2, "bf16": 1e-1}
# Gradients this much smaller than the largest are rounding noise relative to the sums they come
# from.
_NEGLIGIBLE = 1e-3


def compile_arm(
    arm: Arm, batches: Batches, folder: Path | None, clock: Clock, part: ClockPart
) -> str | NotMeasured:
    """Compile the arm's model (charged to ``part``) and check its gradients; returns how it was
    compiled, as the record has it, or that there is no compiler, with which it stays eager.

    Raises ``FailedError`` where torch cannot compile the model or the gradients disagree.
    """
    if cxx_compiler() is None:
        return NotMeasured(NO_COMPILER)
    count = arm.recipe.batch_size
    canonical = batches.canonical(count)
    buffers = dict(arm.model.named_buffers())
    saved = copied(buffers)
    eager, again = _gradients(arm, canonical), _gradients(arm, canonical, stream=1)
    # Two graphs that draw random numbers (dropout) cannot agree: such a model is checked in
    # evaluation mode.
    random = _differ(eager, again, arm)
    if random:
        eager = _gradients(arm, canonical, training=False)
    with clock.part(part):
        use_empty_cache(folder)
        try:
            arm.model.compile(dynamic=True)
            # Every graph that training and evaluation need, in either mode.
            compiled = _gradients(arm, canonical)
            for start in (count, 2 * count):
                _gradients(arm, batches.canonical(count, start))
            if arm.task.feedback is not None:
                with arm.autocast():
                    arm.with_feedback(*canonical)
            size = arm.evaluated_at_once
            evaluated = [batches.canonical(each)[0] for each in (size, size // 2)]
            arm.module.eval()
            with arm.without_gradients(), arm.autocast():
                for inputs in evaluated:
                    call(arm.module, inputs)
            arm.module.train()
        except RuntimeError as error:  # every failure of dynamo and inductor is one
            if is_out_of_memory(error):
                raise
            lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
            raise FailedError(
                f"the model cannot be compiled ({type(error).__name__}: {lines[0]}); "
                "set compile=False in its recipe"
            ) from error
    if random:
        compiled = _gradients(arm, canonical, training=False)
    put_back(buffers, saved)
    problem = disagreement(eager, compiled, arm.recipe.precision)
    if problem is not None:
        raise FailedError(
            f"torch.compile changes this model's gradients: {problem}; "
            "set compile=False in its recipe"
        )
    return BACKEND


def _differ(eager: Mapping[str, Tensor], again: Mapping[str, Tensor], arm: Arm) -> bool:
    """Whether two passes over one batch have gradients that differ, on a GPU by more than the order
    of its sums explains."""
    if arm.device.type == "cuda":
        return disagreement(eager, again, arm.recipe.precision) is not None
    return eager.keys() != again.keys() or any(
        not torch.equal(gradient, again[name]) for name, gradient in eager.items()
    )


def _gradients(
    arm: Arm, batch: Assembled, stream: int = 0, training: bool = True
) -> dict[str, Tensor]:
    """The parameter gradients of the objective, float64 copies by name; parameters it does not
    reach are left out."""
    inputs, targets = batch
    if not training:
        arm.module.eval()
    arm.model.zero_grad(set_to_none=True)
    torch.manual_seed(stream)
    with arm.autocast():
        loss = arm.task.objective(arm.outputs(inputs, targets), targets, inputs)
    loss.backward()  # type: ignore[no-untyped-call]
    found = {
        name: parameter.grad.detach().to("cpu", torch.float64)
        for name, parameter in arm.model.named_parameters()
        if parameter.grad is not None
    }
    arm.model.zero_grad(set_to_none=True)
    if not training:
        arm.module.train()
    return found


def use_empty_cache(folder: Path | None) -> None:
    """Point every compiler cache of this process at an empty folder of its own, removed when the
    process ends.

    Made in ``folder`` where one is given, or where nobody else can write it
    (:mod:`equivbench.kernels.private_folder`): what a killed process left there is removed first.
    """
    if folder is None:
        cache = tempfile.mkdtemp(prefix="equivbench-compiler-")
    else:
        shutil.rmtree(folder / "compiler", ignore_errors=True)
        # A new one within it, so that nothing is removed that a link there may lead to.
        cache = tempfile.mkdtemp(dir=private_folder(folder / "compiler"))
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
    os.environ["TRITON_CACHE_DIR"] = os.path.join(cache, "triton")
    # What this process compiled before (another run in a notebook, a test) is a cache too.
    torch.compiler.reset()
    atexit.register(shutil.rmtree, cache, ignore_errors=True)


def disagreement(
    eager: Mapping[str, Tensor], compiled: Mapping[str, Tensor], precision: Precision
) -> str | None:
    """Which compiled gradient departs most from its eager one, if by more than rounding explains;
    else None."""
    if eager.keys() != compiled.keys():
        names = ", ".join(sorted(eager.keys() ^ compiled.keys()))
        return f"gradients of {names} exist in one of the two only"
    norms = {name: float(gradient.norm()) for name, gradient in eager.items()}
    small = _NEGLIGIBLE * max(norms.values(), default=0.0)
    errors = {
        name: float((compiled[name] - gradient).norm())
        / max(norms[name], small, sys.float_info.min)
        for name, gradient in eager.items()
    }
    # NaN compares false with everything: it counts as the worst.
    wrong = {name: error for name, error in errors.items() if not error <= _TOLERANCE[precision]}
    if not wrong:
        return None
    name = max(wrong, key=lambda name: wrong[name] if wrong[name] == wrong[name] else float("inf"))
    return (
        f"the gradient of {name} is off by {wrong[name]:.1e} relative to eager "
        f"(allowed: {_TOLERANCE[precision]:g})"
    )

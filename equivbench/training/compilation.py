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
from equivbench.records.schema import NotMeasured
from equivbench.specs import Precision
from equivbench.training.arm import Arm
from equivbench.training.clock import Clock, ClockPart
from equivbench.training.data import Assembled, Batches
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


class Compilation:
    """Compiles one arm's model if its recipe says so, and says how."""

    def __init__(self, arm: Arm, batches: Batches, folder: Path | None) -> None:
        self._arm = arm
        self._batches = batches
        self._folder = folder
        self._done = False
        self.backend: str | NotMeasured = NotMeasured("the recipe trains eagerly")
        """How the model was compiled, as the record has it, or why it was not."""

    def once(self, clock: Clock, part: ClockPart, notes: list[str]) -> None:
        """Compile (charged to ``part``) and check the gradients, on the first call.

        Where there is no compiler the model stays eager and ``notes`` gets a line for the user.
        Raises ``FailedError`` where torch cannot compile the model or the gradients disagree.
        """
        if self._done:
            return
        self._done = True
        if not self._arm.recipe.compile:
            return
        if cxx_compiler() is None:
            self.backend = NotMeasured(NO_COMPILER)
            notes.append(NO_COMPILER)
            return
        self._compile(clock, part)
        self.backend = BACKEND

    def _compile(self, clock: Clock, part: ClockPart) -> None:
        arm, count = self._arm, self._arm.recipe.batch_size
        canonical = self._batches.canonical(count)
        buffers = dict(arm.model.named_buffers())
        saved = copied(buffers)
        eager, again = self._gradients(canonical), self._gradients(canonical, stream=1)
        # Two graphs that draw random numbers (dropout) cannot agree: such a model is checked in
        # evaluation mode.
        random = eager.keys() != again.keys() or any(
            not torch.equal(gradient, again[name]) for name, gradient in eager.items()
        )
        if random:
            eager = self._gradients(canonical, training=False)
        with clock.part(part):
            use_empty_cache(self._folder)
            try:
                arm.model.compile(dynamic=True)
                # Every graph that training and evaluation need, in either mode.
                compiled = self._gradients(canonical)
                for start in (count, 2 * count):
                    self._gradients(self._batches.canonical(count, start))
                size = arm.evaluated_at_once
                evaluated = [self._batches.canonical(each)[0] for each in (size, size // 2)]
                arm.module.eval()
                with torch.no_grad(), arm.autocast():
                    for inputs in evaluated:
                        arm.module(**inputs)
                arm.module.train()
            except RuntimeError as error:  # every failure of dynamo and inductor is one
                lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
                raise FailedError(
                    f"the model cannot be compiled ({type(error).__name__}: {lines[0]}); "
                    "set compile=False in its recipe"
                ) from error
        if random:
            compiled = self._gradients(canonical, training=False)
        put_back(buffers, saved)
        problem = disagreement(eager, compiled, arm.recipe.precision)
        if problem is not None:
            raise FailedError(
                f"torch.compile changes this model's gradients: {problem}; "
                "set compile=False in its recipe"
            )

    def _gradients(
        self, batch: Assembled, stream: int = 0, training: bool = True
    ) -> dict[str, Tensor]:
        """The parameter gradients of the objective, float64 copies by name; parameters it does not
        reach are left out."""
        arm, (inputs, targets) = self._arm, batch
        if not training:
            arm.module.eval()
        arm.model.zero_grad(set_to_none=True)
        torch.manual_seed(stream)
        with arm.autocast():
            loss = arm.task.objective(arm.module(**inputs), targets, inputs)
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

    Made in ``folder`` where one is given: what a killed process left there is removed first.
    """
    if folder is None:
        cache = tempfile.mkdtemp(prefix="equivbench-compiler-")
    else:
        cache = str(folder / "compiler")
        shutil.rmtree(cache, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
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

"""The start of a run: compilation against an empty cache, and the check of compiled against eager
gradients."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from equivbench.environment import cxx_compiler
from equivbench.errors import FailedError
from equivbench.training import compilation, precision
from equivbench.training.arm import Arm
from equivbench.training.batches import Assembled, Batches
from equivbench.training.clock import Clock, Part
from equivbench.training.state import put_back, snapshot


def evaluated_at_once(device: torch.device) -> int:
    """Samples in a forward pass without gradients, of either arm, where the pair's preset does not
    say.

    Few on a CPU, whose caches they then fit (PaiNN, two cores: 16 at once take 0.43 s for the test
    set where 64 take 0.59 s).
    """
    return 16 if device.type == "cpu" else 256


class Preparation:
    """Compiles an arm's model if its recipe says so. Eager arms need nothing."""

    def __init__(self, arm: Arm, batches: Batches, folder: Path | None) -> None:
        self._arm = arm
        self._batches = batches
        self._folder = folder
        self._done = False
        self.backend: str | None = None
        """How the model was compiled, as the record says it; None for eager."""
        self.why_eager = "the recipe trains eagerly"

    def once(self, clock: Clock, part: Part, notes: list[str]) -> None:
        """Compile (charged to ``part``) and check, on the first call; ``FailedError`` where the
        gradients disagree."""
        if self._done:
            return
        self._done = True
        if not self._arm.recipe.compile:
            return
        if cxx_compiler() is None:
            self.why_eager = compilation.NO_COMPILER
            notes.append(compilation.NO_COMPILER)
            return
        self._compile(clock, part)
        self.backend = compilation.BACKEND

    def _compile(self, clock: Clock, part: Part) -> None:
        arm, count = self._arm, self._arm.recipe.batch_size
        canonical = self._batches.canonical(count)
        buffers = dict(arm.model.named_buffers())
        saved = snapshot(buffers)
        eager = self._gradients(canonical)
        # Two graphs that draw random numbers (dropout) cannot agree: such a model is checked in
        # evaluation mode.
        random = not compilation.same(eager, self._gradients(canonical, stream=1))
        if random:
            arm.module.eval()
            eager = self._gradients(canonical)
            arm.module.train()
        with clock.part(part):
            compilation.use_empty_cache(self._folder)
            try:
                compilation.compile_model(arm.model)
                compiled = self._trace(canonical)
            except RuntimeError as error:  # every failure of dynamo and inductor is one
                raise compilation.compile_failure(error) from error
        if random:
            arm.module.eval()
            compiled = self._gradients(canonical)
            arm.module.train()
        put_back(buffers, saved)
        problem = compilation.disagreement(eager, compiled, arm.recipe.precision)
        if problem is not None:
            raise FailedError(
                f"torch.compile changes this model's gradients: {problem}; set compile=False in its recipe"
            )

    def _trace(self, canonical: Assembled) -> dict[str, Tensor]:
        """Trace every graph that training and evaluation need; returns the gradients on the
        canonical batch, traced first."""
        arm, count = self._arm, self._arm.recipe.batch_size
        compiled = self._gradients(canonical)
        for start in (count, 2 * count):
            self._gradients(self._batches.canonical(count, start))
        size = arm.evaluated_at_once
        evaluated = [self._batches.canonical(count)[0] for count in (size, size // 2)]
        with precision.autocast(arm.recipe.precision, arm.device):
            compilation.trace_without_gradients(arm.module, evaluated)
        return compiled

    def _gradients(self, batch: Assembled, stream: int = 0) -> dict[str, Tensor]:
        arm, (inputs, targets) = self._arm, batch

        def loss() -> Tensor:
            torch.manual_seed(stream)
            with precision.autocast(arm.recipe.precision, arm.device):
                return arm.task.objective(arm.module(**inputs), targets, inputs)

        return compilation.gradients(arm.model, loss)

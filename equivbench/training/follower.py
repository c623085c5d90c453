"""A rank of an arm that follows the first one: it does what it is told, and decides and writes
nothing itself."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from torch import Tensor

from equivbench.measure.calls import fingerprints
from equivbench.ranks import Ranks
from equivbench.training.acts import (
    Act,
    Compile,
    CopyState,
    ExchangeAverage,
    HandInPrints,
    Judge,
    MakeStep,
    MarkState,
    Meet,
    UndoSteps,
)
from equivbench.training.arm import SharedEvaluator
from equivbench.training.optim import copied, put_back
from equivbench.training.steps import Steps


class Follower:
    """Does with ``steps``, those of this one of ``ranks``, what the first rank does with its own.

    ``folder`` is this rank's own; what it compiles lies there.
    """

    def __init__(self, steps: Steps, ranks: Ranks, folder: Path) -> None:
        self._steps, self._ranks, self._folder = steps, ranks, folder
        self._marked: list[dict[str, Tensor]] = []

    def follow(self, act: Act) -> None:
        """Do ``act``; raises what it raises on the first rank, and
        :class:`equivbench.ranks.LostRankError` where another one is gone."""
        steps = self._steps
        match act:
            case CopyState():
                self._ranks.copy_first(steps.tensors())
            case Compile():
                self._compile()
            case MakeStep(step, samples, rate_factor):
                steps.facts.step, steps.facts.samples = step, samples
                steps.step(steps.clock, rate_factor)
            case MarkState():
                self._marked.append(copied(steps.tensors()))
            case UndoSteps():
                put_back(steps.tensors(), self._marked.pop())
            case ExchangeAverage():
                steps.average.exchange()
            case Judge(test_set):
                evaluator = next(each for each in self._evaluators() if each.name == test_set)
                evaluator.hand_in_part(steps.arm.module)
            case HandInPrints():
                self._ranks.gathered(fingerprints(steps.tensors()))
            case Meet():
                # What was seen of the steps so far is judged by the first rank.
                steps.watch.forget()
                self._ranks.meet()

    def _compile(self) -> None:
        from equivbench.training.compilation import compile_arm, use_empty_cache

        arm, folder = self._steps.arm, self._folder
        if arm.recipe.compile:
            folder.mkdir(parents=True, exist_ok=True)
            compile_arm(arm, self._steps.batches, folder, self._steps.clock, "compile")
        elif arm.device.type == "cuda":
            folder.mkdir(parents=True, exist_ok=True)
            use_empty_cache(folder)

    def _evaluators(self) -> Iterator[SharedEvaluator]:
        arm = self._steps.arm
        for each in (arm.evaluator, arm.part_evaluator):
            assert isinstance(each, SharedEvaluator)
            yield each
        # Made at the end of a run, when they are asked for.
        yield from self._further

    @cached_property
    def _further(self) -> list[SharedEvaluator]:
        found = self._steps.arm.further_evaluators().values()
        return [each for each in found if isinstance(each, SharedEvaluator)]

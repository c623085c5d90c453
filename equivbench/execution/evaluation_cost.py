"""What the evaluations of a run take, before it is run: forward passes, counted from what its pair
declares, as training steps that take as long; and what they may take. Imports no torch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from equivbench.budget import Budget
from equivbench.errors import UsageError
from equivbench.registry import DATASETS, TASKS
from equivbench.schedule import cooldown_begins, next_traced
from equivbench.specs import PairSpec, TaskSpec

ALLOWED_PART = 0.15
"""Of a budget: what all evaluations of an arm may take on top of it."""
ALLOWED_SECONDS = 30.0
"""Of a budget that is too short for that part: half of a minute's."""
_STEP_PASSES = 2.2
"""So many passes of an evaluation take as long as a training step of a sample (three passes), for
they are assembled and judged too: 1.8 to 2.8 in the reference records, and 4.6 where a step is of
two molecules alone and evaluations are not."""
_VERDICT = 1 / 5
"""What the verdict on the symmetry adds to the passes of the last evaluation, at most
(:mod:`equivbench.measure.evaluator`)."""
_FRAMES, _ROTATIONS_OF_CUBE = 4, 24
"""Predictions that a wrapper averages: in the proper principal frames, over the cube's group."""
_MANY_STEPS = 10**6
"""Taken where nobody knows how many steps a budget holds: few more evaluations than of fewer."""


@dataclass(frozen=True)
class EvaluationCost:
    """What all evaluations of one arm take."""

    passes: float
    """Forward passes over one sample."""
    steps: float
    """Training steps of the arm that take as long."""


def allowed_seconds(budget: float) -> float:
    """Seconds that the evaluations of an arm may take beyond a ``budget`` of so many seconds."""
    return max(ALLOWED_SECONDS, ALLOWED_PART * budget)


def evaluation_cost(
    pair: PairSpec,
    arm: str,
    preset: str,
    budget: Budget,
    step_seconds: float | None = None,
    dataset: str | None = None,
) -> EvaluationCost | None:
    """The cost of an arm of ``pair`` under ``budget``; ``step_seconds`` is what a training step
    takes, where that is known, ``dataset`` another data set than the preset's. None where a preset
    evaluates a whole test set of unknown size.

    Raw and averaged weights are evaluated on a part of the test set at the traced steps, and on all
    of it where the last cooldown begins; annealed weights on both at the end, and on further test
    sets. What rungs are evaluated with is on a clock part of its own, with their steps
    (:mod:`equivbench.training.measuring`).
    """
    shared, recipe = pair.presets[preset].on(dataset), pair.arm(arm).presets[preset].recipe
    task, data = TASKS.get(pair.task), DATASETS.get(shared.dataset)
    sizes = [size for size in (shared.test_samples, data.sizes.get("test")) if size is not None]
    if not sizes:
        return None
    whole = _passes(task, min(sizes), shared.rotations)
    part = _passes(task, min(shared.part_samples, *sizes), shared.part_rotations)
    further = sum(
        _passes(task, min(size, shared.test_samples or size), shared.part_rotations)
        for size in data.further.values()
    )
    steps = _steps_in(budget, recipe.batch_size, step_seconds)
    traced = sum(1 for _ in _traced(steps))
    trained, evaluated = wrapper_passes(pair.arm(arm).wrapper)
    passes = evaluated * (part * (2 * traced + 1) + whole * (2 + 1 + _VERDICT) + further)
    if recipe.symmetry_loss and recipe.symmetry_loss_kind == "rotated-copy":
        trained *= 2  # the rotated copies pass too
    of_step = trained * (_STEP_PASSES + task.feedback_part) * recipe.batch_size
    return EvaluationCost(passes, passes / of_step)


def wrapper_passes(name: str | None) -> tuple[int, int]:
    """Forward passes of the model in one of an arm in the wrapper ``name``: (in training, when
    evaluated)."""
    averaged, _, over = (name or "").partition("-")
    if averaged == "twirl":
        return 1, _ROTATIONS_OF_CUBE if over == "octahedral" else int(over)
    return {"frames": (_FRAMES, _FRAMES), "stochastic-frames": (1, _FRAMES)}.get(name or "", (1, 1))


def known_cost(
    pair: PairSpec,
    arm: str,
    preset: str,
    budget: str,
    step_seconds: float | None = None,
    dataset: str | None = None,
) -> EvaluationCost | None:
    """The same under a ``budget`` as it is written; None too where the task, the data set or the
    preset of the arm is not there, of which others speak."""
    with contextlib.suppress(UsageError, KeyError):
        return evaluation_cost(pair, arm, preset, Budget.parse(budget), step_seconds, dataset)
    return None


def _passes(task: TaskSpec, samples: int, rotations: int) -> int:
    """Each sample is asked under every rotation, and once for what is fed back."""
    return samples * task.test_points * (rotations + (task.feedback_part > 0))


def _steps_in(budget: Budget, batch_size: int, step_seconds: float | None) -> float:
    if budget.kind == "steps":
        return budget.limit
    if budget.kind == "samples":
        return budget.limit / batch_size
    return budget.limit / step_seconds if step_seconds else _MANY_STEPS


def _traced(steps: float) -> Iterator[int]:
    """The steps before the last cooldown at which weights are evaluated."""
    step = next_traced(0)
    while step <= cooldown_begins(steps):
        yield step
        step = next_traced(step)

"""The results of a run and those on its way: the weights at fixed steps, the annealed weights of
smaller budgets, the trunk where the last cooldown begins, and the result of the budget."""

from __future__ import annotations

from collections.abc import Callable

from equivbench.measure.measurement import Measurement
from equivbench.records.schema import Rung, Test, TracePoint
from equivbench.schedule import cooldown_begins, is_traced, next_traced
from equivbench.training.checkpoint import Keeper, write_snapshot
from equivbench.training.optim import divergence_of
from equivbench.training.steps import Steps

Tell = Callable[[bool], None]
"""Tells the user how far the run is; True: at once, False: if some time has gone by."""


class Measuring:
    """Measures what is due after a step of ``steps``.

    With ``traced`` the weights at fixed steps and the trunk are measured, and ``keep_trunk`` keeps
    that trunk; ``snapshots`` keeps the weights of every evaluation in the folder of ``keeper``.
    """

    def __init__(
        self,
        steps: Steps,
        *,
        traced: bool,
        keeper: Keeper | None,
        keep_trunk: Callable[[], object],
        snapshots: bool,
    ) -> None:
        self.steps = steps
        self.traced = traced
        self.keeper = keeper
        self.snapshots = snapshots
        self._keep_trunk = keep_trunk
        self.rung: float | None = None
        """The smaller budget whose rung is being measured."""

    def steps_to_next(self) -> int:
        """Steps until something is due or the clock should be read."""
        run = self.steps
        limits = [*run.facts.rungs_left[:1], run.budget.limit]
        mark = min(cooldown_begins(limit) for limit in limits)
        steps = run.steps_until(run.budget.limit if run.spent >= mark else mark)
        if self._is_tracing:
            steps = min(steps, next_traced(run.facts.step) - run.facts.step)
        return steps

    def measure_due(self, tell: Tell) -> None:
        """Measure all that is due after the step just made: traced weights, rungs, the trunk where
        the last cooldown begins, the result."""
        run, facts = self.steps, self.steps.facts
        if run.finished:
            return
        seen = facts.trace[-1].step if facts.trace else 0
        if self._is_tracing and seen < facts.step and is_traced(facts.step):
            self._trace()
            tell(True)
        while facts.rungs_left and run.spent >= cooldown_begins(facts.rungs_left[0]):
            if run.stopping or run.finished:
                return
            self._measure_rung(facts.rungs_left[0], tell)
        if run.stopping or run.finished:
            return
        if facts.cools_from is None and run.spent >= cooldown_begins(run.budget.limit):
            self._leave_trunk()
        if not run.finished and run.spent >= run.budget.limit:
            self._finish()

    def evaluate(self, *, part: bool = False, floor: bool = False) -> Measurement:
        """Measure the weights that the arm holds now, on the test set or the ``part`` of it that is
        read on the way."""
        arm = self.steps.arm
        self.steps.compare_ranks()
        evaluator = arm.part_evaluator if part else arm.evaluator
        return evaluator.evaluate(arm.module, floor=floor)

    def _measured(self, *, part: bool = False, floor: bool = False) -> Test | None:
        """The same as it is recorded, in clock part ``evaluate``; None, and the arm has diverged,
        if it is not finite. With ``floor`` the verdict on the symmetry is kept too."""
        facts = self.steps.facts
        with self.steps.clock.part("evaluate"):
            measurement = self.evaluate(part=part, floor=floor)
            facts.diverged = divergence_of(measurement, facts.step)
            if facts.diverged is not None:
                return None
            if floor:
                facts.verdict = measurement.verdict
            return measurement.to_record()

    def _raw_and_average(self, *, part: bool) -> tuple[Test, Test] | None:
        """Of the weights and of their moving average; None if the arm has diverged."""
        raw = self._measured(part=part)
        if raw is None:
            return None
        with self.steps.averaged():
            ema = self._measured(part=part)
        return None if ema is None else (raw, ema)

    @property
    def _is_tracing(self) -> bool:
        return self.traced and self.steps.facts.cools_from is None

    def _trace(self) -> None:
        run, facts = self.steps, self.steps.facts
        spent = run.clock.spent
        found = self._raw_and_average(part=True)
        if found is None:
            return
        raw, ema = found
        facts.trace.append(
            TracePoint(
                step=facts.step,
                samples=facts.samples,
                train_seconds=spent,
                test=raw,
                ema=ema,
            )
        )
        if self.snapshots and self.keeper is not None:
            with run.clock.part("checkpoint"):
                write_snapshot(self.keeper.folder, run.tensors(), facts)

    def _measure_rung(self, limit: float, tell: Tell) -> None:
        """Give the weights at hand the end that they have in a run with a budget of ``limit``,
        measure them, and go back. A stop on the way leaves the rung to be measured later."""
        run = self.steps
        trunk, spent_before = run.facts.step, run.clock.spent
        clock = run.clock.scratch()
        self.rung = limit
        with run.clock.part("rungs"), run.undone():
            diverged = None
            while diverged is None and not run.stopping:
                seconds = spent_before + clock.spent
                if run.in_unit(seconds) >= limit:
                    break
                with clock.running():
                    run.advance(clock, seconds, limit, run.steps_until(limit, seconds))
                diverged = run.watch.verdict(run.facts.step)
                if self.keeper is not None:
                    self.keeper.beat(run.facts, run.clock, step=trunk)
                tell(False)
            if not run.stopping:
                self._keep_rung(limit, spent_before + clock.spent, diverged)
        self.rung = None
        tell(True)

    def _keep_rung(self, limit: float, seconds: float, diverged: str | None) -> None:
        facts = self.steps.facts
        if diverged is None:
            measurement = self.evaluate(part=True)
            diverged = divergence_of(measurement, facts.step)
        if diverged is not None:
            # A run with this budget would have ended here; so does this one.
            facts.diverged = f"the rung of {limit:g} {self.steps.budget.kind}: {diverged}"
            return
        facts.rungs.append(self._rung_here(limit, seconds, measurement.to_record()))
        facts.rungs_left.remove(limit)

    def _rung_here(self, limit: float, seconds: float, test: Test) -> Rung:
        facts = self.steps.facts
        return Rung(
            budget=limit,
            step=facts.step,
            samples=facts.samples,
            train_seconds=seconds,
            test=test,
        )

    def _leave_trunk(self) -> None:
        """Keep the trunk, from which an extension would go on, and measure it."""
        facts = self.steps.facts
        if self.traced:
            self._keep_trunk()
            found = self._raw_and_average(part=False)
            if found is None:
                return
            facts.final_raw, facts.final_ema = found
        facts.cools_from = facts.step

    def _finish(self) -> None:
        """Measure the result of the budget."""
        run, facts = self.steps, self.steps.facts
        seconds = run.clock.spent
        on_part = self._measured(part=True) if self.traced else None
        final = self._measured(floor=True) if facts.diverged is None else None
        if final is None:
            return
        facts.final, facts.final_on_part = final, on_part
        facts.rungs.append(self._rung_here(run.budget.limit, seconds, final))

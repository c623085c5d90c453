"""One arm's training under its budget: a step, a slice of steps, its evaluations, and going on
after a crash."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from equivbench.budget import Budget
from equivbench.errors import FailedError, UsageError
from equivbench.records.schema import Inference, TracePoint
from equivbench.training import precision, probes
from equivbench.training.arm import Arm
from equivbench.training.batches import Batches
from equivbench.training.clock import Clock
from equivbench.training.divergence import DivergenceWatch
from equivbench.training.ema import Average
from equivbench.training.energy import energy_meter
from equivbench.training.keeping import Keeper
from equivbench.training.optimiser import build_optimizer, set_rate
from equivbench.training.outcome import Description, Outcome, outcome_of
from equivbench.training.preparation import Preparation
from equivbench.training.progress import Progress
from equivbench.training.schedule import evaluation_points, extension_points, learning_rate
from equivbench.training.state import Facts, live_tensors
from equivbench.training.streams import seed_global

if TYPE_CHECKING:
    from equivbench.measure.equivariance import Measurement

Report = Callable[[Progress], None]

_CUDA_READING = 10
"""Steps between two readings of the clock on CUDA, where each one waits for the device."""
_REPORT_SECONDS = 0.5


class Trainer:
    """Trains one arm with one seed.

    The clock runs only inside the methods below; the time between two calls belongs to the other
    arm. ``folder`` keeps checkpoints and the heartbeat (None: nothing is kept); ``identity`` says
    which run they belong to. ``snapshots``: the weights of every evaluation are kept there too.
    """

    def __init__(
        self,
        arm: Arm,
        budget: Budget,
        *,
        evaluations: int,
        seed: int,
        clock: Clock,
        description: Description,
        folder: Path | None = None,
        identity: Mapping[str, Any] | None = None,
        snapshots: bool = False,
    ) -> None:
        self.arm = replace(
            arm,
            recipe=replace(
                arm.recipe, precision=precision.effective(arm.recipe.precision, arm.device)
            ),
        )
        self.budget = budget
        self.evaluations = evaluations
        self.seed = seed
        self.clock = clock
        self.description = description
        self.notes: list[str] = []
        """Lines for the user: no C++ compiler, a checkpoint that could not be read."""
        identity = {
            **(identity or {}),
            "budget": budget.text,
            "evaluations": evaluations,
            "seed": seed,
        }
        points = evaluation_points(budget, evaluations)
        self.facts = Facts(
            identity=identity, job=dict(description.job), budget=budget.text, points=points
        )
        precision.use(self.arm.recipe.precision)
        self.batches = Batches(arm.task, arm.split, arm.recipe, arm.requires, seed, arm.device)
        self.optimizer = build_optimizer(arm.model, arm.recipe)
        self.average = Average(arm.model, arm.recipe.ema)
        self.preparation = Preparation(self.arm, self.batches, folder)
        self.energy = energy_meter(arm.device)
        self.keeper = Keeper(folder, identity) if folder is not None else None
        self._snapshots = snapshots
        self._watch = DivergenceWatch()
        self._reading = 1 if arm.device.type == "cpu" else _CUDA_READING
        self._stopping = False
        self._reported = 0.0

    # --- the loop
    # -----------------------------------------------------------------------------------------------------

    def train_slice(self, seconds: float, report: Report | None = None) -> None:
        """Train until ``seconds`` more of train + data are spent, the arm is finished, or
        :meth:`stop` was called.

        Evaluations, checkpoints and the first slice's compilation come on top. ``report`` gets
        :meth:`progress` about twice a second and after each evaluation.
        """
        with self.holding_the_device():
            self.prepare()
            end = self.clock.spent + seconds
            while not self.finished and not self._stopping and self.clock.spent < end:
                self.step(self.clock)
                if self.facts.step % self._reading and not self._evaluation_due():
                    continue
                self.clock.synchronize()
                self.facts.diverged = self._watch.verdict(self.facts.step)
                if self.keeper is not None:
                    self.keeper.beat(self.facts, self.clock)
                evaluate = self._evaluation_due() and self.facts.diverged is None
                if evaluate:
                    self._evaluate()
                if self.keeper is not None and (
                    self.finished or self.keeper.due(self.budget, self.spent, self.clock)
                ):
                    self.save()
                self._report(report, now=evaluate or self.finished)
        self._stopping = False

    def step(self, clock: Clock) -> None:
        """One training step, charged to ``clock``'s parts ``data`` and ``train``."""
        arm, recipe, facts = self.arm, self.arm.recipe, self.facts
        with clock.part("data", synchronize=False):
            inputs, targets = self.batches.at(facts.samples, recipe.batch_size)
        with clock.part("train", synchronize=False):
            seed_global(self.seed, "dropout", facts.step)
            with precision.autocast(recipe.precision, arm.device):
                if self.batches.feeds_back(facts.samples):
                    inputs = arm.with_feedback(inputs)
                outputs = arm.module(**inputs)
                loss = arm.task.objective(outputs, targets, inputs)
            loss.backward()  # type: ignore[no-untyped-call]
            limit = float("inf") if recipe.clip_norm is None else recipe.clip_norm
            norm = nn.utils.clip_grad_norm_(arm.model.parameters(), limit)
            set_rate(
                self.optimizer, learning_rate(facts.step, recipe.learning_rate, recipe.warmup_steps)
            )
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.average.update(facts.step)
            self._watch.see(loss.detach(), norm)
        facts.step += 1
        facts.samples += recipe.batch_size

    def prepare(self) -> None:
        """Compile and check gradients (clock parts ``compile`` and ``other``), once;
        ``FailedError`` on a mismatch."""
        with self.holding_the_device():
            # After a resume compilation is not part of what the arm costs: it was charged in full
            # before the crash.
            first = self.facts.clock.get("compile", 0.0) == 0.0
            self.preparation.once(self.clock, "compile" if first else "other", self.notes)
            if self.keeper is not None:
                self.keeper.beat(self.facts, self.clock)

    def stop(self) -> None:
        """End the slice under way after the step at hand (safe to call from a signal handler)."""
        self._stopping = True

    @property
    def finished(self) -> bool:
        """The budget is spent and the last evaluation made, or the arm diverged."""
        return self.facts.finished

    @property
    def diverged(self) -> str | None:
        """Why the arm diverged (NaN or inf in loss, gradient norm or evaluation), else None."""
        return self.facts.diverged

    @property
    def trace(self) -> list[TracePoint]:
        """The evaluations so far."""
        return self.facts.trace

    @property
    def spent(self) -> float:
        """What is spent of the budget, in its own unit."""
        return {
            "seconds": self.clock.spent,
            "steps": float(self.facts.step),
            "samples": float(self.facts.samples),
        }[self.budget.kind]

    def progress(self) -> Progress:
        """How far the run is."""
        facts, test = self.facts, self.facts.final
        spent, seconds = self.spent, self.clock.spent
        fraction = spent / self.budget.limit
        return Progress(
            step=facts.step,
            spent=spent,
            limit=self.budget.limit,
            finished=facts.finished,
            samples=facts.samples,
            diverged=facts.diverged,
            loss=self._watch.recent,
            total=None if test is None else test.total,
            share=None if test is None else test.share,
            explained=None if test is None else test.explained,
            samples_per_second=facts.samples / seconds if facts.samples and seconds > 0 else None,
            seconds_left=max(0.0, seconds / fraction - seconds) if fraction > 0 else None,
        )

    def extend(self, budget: Budget) -> None:
        """Go on to a larger ``budget`` of the same kind; evaluations continue as dense in log spent
        as before."""
        if budget.kind != self.budget.kind or budget.limit <= self.budget.limit:
            raise UsageError(
                f"a run with a budget of {self.budget.text} cannot be extended to {budget.text}"
            )
        self.facts.points += extension_points(self.budget.limit, budget, self.evaluations)
        self.facts.extends = self.facts.extends or self.budget.text
        self.facts.budget = budget.text
        self.budget = budget

    def forget_losses(self) -> None:
        """Leave out of :meth:`progress` and of the watch for divergence what was seen since the
        last reading."""
        self._watch.forget()

    # --- off the budget and at the end
    # --------------------------------------------------------------------------------

    def time_steps(self, seconds: float) -> list[float]:
        """Seconds of each of at least one real training step (data + train), off the budget; state
        is left untouched."""
        return probes.time_steps(self, seconds)

    def finalise(self, inference_seconds: float = 1.0) -> Outcome:
        """Evaluate the raw weights, time inference and twirling for about ``inference_seconds``,
        and report.

        A diverged arm is reported as it is, without further measurement.
        """
        if self.facts.diverged is not None:
            return self.outcome()
        with self.holding_the_device():
            self.prepare()
            raw = self.evaluate(floor=False)
            diverged = DivergenceWatch.of_measurement(raw, self.facts.step)
            with self.clock.part("evaluate"):
                baselines = self.arm.evaluator.baselines()
            inference, flops = (
                probes.inference(self, inference_seconds),
                probes.flops_per_sample(self),
            )
        return outcome_of(
            self, inference, raw.to_record() if diverged is None else None, flops, baselines
        )

    def outcome(self) -> Outcome:
        """What is known so far (an interrupted or diverged run), without further measurement."""
        return outcome_of(self, Inference(samples_per_second=None), None, None, {})

    # --- checkpoints
    # --------------------------------------------------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        """The live tensors that, with ``facts``, are the whole state of the run."""
        return live_tensors(self.arm.model, self.average, self.optimizer)

    def save(self) -> Path:
        """Write a checkpoint in the run's folder, keeping the one before; returns its path."""
        if self.keeper is None:
            raise FailedError("this run keeps no checkpoints: it was given no folder for its state")
        with self.holding_the_device():
            self.facts.joules = self.energy.joules
            return self.keeper.save(self.tensors(), self.facts, self.clock, self.spent)

    def restore(self) -> bool:
        """Go back, weights and clock together, to the last readable checkpoint; False if there is
        nothing to resume.

        Work since that checkpoint is counted in ``lost_seconds``. Raises ``FailedError`` where the
        checkpoint belongs to another run or none can be read.
        """
        with self.holding_the_device():
            facts = (
                self.keeper.restore(self.tensors(), self.facts, self.clock, self.notes)
                if self.keeper is not None
                else None
            )
            if facts is None or self.keeper is None:
                return False
            self.facts = facts
            self.energy.joules = facts.joules
            self.budget = Budget.parse(facts.budget)
            self.keeper.saved(self.spent, self.clock)
            self.keeper.beat(facts, self.clock)
        return True

    def clear(self) -> None:
        """Forget what an earlier run left in the folder: this one starts fresh."""
        if self.keeper is not None:
            self.keeper.clear()

    # --- pieces
    # -------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def holding_the_device(self) -> Iterator[None]:
        """The clock and the energy meter run inside the block (blocks may nest)."""
        if self.clock.is_running:
            yield
            return
        with self.clock.running(), self.energy.metered():
            yield

    def evaluate(self, floor: bool) -> Measurement:
        """Measure the arm with the weights it holds now, in clock part ``evaluate``."""
        with self.clock.part("evaluate"):
            return self.arm.evaluator.evaluate(self.arm.module, floor=floor)

    def _evaluate(self) -> None:
        facts, spent_seconds = self.facts, self.clock.spent
        facts.points = [point for point in facts.points if point > self.spent]
        last = not facts.points
        with self.average.swapped_in():
            measurement = self.evaluate(floor=last)
        facts.diverged = DivergenceWatch.of_measurement(measurement, facts.step)
        if facts.diverged is not None:
            return
        test = measurement.to_record()
        facts.trace.append(
            TracePoint(
                step=facts.step, samples=facts.samples, train_seconds=spent_seconds, test=test
            )
        )
        facts.groups.add(measurement)
        if self._snapshots and self.keeper is not None:
            self.keeper.snapshot(self.tensors(), facts, self.clock)
        if last and self.arm.verify is not None:
            facts.verified = self.arm.verify(measurement)

    def _evaluation_due(self) -> bool:
        return bool(self.facts.points) and self.spent >= self.facts.points[0]

    def _report(self, report: Report | None, now: bool) -> None:
        wall = self.clock.wall
        if report is not None and (now or wall - self._reported >= _REPORT_SECONDS):
            self._reported = wall
            report(self.progress())

"""The training loop of one arm under its budget, from top to bottom: slices of steps, one step, the
evaluations on the way, and going on after a crash.

The clock runs only inside the methods of :class:`Trainer`; the time between two calls belongs to
the other arm. Everything that a run is at a step is in :meth:`Trainer.tensors` and
:attr:`Trainer.facts`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from equivbench.errors import FailedError, UsageError
from equivbench.measure.measurement import Measurement
from equivbench.records.schema import NotMeasured, TracePoint
from equivbench.request import Budget
from equivbench.training.arm import Arm, use_precision
from equivbench.training.checkpoint import Facts, Keeper
from equivbench.training.clock import Clock, energy_meter
from equivbench.training.compilation import Compilation
from equivbench.training.data import Batches, seed_global
from equivbench.training.job import Progress, evaluation_points, extension_points
from equivbench.training.optim import (
    Average,
    build_optimizer,
    copied,
    learning_rate,
    live_tensors,
    put_back,
    set_rate,
)

Report = Callable[[Progress], None]

_CUDA_READING = 10
"""Steps between two readings of the clock on CUDA, where each one waits for the device."""
_REPORT_SECONDS = 0.5


class Trainer:
    """Trains one arm with one seed, of which everything random follows.

    ``evaluations`` are spread over ``budget``, log-spaced, the last at its end. ``clock`` is paused
    and runs while the arm has the machine. ``folder`` keeps checkpoints, heartbeat and, with
    ``snapshots``, the weights of every evaluation; ``identity`` must agree for a checkpoint there
    to belong to this run, and ``job`` is kept in it so that the model can be built again.
    """

    def __init__(
        self,
        arm: Arm,
        budget: Budget,
        *,
        evaluations: int,
        seed: int,
        clock: Clock,
        job: Mapping[str, Any],
        identity: Mapping[str, Any],
        folder: Path | None = None,
        snapshots: bool = False,
    ) -> None:
        self.arm = arm
        self.budget = budget
        self.evaluations = evaluations
        self.seed = seed
        self.clock = clock
        identity = {
            **identity,
            "budget": budget.text,
            "evaluations": evaluations,
            "seed": seed,
        }
        points = evaluation_points(budget, evaluations)
        self.facts = Facts(identity=identity, job=dict(job), budget=budget.text, points=points)
        self.notes: list[str] = []
        """Lines for the user: no C++ compiler, a checkpoint that could not be read."""
        use_precision(arm.recipe.precision)
        self.batches = Batches(arm.task, arm.split, arm.recipe, arm.requires, seed, arm.device)
        self.optimizer = build_optimizer(arm.model, arm.recipe)
        self.average = Average(arm.model, arm.recipe.ema)
        self.compilation = Compilation(arm, self.batches, folder)
        self.energy = energy_meter(arm.device)
        self.keeper = Keeper(folder, identity) if folder is not None else None
        self._snapshots = snapshots
        self._watch = DivergenceWatch()
        self._reading = 1 if arm.device.type == "cpu" else _CUDA_READING
        self._stopping = False
        self._reported = 0.0

    def train_slice(self, seconds: float, report: Report | None = None) -> None:
        """Train until ``seconds`` more of train + data are spent, the arm is finished, or
        :meth:`stop` was called. ``report`` gets :meth:`progress` about twice a second and after
        each evaluation."""
        with self.running():
            self.prepare()
            end = self.clock.spent + seconds
            while not self.finished and not self._stopping and self.clock.spent < end:
                self.step(self.clock)
                # Reading the clock waits for the device, so it is not read after every step there.
                if self.facts.step % self._reading and not self._evaluation_due():
                    continue
                self.clock.synchronize()
                self.facts.diverged = self._watch.verdict(self.facts.step)
                if self.keeper is not None:
                    self.keeper.beat(self.facts, self.clock)
                evaluated = self._evaluation_due() and self.facts.diverged is None
                if evaluated:
                    self._evaluate_average()
                if self.keeper is not None and (
                    self.finished or self.keeper.due(self.budget, self.spent, self.clock)
                ):
                    self.save()
                self._report(report, now=evaluated or self.finished)
        self._stopping = False

    def step(self, clock: Clock) -> None:
        """One training step, charged to ``clock``'s parts ``data`` and ``train``."""
        arm, recipe, facts = self.arm, self.arm.recipe, self.facts
        with clock.part("data", synchronize=False):
            inputs, targets = self.batches.at(facts.samples, recipe.batch_size)
        with clock.part("train", synchronize=False):
            seed_global(self.seed, "dropout", facts.step)
            with arm.autocast():
                if self.batches.feeds_back(facts.samples):
                    inputs = arm.with_feedback(inputs)
                outputs = arm.module(**inputs)
                loss = arm.task.objective(outputs, targets, inputs)
            loss.backward()  # type: ignore[no-untyped-call]
            limit = math.inf if recipe.clip_norm is None else recipe.clip_norm
            norm = nn.utils.clip_grad_norm_(arm.model.parameters(), limit)
            rate = learning_rate(facts.step, recipe.learning_rate, recipe.warmup_steps)
            set_rate(self.optimizer, rate)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.average.update(facts.step)
            self._watch.see(loss.detach(), norm)
        facts.step += 1
        facts.samples += recipe.batch_size

    def evaluate(self, floor: bool) -> Measurement:
        """Measure the arm with the weights it holds now, in clock part ``evaluate``."""
        with self.clock.part("evaluate"):
            return self.arm.evaluator.evaluate(self.arm.module, floor=floor)

    def _evaluate_average(self) -> None:
        """Measure the averaged weights and append what was measured to the trace."""
        facts, spent_seconds = self.facts, self.clock.spent
        facts.points = [point for point in facts.points if point > self.spent]
        last = not facts.points
        with self.average.swapped_in():
            measurement = self.evaluate(floor=last)
        facts.diverged = divergence_of(measurement, facts.step)
        if facts.diverged is not None:
            return
        facts.add(measurement, spent_seconds)
        if self._snapshots and self.keeper is not None:
            self.keeper.snapshot(self.tensors(), facts, self.clock)
        if last and not isinstance(self.arm.verify, NotMeasured):
            facts.verified = self.arm.verify(measurement)

    def prepare(self) -> None:
        """Compile the model and check its gradients (clock parts ``compile`` and ``other``), once;
        raises ``FailedError`` on a mismatch."""
        with self.running():
            # After a resume compilation is not part of what the arm costs: it was charged in full
            # before the crash.
            first = self.facts.clock.get("compile", 0.0) == 0.0
            self.compilation.once(self.clock, "compile" if first else "other", self.notes)
            if self.keeper is not None:
                self.keeper.beat(self.facts, self.clock)

    def stop(self) -> None:
        """End the slice under way after the step at hand (safe to call from a signal handler)."""
        self._stopping = True

    # --- where the run stands

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

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """The clock and the energy meter run inside the block (blocks may nest)."""
        if self.clock.is_running:
            yield
            return
        with self.clock.running(), self.energy.metered():
            yield

    # --- off the budget

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

    def time_steps(self, seconds: float) -> list[float]:
        """Seconds (data + train) of each of at least one real step, in about ``seconds``, in clock
        part ``timing``; the steps are undone."""
        times: list[float] = []
        clock = self.clock.scratch()
        with self.running():
            self.prepare()
            with self.clock.part("timing"), self.undone(), clock.running():
                while not times or sum(times) < seconds:
                    before = clock.spent
                    self.step(clock)
                    clock.synchronize()
                    times.append(clock.spent - before)
        return times

    @contextlib.contextmanager
    def undone(self) -> Iterator[None]:
        """The steps made inside the block are those that would come next; afterwards weights,
        averages, moments and counters are what they were, to the bit."""
        live = self.tensors()
        saved = copied(live)
        step, samples = self.facts.step, self.facts.samples
        yield
        put_back(live, saved)
        self.facts.step, self.facts.samples = step, samples
        self._watch.forget()

    # --- the state of the run, kept and put back

    def tensors(self) -> dict[str, Tensor]:
        """The live tensors that, with ``facts``, are the whole state of the run."""
        return live_tensors(self.arm.model, self.average, self.optimizer)

    def save(self) -> Path:
        """Write a checkpoint in the run's folder, keeping the one before; returns its path."""
        if self.keeper is None:
            raise FailedError("this run keeps no checkpoints: it was given no folder for its state")
        with self.running():
            joules = self.energy.joules
            self.facts.joules = None if isinstance(joules, NotMeasured) else joules
            return self.keeper.save(self.tensors(), self.facts, self.clock, self.spent)

    def restore(self) -> bool:
        """Go back, weights and clock together, to the last readable checkpoint, the work since
        counted in ``lost_seconds``; False if there is nothing to resume."""
        if self.keeper is None:
            return False
        with self.running():
            facts = self.keeper.restore(self.tensors(), self.facts, self.clock, self.notes)
            if facts is None:
                return False
            self.facts = facts
            self.energy.restore(facts.joules)
            self.budget = Budget.parse(facts.budget)
            self.keeper.saved(self.spent, self.clock)
            self.keeper.beat(facts, self.clock)
        return True

    def clear(self) -> None:
        """Forget what an earlier run left in the folder: this one starts fresh."""
        if self.keeper is not None:
            self.keeper.clear()

    def _evaluation_due(self) -> bool:
        return bool(self.facts.points) and self.spent >= self.facts.points[0]

    def _report(self, report: Report | None, now: bool) -> None:
        wall = self.clock.wall
        if report is not None and (now or wall - self._reported >= _REPORT_SECONDS):
            self._reported = wall
            report(self.progress())


class DivergenceWatch:
    """Collects losses and gradient norms without waiting for the device; :meth:`verdict` waits once
    and judges them all.

    NaN and inf survive summation, so a sum over the steps since the last verdict is enough.
    """

    def __init__(self) -> None:
        self._loss: Tensor | None = None
        self._norm: Tensor | None = None
        self._count = 0
        self.recent: float | None = None
        """Mean training objective of recent steps."""

    def see(self, loss: Tensor, norm: Tensor) -> None:
        """Take note of one step."""
        self._loss = loss if self._loss is None else self._loss + loss
        self._norm = norm if self._norm is None else self._norm + norm
        self._count += 1

    def verdict(self, step: int) -> str | None:
        """Why the steps since the last verdict, which end at ``step``, mean divergence; None if
        they do not."""
        if self._loss is None or self._norm is None:
            return None
        loss, norm = torch.stack((self._loss.double(), self._norm.double())).tolist()
        count = self._count
        self.forget()
        where = f"at step {step}" if count == 1 else f"in steps {step - count + 1} to {step}"
        if not math.isfinite(loss):
            return f"the loss is {loss} {where}"
        if not math.isfinite(norm):
            return f"the gradient norm is {norm} {where}"
        self.recent = (
            loss / count
            if self.recent is None
            else self.recent + 0.1 * (loss / count - self.recent)
        )
        return None

    def forget(self) -> None:
        """Drop what was seen since the last verdict."""
        self._loss = self._norm = None
        self._count = 0


def divergence_of(measurement: Measurement, step: int) -> str | None:
    """Why an evaluation after ``step`` steps means divergence; None if it does not."""
    for name in ("objective", "total", "twirled", "equivariance"):
        value = getattr(measurement, name)
        if value is not None and not math.isfinite(value):
            return f"the evaluation's {name} is {value} after {step} steps"
    return None

"""The training loop of one arm under its budget, from top to bottom: slices of steps, one step, the
evaluations on the way, and going on after a crash.

The clock runs only inside the methods of :class:`Trainer`; the time between two calls belongs to
the other arm. Everything that a run is at a step is in :meth:`Trainer.tensors` and
:attr:`Trainer.facts`.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import torch
from torch import Tensor, nn

from equivbench.errors import FailedError, UsageError
from equivbench.kernels import build_time
from equivbench.measure.measurement import Measurement
from equivbench.records.schema import NotMeasured, TracePoint
from equivbench.request import Budget
from equivbench.tasks.splits import with_fraction
from equivbench.training.arm import Arm, build_arm, resolve_arm, use_precision
from equivbench.training.checkpoint import Facts, Keeper, write_snapshot
from equivbench.training.clock import Clock, ClockPart, clock_of, energy_meter
from equivbench.training.data import Batches, seed_global
from equivbench.training.job import Job, Progress, evaluation_points, extension_points
from equivbench.training.machine_share import MachineMeter, Stalls
from equivbench.training.optim import (
    Average,
    DivergenceWatch,
    build_optimizer,
    copied,
    divergence_of,
    learning_rate,
    live_tensors,
    put_back,
    set_rate,
)

Report = Callable[[Progress], None]

_READING_SECONDS = 0.2
"""About how long an asynchronous device is left alone between two readings of the clock, each of
which waits for it. The budget is overshot by at most one such interval and one step."""
_MOST_STEPS = 1000
_REPORT_SECONDS = 0.5


class StepTimes(NamedTuple):
    """One block of steps timed in alternation with the other arms."""

    seconds: float
    """Seconds a step (data + train) over the whole block."""
    readings: list[float]
    """Seconds a step between two readings of the clock: on a CPU of each single step."""


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
        threads: int = 1,
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
        self.compiled: str | NotMeasured = NotMeasured("the recipe trains eagerly")
        """How the model was compiled, as the record has it, or why it was not."""
        self.energy = energy_meter(arm.device)
        self.keeper = Keeper(folder, identity) if folder is not None else None
        self._snapshots = snapshots
        self._watch = DivergenceWatch()
        self.machine = MachineMeter(threads)
        self._step_seconds = 0.0  # at the last reading
        self._reading = 1
        """Steps from one reading of the clock to the next; 1 where the device does not run on its
        own."""
        self._prepared = self._stopping = False
        self._reported = 0.0

    def train_slice(self, seconds: float, report: Report | None = None) -> None:
        """Train until ``seconds`` more of train + data are spent, the arm is finished, or
        :meth:`stop` was called. ``report`` gets :meth:`progress` about twice a second and after
        each evaluation."""
        with self.running():
            self.prepare()
            end = self.clock.spent + seconds
            self._choose_reading()
            read_at, read = self.clock.trained_wall, self.facts.step
            while not self.finished and not self._stopping and self.clock.spent < end:
                self.step(self.clock)
                # Reading the clock waits for the device, so it is not read after every step there.
                if self.facts.step - read < self._reading and not self._evaluation_due():
                    continue
                self.clock.synchronize()
                each = (self.clock.trained_wall - read_at) / (self.facts.step - read)
                self.machine.saw_step(each)
                self._step_seconds = each
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
                # After the evaluation, whose stalls are no step's.
                self._choose_reading()
                read_at, read = self.clock.trained_wall, self.facts.step
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

    def _choose_reading(self) -> None:
        """Choose when the clock is read next, from the seconds that a step took last."""
        if not self.clock.is_asynchronous or self._step_seconds <= 0:
            return
        seconds = _READING_SECONDS
        if self.budget.kind == "seconds" and self.facts.points:
            seconds = min(seconds, self.facts.points[0] - self.spent)
        self._reading = max(1, min(_MOST_STEPS, round(seconds / self._step_seconds)))

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
        facts.verdict = measurement.verdict
        if self._snapshots and self.keeper is not None:
            with self.clock.part("checkpoint"):
                write_snapshot(self.keeper.folder, self.tensors(), facts)

    def prepare(self) -> None:
        """Compile whatever the arm compiles, once: the model by torch, with its gradients checked
        (part ``other``), and by a step that is undone what compiles itself at its first call (our
        kernels, a library's). Raises ``FailedError`` where the gradients disagree."""
        with self.running():
            if not self._prepared:
                self._prepared = True
                # After a resume compilation is not part of what the arm costs: it was charged in
                # full before the crash.
                part: ClockPart = "other" if self.facts.clock.get("compile", 0.0) else "compile"
                if self.arm.recipe.compile:
                    self._compile(part)
                elif self.arm.device.type == "cuda":
                    from equivbench.training.compilation import use_empty_cache

                    # Triton's own cache would outlive the run.
                    use_empty_cache(None if self.keeper is None else self.keeper.folder)
                with self.clock.part(part), self.undone():
                    self.step(self.clock.scratch())
                if part == "compile":
                    self.clock.charge(part, build_time.take_spared())
            if self.keeper is not None:
                self.keeper.beat(self.facts, self.clock)

    def _compile(self, part: ClockPart) -> None:
        from equivbench.training.compilation import compile_arm  # arms that run eagerly need none

        folder = None if self.keeper is None else self.keeper.folder
        self.compiled = compile_arm(self.arm, self.batches, folder, self.clock, part)
        if isinstance(self.compiled, NotMeasured):
            self.notes.append(self.compiled.reason)

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
        """The clock and the meters run inside the block (blocks may nest)."""
        if self.clock.is_running:
            yield
            return
        with self.machine.metered(), self.clock.running(), self.energy.metered():
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

    def time_block(self, seconds: float) -> StepTimes:
        """Time one block of at least one real step, about ``seconds`` long, in clock part
        ``timing``; the steps are undone. The clock is read as often as while training."""
        readings: list[float] = []
        steps, clock = 0, self.clock.scratch()
        with self.running():
            self.prepare()
            with self.clock.part("timing"), self.undone(), clock.running():
                while not readings or clock.spent < seconds:
                    before = clock.spent
                    for _ in range(self._reading):
                        self.step(clock)
                    clock.synchronize()
                    readings.append((clock.spent - before) / self._reading)
                    steps += self._reading
                return StepTimes(clock.spent / steps, readings)

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
            self.facts.machine = self.machine.facts
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
            self.machine.restore(facts.machine)
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


def build_trainer(job: Job) -> Trainer:
    """The trainer of ``job``; restored from its last checkpoint if it is to be resumed and there
    is one.

    Raises ``UsageError`` for names that are not registered, and a budget that cannot be read;
    ``FailedError`` for data or checkpoints that cannot be read.
    """
    declared = resolve_arm(job)
    clock = clock_of(torch.device(job.device), Stalls().taken)
    with clock.running():
        data = with_fraction(declared.dataset().load(), job.fraction)
        arm = build_arm(declared, job, data, clock)
        trainer = Trainer(
            arm,
            Budget.parse(job.extends or job.budget),
            # A trial of a tuning is judged at its end alone.
            evaluations=1 if job.split == "validation" else declared.pair_preset.evaluations,
            seed=job.seed,
            threads=job.threads,
            clock=clock,
            job=msgspec.to_builtins(job),
            identity=_identity(job, arm),
            folder=Path(job.state_dir),
            snapshots=job.request.snapshots,
        )
        if job.request.resume:
            trainer.restore()
        else:
            trainer.clear()
        budget = Budget.parse(job.budget)
        if budget != trainer.budget:
            trainer.extend(budget)
    return trainer


def _identity(job: Job, arm: Arm) -> dict[str, Any]:
    """What must agree for a checkpoint to go on in this run."""
    declared = arm.declared
    recipe = msgspec.json.encode(asdict(declared.recipe))
    return {
        "pair": job.pair,
        "arm": job.arm,
        "preset": job.request.preset,
        "variant": dict(declared.variant),
        "kernels": job.kernels,
        "recipe": hashlib.sha256(recipe).hexdigest(),
        "config": msgspec.json.encode(declared.config, order="deterministic").decode(),
        "dataset": arm.card.sha256,
        "fraction": job.fraction,
        "labels": job.labels,
        "split": job.split,
        "device": arm.device.type,
        "threads": job.threads,
    }

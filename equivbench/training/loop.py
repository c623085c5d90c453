"""The training loop of one arm under its budget, from top to bottom: slices of steps, one step,
what is measured on the way, and going on after a crash.

Training at a constant rate is the trunk of a run. Over the last fifth of the budget the rate falls
to zero, and the weights then are its result; before that, branches off the trunk are cooled down
to give the results of smaller budgets, measured and dropped (:mod:`equivbench.training.schedule`).

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
from equivbench.records.schema import NotMeasured, Rung, Test, TracePoint
from equivbench.request import Budget
from equivbench.tasks.splits import with_fraction
from equivbench.training.arm import Arm, build_arm, resolve_arm, use_precision
from equivbench.training.checkpoint import (
    CURRENT,
    TRUNK,
    Facts,
    Keeper,
    read_checkpoint,
    write_snapshot,
)
from equivbench.training.clock import SPENT, Clock, ClockPart, clock_of, energy_meter
from equivbench.training.data import Batches, seed_global
from equivbench.training.job import Job, Progress
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
from equivbench.training.schedule import (
    annealing,
    cooldown_begins,
    is_traced,
    next_traced,
    rung_budgets,
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

    ``rungs`` smaller budgets (a half of ``budget``, a quarter, ...) are measured on the way, and
    with ``traced`` the weights at fixed steps. ``clock`` is paused and runs while the arm has the
    machine. ``folder`` keeps checkpoints, heartbeat and, with
    ``snapshots``, the weights of every evaluation; ``identity`` must agree for a checkpoint there
    to belong to this run, and ``job`` is kept in it so that the model can be built again.
    """

    def __init__(
        self,
        arm: Arm,
        budget: Budget,
        *,
        rungs: int = 0,
        traced: bool = True,
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
        self.seed = seed
        self.clock = clock
        identity = {
            **identity,
            "budget": budget.text,
            "rungs": rungs,
            "seed": seed,
        }
        self.facts = Facts(
            identity=identity,
            job=dict(job),
            budget=budget.text,
            rungs_left=rung_budgets(budget, rungs),
        )
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
        self._rungs, self._traced = rungs, traced
        self._snapshots = snapshots
        self._watch = DivergenceWatch()
        self.machine = MachineMeter(threads)
        self._step_seconds = 0.0  # at the last reading
        self._rung: float | None = None
        """The smaller budget whose rung is being measured."""
        self._prepared = self._stopping = False
        self._reported = 0.0

    def train_slice(self, seconds: float, report: Report | None = None) -> None:
        """Train until ``seconds`` more of train + data are spent, the arm is finished, or
        :meth:`stop` was called. ``report`` gets :meth:`progress` about twice a second and after
        each evaluation.

        The rung of a smaller budget is measured as a whole; its seconds do not count here.
        """
        with self.running():
            self.prepare()
            end = self.clock.spent + seconds
            # What a stop or a crash came before.
            self._measure_due(report)
            while not self.finished and not self._stopping and self.clock.spent < end:
                self._step_seconds = self._advance(
                    self.clock, self.clock.spent, self.budget.limit, self._steps_to_next()
                )
                self.machine.saw_step(self._step_seconds)
                self.facts.diverged = self._watch.verdict(self.facts.step)
                if self.keeper is not None:
                    self.keeper.beat(self.facts, self.clock)
                self._measure_due(report)
                if self.keeper is not None and (
                    self.finished or self.keeper.due(self.budget, self.spent, self.clock)
                ):
                    self.save()
                self._report(report, now=self.finished)
        self._stopping = False

    def _advance(self, clock: Clock, seconds: float, limit: float, steps: int) -> float:
        """Make ``steps`` steps towards the end of a budget of ``limit``, then read ``clock``, which
        waits for the device. ``seconds`` of training were spent before. Returns the seconds a step,
        those in which the process was stalled included."""
        before = clock.trained_wall
        for done in range(steps):
            # The clock is not read in between: where it counts, steps last as long as before.
            spent = self._in_unit(seconds + done * self._step_seconds)
            self.step(clock, annealing(spent, limit))
        clock.synchronize()
        return (clock.trained_wall - before) / steps

    def step(self, clock: Clock, rate_factor: float = 1.0) -> None:
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
            set_rate(self.optimizer, rate_factor * rate)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.average.update(facts.step)
            self._watch.see(loss.detach(), norm)
        facts.step += 1
        facts.samples += recipe.batch_size

    def _steps_to_next(self) -> int:
        """Steps until something is due or the clock should be read."""
        limits = [*self.facts.rungs_left[:1], self.budget.limit]
        mark = min(cooldown_begins(limit) for limit in limits)
        steps = self._steps_until(self.budget.limit if self.spent >= mark else mark)
        if self._is_tracing:
            steps = min(steps, next_traced(self.facts.step) - self.facts.step)
        return steps

    def _steps_until(self, mark: float, seconds: float | None = None) -> int:
        """Steps until ``mark`` of a budget is spent, ``seconds`` of training being spent so far (by
        default those of the clock), or the clock should be read; at least one."""
        if not self.clock.is_asynchronous or self._step_seconds <= 0:
            return 1
        left = mark - self._in_unit(self.clock.spent if seconds is None else seconds)
        each = {
            "seconds": self._step_seconds,
            "steps": 1.0,
            "samples": float(self.arm.recipe.batch_size),
        }[self.budget.kind]
        reading = min(_READING_SECONDS / self._step_seconds, _MOST_STEPS)
        return max(1, math.ceil(min(left / each, round(reading))))

    # --- what is measured on the way

    def _measure_due(self, report: Report | None) -> None:
        """Measure all that is due after the step just made: traced weights, rungs, the trunk where
        the last cooldown begins, the result."""
        facts = self.facts
        if self.finished:
            return
        seen = facts.trace[-1].step if facts.trace else 0
        if self._is_tracing and seen < facts.step and is_traced(facts.step):
            self._trace()
            self._report(report, now=True)
        while facts.rungs_left and self.spent >= cooldown_begins(facts.rungs_left[0]):
            if self._stopping or self.finished:
                return
            self._measure_rung(facts.rungs_left[0], report)
        if self._stopping or self.finished:
            return
        if facts.cools_from is None and self.spent >= cooldown_begins(self.budget.limit):
            self._leave_trunk()
        if not self.finished and self.spent >= self.budget.limit:
            self._finish()

    def evaluate(self, *, part: bool = False, floor: bool = False) -> Measurement:
        """Measure the weights that the arm holds now, on the test set or the ``part`` of it that is
        read on the way."""
        evaluator = self.arm.part_evaluator if part else self.arm.evaluator
        return evaluator.evaluate(self.arm.module, floor=floor)

    def _measured(self, *, part: bool = False, floor: bool = False) -> Test | None:
        """The same as it is recorded, in clock part ``evaluate``; None, and the arm has diverged,
        if it is not finite. With ``floor`` the verdict on the symmetry is kept too."""
        facts = self.facts
        with self.clock.part("evaluate"):
            measurement = self.evaluate(part=part, floor=floor)
            facts.diverged = divergence_of(measurement, facts.step)
            if facts.diverged is not None:
                return None
            if floor:
                facts.verdict = measurement.verdict
            return measurement.to_record()

    @property
    def _is_tracing(self) -> bool:
        return self._traced and self.facts.cools_from is None

    def _trace(self) -> None:
        facts = self.facts
        spent = self.clock.spent
        raw = self._measured(part=True)
        with self.average.swapped_in():
            ema = self._measured(part=True) if raw is not None else None
        if raw is None or ema is None:
            return
        facts.trace.append(
            TracePoint(
                step=facts.step,
                samples=facts.samples,
                train_seconds=spent,
                test=raw,
                ema=ema,
            )
        )
        if self._snapshots and self.keeper is not None:
            with self.clock.part("checkpoint"):
                write_snapshot(self.keeper.folder, self.tensors(), facts)

    def _measure_rung(self, limit: float, report: Report | None) -> None:
        """Give the weights at hand the end that they have in a run with a budget of ``limit``,
        measure them, and go back. A stop on the way leaves the rung to be measured later."""
        trunk, spent_before = self.facts.step, self.clock.spent
        clock = self.clock.scratch()
        self._rung = limit
        with self.clock.part("rungs"), self.undone():
            diverged = None
            while diverged is None and not self._stopping:
                seconds = spent_before + clock.spent
                if self._in_unit(seconds) >= limit:
                    break
                with clock.running():
                    self._advance(clock, seconds, limit, self._steps_until(limit, seconds))
                diverged = self._watch.verdict(self.facts.step)
                if self.keeper is not None:
                    self.keeper.beat(self.facts, self.clock, step=trunk)
                self._report(report, now=False)
            if not self._stopping:
                self._keep_rung(limit, spent_before + clock.spent, diverged)
        self._rung = None
        self._report(report, now=True)

    def _keep_rung(self, limit: float, seconds: float, diverged: str | None) -> None:
        facts = self.facts
        if diverged is None:
            measurement = self.evaluate(part=True)
            diverged = divergence_of(measurement, facts.step)
        if diverged is not None:
            # A run with this budget would have ended here; so does this one.
            facts.diverged = f"the rung of {limit:g} {self.budget.kind}: {diverged}"
            return
        facts.rungs.append(self._rung_here(limit, seconds, measurement.to_record()))
        facts.rungs_left.remove(limit)

    def _rung_here(self, limit: float, seconds: float, test: Test) -> Rung:
        facts = self.facts
        return Rung(
            budget=limit,
            step=facts.step,
            samples=facts.samples,
            train_seconds=seconds,
            test=test,
        )

    def _leave_trunk(self) -> None:
        """Keep the trunk, from which an extension would go on, and measure it."""
        facts = self.facts
        if self._traced:
            if self.keeper is not None:
                self.save(TRUNK)
            raw = self._measured()
            with self.average.swapped_in():
                ema = self._measured() if raw is not None else None
            if raw is None or ema is None:
                return
            facts.final_raw, facts.final_ema = raw, ema
        facts.cools_from = facts.step

    def _finish(self) -> None:
        """Measure the result of the budget."""
        facts, seconds = self.facts, self.clock.spent
        on_part = self._measured(part=True) if self._traced else None
        final = self._measured(floor=True) if facts.diverged is None else None
        if final is None:
            return
        facts.final, facts.final_on_part = final, on_part
        facts.rungs.append(self._rung_here(self.budget.limit, seconds, final))

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
        return self._in_unit(self.clock.spent)

    def _in_unit(self, seconds: float) -> float:
        """What is spent in the budget's unit where ``seconds`` of training are."""
        counts = {"steps": float(self.facts.step), "samples": float(self.facts.samples)}
        return counts.get(self.budget.kind, seconds)

    def progress(self) -> Progress:
        """How far the run is."""
        facts, test = self.facts, self.facts.latest
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
            rung=self._rung,
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
        """Go on to a larger ``budget`` of the same kind, from where the last cooldown began if it
        has begun: the cooldown becomes a rung.

        Raises ``UsageError`` for a budget that is not larger, ``FailedError`` where what the run
        was at that point is not there any more.
        """
        if budget.kind != self.budget.kind or budget.limit <= self.budget.limit:
            raise UsageError(
                f"a run with a budget of {self.budget.text} cannot be extended to {budget.text}"
            )
        if self.facts.cools_from is not None:
            self._back_to_trunk()
        facts = self.facts
        facts.extends = facts.extends or self.budget.text
        facts.budget = budget.text
        # What would have branched off before here cannot be measured any more.
        further = {
            limit
            for limit in rung_budgets(budget, self._rungs)
            if cooldown_begins(limit) >= self.spent
        }
        measured = {rung.budget for rung in facts.rungs}
        facts.rungs_left = sorted({*facts.rungs_left, self.budget.limit, *further} - measured)
        self.budget = budget

    def _back_to_trunk(self) -> None:
        if self.keeper is None:
            raise FailedError("this run keeps no checkpoints, so it cannot be extended")
        now, trunk = self.facts, read_checkpoint(self.keeper.folder / TRUNK)
        put_back(self.tensors(), trunk.tensors)
        cooled = {part: self.clock.seconds()[part] - trunk.facts.clock[part] for part in SPENT}
        for part, seconds in cooled.items():
            self.clock.charge(part, -seconds)
            self.clock.charge("rungs", seconds)
        rungs = now.rungs
        if now.final_on_part is not None:
            rungs = [*rungs[:-1], msgspec.structs.replace(rungs[-1], test=now.final_on_part)]
        self.facts = msgspec.structs.replace(
            now,
            step=trunk.facts.step,
            samples=trunk.facts.samples,
            rungs=rungs,
            **dict.fromkeys(
                ("cools_from", "final", "final_on_part", "final_raw", "final_ema", "verdict")
            ),
        )
        self.keeper.saved(self.spent, self.clock)

    def time_block(self, seconds: float) -> StepTimes:
        """Time one block of at least one real step, about ``seconds`` long, in clock part
        ``timing``; the steps are undone. The clock is read as often as while training."""
        readings: list[float] = []
        steps, clock = 0, self.clock.scratch()
        with self.running():
            self.prepare()
            with self.clock.part("timing"), self.undone(), clock.running():
                while not readings or clock.spent < seconds:
                    count, before = self._steps_until(math.inf), clock.spent
                    for _ in range(count):
                        self.step(clock)
                    clock.synchronize()
                    readings.append((clock.spent - before) / count)
                    steps += count
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

    def save(self, name: str = CURRENT) -> Path:
        """Write the checkpoint ``name`` in the run's folder, keeping the current one before;
        returns its path."""
        if self.keeper is None:
            raise FailedError("this run keeps no checkpoints: it was given no folder for its state")
        with self.running():
            joules = self.energy.joules
            self.facts.joules = None if isinstance(joules, NotMeasured) else joules
            self.facts.machine = self.machine.facts
            return self.keeper.save(self.tensors(), self.facts, self.clock, self.spent, name)

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
        tried, rungs = job.split == "validation", job.request.rungs
        trainer = Trainer(
            arm,
            Budget.parse(job.extends or job.budget),
            # A trial of a tuning is judged at its end alone.
            rungs=0 if tried else declared.pair_preset.rungs if rungs is None else rungs,
            traced=not tried,
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

"""The training of one arm under its budget: slices of steps in turn with the other arm, going on
after a crash, and going on to a larger budget.

Training at a constant rate is the trunk of a run. Over the last fifth of the budget the rate falls
to zero, and the weights then are its result; before that, branches off the trunk are cooled down
to give the results of smaller budgets, measured and dropped (:mod:`equivbench.schedule`,
:mod:`equivbench.training.measuring`).

The clock runs only inside the methods of :class:`Trainer`; the time between two calls belongs to
the other arm. Everything that a run is at a step is in :meth:`Trainer.tensors` and
:attr:`Trainer.facts`.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from equivbench.budget import Budget
from equivbench.errors import FailedError, UsageError
from equivbench.kernels import build_time
from equivbench.ranks import Ranks
from equivbench.records.disturbed import busy
from equivbench.records.schema import NotMeasured, TracePoint
from equivbench.schedule import cooldown_begins, rung_budgets
from equivbench.training.acts import Compile
from equivbench.training.arm import Arm
from equivbench.training.checkpoint import CURRENT, TRUNK, Facts, Keeper, read_checkpoint
from equivbench.training.clock import SPENT, Clock, ClockPart, energy_meter
from equivbench.training.job import Progress
from equivbench.training.machine_share import MachineMeter
from equivbench.training.measuring import Measuring
from equivbench.training.memory import MemoryMeter, is_out_of_memory
from equivbench.training.optim import put_back
from equivbench.training.steps import Steps

Report = Callable[[Progress], None]

_REPORT_SECONDS = 0.5


class StepTimes(NamedTuple):
    """One block of steps timed in alternation with the other arms."""

    seconds: float
    """Seconds a step (data + train) over the whole block."""
    readings: list[float]
    """Seconds a step between two readings of the clock: on a CPU of each single step."""
    alone: float | None = None
    """Seconds of the same step on the first device alone, where there are several; None for one
    device, and where the whole batch does not fit there."""


class Trainer(Steps):
    """Trains one arm with one seed, of which everything random follows.

    ``rungs`` smaller budgets (a half of ``budget``, a quarter, ...) are measured on the way, and
    with ``traced`` the weights at fixed steps. ``clock`` is paused and runs while the arm has the
    machine. ``folder`` keeps checkpoints, heartbeat and, with ``snapshots``, the weights of every
    evaluation; ``identity`` must agree for a checkpoint there
    to belong to this run, and ``job`` is kept in it so that the model can be built again.
    ``ranks``, of which this is the first, train the arm together; ``clock`` then counts the seconds
    of all their devices (:func:`equivbench.training.clock.clock_of`).
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
        ranks: Ranks | None = None,
    ) -> None:
        identity = {
            **identity,
            "budget": budget.text,
            "rungs": rungs,
            "seed": seed,
        }
        facts = Facts(
            identity=identity,
            job=dict(job),
            budget=budget.text,
            rungs_left=rung_budgets(budget, rungs),
        )
        super().__init__(arm, budget, seed, clock, facts, ranks)
        self.notes: list[str] = []
        """Lines for the user: no C++ compiler, a checkpoint that could not be read."""
        self.compiled: str | NotMeasured = NotMeasured("the recipe trains eagerly")
        """How the model was compiled, as the record has it, or why it was not."""
        self.energy = energy_meter(arm.device, () if ranks is None else ranks.devices[1:])
        if arm.device.type == "cuda" and isinstance(self.energy.joules, NotMeasured):
            self.notes.append(f"no energy is measured: {self.energy.joules.reason}")
        self.machine = MachineMeter(threads)
        self.memory = MemoryMeter(arm.device)
        self.keeper = Keeper(folder, identity) if folder is not None else None
        self.measuring = Measuring(
            self,
            traced=traced,
            keeper=self.keeper,
            keep_trunk=self._keep_trunk,
            snapshots=snapshots,
        )
        self._rungs = rungs
        self._prepared = False
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
            tell = functools.partial(self._report, report)
            self.measuring.measure_due(tell)
            while not self.finished and not self.stopping and self.clock.spent < end:
                with self.memory.training():
                    self.step_seconds = self.advance(
                        self.clock,
                        self.clock.spent,
                        self.budget.limit,
                        self.measuring.steps_to_next(),
                    )
                self.machine.saw_step(self.step_seconds)
                self.facts.diverged = self.watch.verdict(self.facts.step)
                if self.keeper is not None:
                    self.keeper.beat(self.facts, self.clock)
                self.measuring.measure_due(tell)
                if self.keeper is not None and (
                    self.finished or self.keeper.due(self.budget, self.spent, self.clock)
                ):
                    self.save()
                tell(self.finished)
        self.stopping = False

    def prepare(self) -> None:
        """Compile whatever the arm compiles, once: the model by torch, with its gradients checked
        (part ``other``), and by a step that is undone what compiles itself at its first call (our
        kernels, a library's). Raises ``FailedError`` where the gradients disagree."""
        with self.running():
            if not self._prepared:
                self._prepared = True
                self.copy_state()
                self.tell(Compile())
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
                    self.meet()
                    self.step(self.clock.scratch())
                    self.meet()
                with self.clock.part("evaluate"):
                    self.arm.part_evaluator.check(self.arm.module)
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
        self.stopping = True

    # --- where the run stands

    @property
    def diverged(self) -> str | None:
        """Why the arm diverged (NaN or inf in loss, gradient norm or evaluation), else None."""
        return self.facts.diverged

    @property
    def trace(self) -> list[TracePoint]:
        """The evaluations so far."""
        return self.facts.trace

    def progress(self) -> Progress:
        """How far the run is."""
        facts, test = self.facts, self.facts.latest
        spent, seconds = self.spent, self.clock.spent / self.devices
        fraction = spent / self.budget.limit
        return Progress(
            step=facts.step,
            spent=spent,
            limit=self.budget.limit,
            finished=facts.finished,
            samples=facts.samples,
            diverged=facts.diverged,
            loss=self.watch.recent,
            total=None if test is None else test.total,
            share=None if test is None else test.share,
            explained=None if test is None else test.explained,
            rung=self.measuring.rung,
            busy=self._busy() if facts.finished else None,
            samples_per_second=facts.samples / seconds if facts.samples and seconds > 0 else None,
            seconds_left=max(0.0, seconds / fraction - seconds) if fraction > 0 else None,
            wall=self.clock.wall / self.devices,
        )

    def _busy(self) -> str | None:
        """What kept the run from its machine."""
        clock = self.clock.seconds()
        share = self.machine.share(clock["stalled"])
        if isinstance(share, NotMeasured):
            return None
        return busy(
            share,
            trained=self.clock.spent,
            wall=self.clock.wall,
            cpu_threads=self.machine.threads if self.arm.device.type == "cpu" else None,
        )

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """The clock and the meters run inside the block (blocks may nest)."""
        if self.clock.is_running:
            yield
            return
        with self.machine.metered(), self.clock.running(), self.energy.metered(self.clock):
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
        self.copy_state()
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
                    count, before = self.steps_until(math.inf), clock.spent
                    for _ in range(count):
                        self.step(clock)
                    self.await_devices(clock)
                    readings.append((clock.spent - before) / count)
                    steps += count
                spent = clock.spent
                alone = None if self.ranks is None else self._time_alone(seconds)
                return StepTimes(spent / steps, readings, alone)

    def _time_alone(self, seconds: float) -> float | None:
        """Seconds a step that this device makes alone, the others waiting, over about ``seconds``;
        None where the whole batch does not fit."""
        clock, steps = self.clock.scratch(), 0
        try:
            with self.alone(), clock.running():
                # This device has not held the whole batch before: the first step gets its memory.
                self.step(clock)
                clock.synchronize()
                begun = clock.spent
                while not steps or clock.spent < begun + seconds:
                    self.step(clock)
                    clock.synchronize()
                    steps += 1
        except RuntimeError as error:
            if is_out_of_memory(error):
                return None
            raise
        # The clock counts the seconds of all devices, of which one is at work.
        return (clock.spent - begun) / steps / self.devices

    # --- the state of the run, kept and put back

    def save(self, name: str = CURRENT) -> Path:
        """Write the checkpoint ``name`` in the run's folder, keeping the current one before;
        returns its path."""
        if self.keeper is None:
            raise FailedError("this run keeps no checkpoints: it was given no folder for its state")
        with self.running():
            joules = self.energy.joules
            self.facts.joules = None if isinstance(joules, NotMeasured) else joules
            self.facts.machine = self.machine.facts
            self.facts.peak_memory = self.memory.counted
            return self.keeper.save(self.tensors(), self.facts, self.clock, self.spent, name)

    def _keep_trunk(self) -> None:
        if self.keeper is not None:
            self.save(TRUNK)

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
            self.memory.restore(facts.peak_memory)
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

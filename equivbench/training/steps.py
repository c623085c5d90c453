"""The steps of a run: what is trained, one step of it, several between two readings of the clock,
and steps that are undone.

Nothing is measured or kept here: see :mod:`equivbench.training.measuring` and
:mod:`equivbench.training.loop`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

from torch import Tensor

from equivbench.budget import Budget
from equivbench.errors import FailedError
from equivbench.measure.calls import fingerprints
from equivbench.ranks import Ranks
from equivbench.schedule import annealing
from equivbench.tasks.base import Batch
from equivbench.training.acts import (
    Act,
    CopyState,
    ExchangeAverage,
    HandInPrints,
    MakeStep,
    MarkState,
    Meet,
    UndoSteps,
)
from equivbench.training.ahead import BatchesAhead
from equivbench.training.arm import Arm, use_precision
from equivbench.training.checkpoint import Facts
from equivbench.training.clock import Clock
from equivbench.training.data import Batches, seed_global
from equivbench.training.optim import (
    Average,
    DivergenceWatch,
    build_optimizer,
    clip_gradients,
    copied,
    learning_rate,
    live_tensors,
    put_back,
    set_rate,
)
from equivbench.training.shards import SharedSteps
from equivbench.training.symmetry_loss import symmetry_loss_of

READING_SECONDS = 0.2
"""About how long an asynchronous device is left alone between two readings of the clock, each of
which waits for it. The budget is overshot by at most one such interval and one step."""
_MOST_STEPS = 1000


class Steps:
    """The live state of one arm under ``budget``, and the steps that move it.

    Everything random follows from ``seed``. ``clock`` runs while the arm has the machine. Beside
    :meth:`tensors`, ``facts`` are all that the run is at a step. ``ranks``: those that train the
    arm together, None for one device alone; what the first of them does here the others are told to
    do too (:mod:`equivbench.training.follower`).
    """

    def __init__(
        self,
        arm: Arm,
        budget: Budget,
        seed: int,
        clock: Clock,
        facts: Facts,
        ranks: Ranks | None = None,
    ) -> None:
        self.arm = arm
        self.budget = budget
        self.seed = seed
        self.clock = clock
        self.facts = facts
        use_precision(arm.recipe.precision)
        reads = BatchesAhead if clock.is_asynchronous else Batches
        about = (arm.task, arm.split, arm.recipe, arm.requires, seed, arm.device)
        self.batches = reads(*about)
        self.optimizer = build_optimizer(arm.model, arm.recipe)
        self.average = Average(arm.model, arm.recipe.ema)
        self._parameters = list(arm.model.parameters())
        self.ranks = ranks
        self._shared: SharedSteps | None = None
        if ranks is not None:
            own, ahead = Batches(*about), clock.is_asynchronous
            self._shared = SharedSteps(arm, own, ranks, ahead=ahead)
        self._symmetry_loss = symmetry_loss_of(arm, seed)
        self.watch = DivergenceWatch()
        self.step_seconds = 0.0
        """Of a step at the last reading of the clock."""
        self.stopping = False
        """The slice under way is to end after the step at hand."""

    def tensors(self) -> dict[str, Tensor]:
        """The live tensors that, with ``facts``, are the whole state of the run."""
        return live_tensors(self.arm.model, self.average, self.optimizer)

    @property
    def devices(self) -> int:
        """How many devices the arm is trained on."""
        return 1 if self.ranks is None else self.ranks.count

    def tell(self, act: Act) -> None:
        """Have the other ranks do ``act``, if there are any."""
        if self.ranks is not None:
            self.ranks.tell(act)

    @property
    def finished(self) -> bool:
        """The budget is spent and the last evaluation made, or the arm diverged."""
        return self.facts.finished

    @property
    def spent(self) -> float:
        """What is spent of the budget, in its own unit."""
        return self.in_unit(self.clock.spent)

    def in_unit(self, seconds: float) -> float:
        """What is spent in the budget's unit where ``seconds`` of training are."""
        counts = {"steps": float(self.facts.step), "samples": float(self.facts.samples)}
        return counts.get(self.budget.kind, seconds)

    def step(self, clock: Clock, rate_factor: float = 1.0) -> None:
        """One training step, charged to ``clock``'s parts ``data`` and ``train``."""
        arm, recipe, facts, shared = self.arm, self.arm.recipe, self.facts, self._shared
        symmetry = self._symmetry_loss
        with clock.part("data", synchronize=False):
            at = facts.samples, recipe.batch_size
            penalised = None if symmetry is None else symmetry.at(*at)
            if shared is None:
                inputs, targets = self.batches.at(*at)
                samples = slice(None)
            else:
                self.tell(MakeStep(facts.step, facts.samples, rate_factor))
                shard = shared.shard_at(*at)
                inputs, targets = shard.own
                samples = shard.rows["graph"]
        with clock.part("train", synchronize=False):
            # Before what the device is given to do, so that this could be recorded and replayed.
            stream = () if shared is None else shared.stream
            seed_global(self.seed, "dropout", facts.step, *stream, device=arm.device)
            with arm.autocast():
                if self.batches.feeds_back(facts.samples):
                    inputs = arm.with_feedback(inputs, targets)
                outputs = arm.outputs(inputs, targets)
                second: Batch = {}
                if penalised is not None:
                    second = penalised.outputs(inputs, targets, samples)
                if shared is not None:
                    outputs = shared.shards.outputs(shard, outputs)
                    if second:
                        second = shared.shards.outputs(shard, second)
                    inputs, targets = shard.whole
                loss = arm.task.objective(outputs, targets, inputs)
                if penalised is not None:
                    loss = loss + penalised.penalty(outputs, second, inputs, targets)
            loss.backward()  # type: ignore[no-untyped-call]
            if shared is not None:
                shared.gradients.add_up()
            norm = clip_gradients(self._parameters, recipe.clip_norm)
            rate = learning_rate(facts.step, recipe.learning_rate, recipe.warmup_steps)
            set_rate(self.optimizer, rate_factor * rate)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.average.update(facts.step)
            self.watch.see(loss.detach(), norm)
        facts.step += 1
        facts.samples += recipe.batch_size

    def advance(self, clock: Clock, seconds: float, limit: float, steps: int) -> float:
        """Make ``steps`` steps towards the end of a budget of ``limit``, then read ``clock``, which
        waits for the device. ``seconds`` of training were spent before. Returns the seconds a step,
        those in which the process was stalled included."""
        before = clock.trained_wall
        for done in range(steps):
            # The clock is not read in between: where it counts, steps last as long as before.
            spent = self.in_unit(seconds + done * self.step_seconds)
            self.step(clock, annealing(spent, limit))
        self.await_devices(clock)
        return (clock.trained_wall - before) / steps

    def await_devices(self, clock: Clock) -> None:
        """Wait until this device, and those of the other ranks, have done what was asked of them:
        what ``clock`` counts of steps is the time of the slowest rank."""
        if self.ranks is not None:
            with clock.part("train", synchronize=False):
                self.meet()
        clock.synchronize()

    def meet(self) -> None:
        """Wait for the other ranks, if there are any."""
        if self.ranks is not None:
            self.ranks.tell(Meet())
            self.ranks.meet()

    def copy_state(self) -> None:
        """Give the other ranks, if there are any, the tensors of the first."""
        if self.ranks is not None:
            self.ranks.tell(CopyState())
            self.ranks.copy_first(self.tensors())

    def compare_ranks(self) -> None:
        """Raises ``FailedError`` where the tensors of another rank are not those of this one, the
        first, to the bit."""
        if self.ranks is None:
            return
        self.ranks.tell(HandInPrints())
        first, *others = self.ranks.gathered(fingerprints(self.tensors()))
        for number, found in enumerate(others, 1):
            unlike = sorted(name for name, value in first.items() if found.get(name) != value)
            if unlike:
                raise FailedError(
                    f"after {self.facts.step} steps {len(unlike)} tensors of rank {number}, such "
                    f"as {unlike[0]}, are no longer those of rank 0: the network keeps what it saw "
                    "of its batches, or a device is broken; train it on one device"
                )

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """The model holds the averaged weights inside the block."""
        self.tell(ExchangeAverage())
        with self.average.swapped_in():
            yield
        self.tell(ExchangeAverage())

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Steps inside the block are made on this device alone, whatever ranks there are; the
        others know nothing of them, so they must be undone."""
        shared, self._shared = self._shared, None
        try:
            yield
        finally:
            self._shared = shared

    def steps_until(self, mark: float, seconds: float | None = None) -> int:
        """Steps until ``mark`` of a budget is spent, ``seconds`` of training being spent so far (by
        default those of the clock), or the clock should be read; at least one."""
        if not self.clock.is_asynchronous or self.step_seconds <= 0:
            return 1
        left = mark - self.in_unit(self.clock.spent if seconds is None else seconds)
        each = {
            "seconds": self.step_seconds,
            "steps": 1.0,
            "samples": float(self.arm.recipe.batch_size),
        }[self.budget.kind]
        reading = min(READING_SECONDS / self.step_seconds, _MOST_STEPS)
        return max(1, math.ceil(min(left / each, round(reading))))

    @contextlib.contextmanager
    def undone(self) -> Iterator[None]:
        """The steps made inside the block are those that would come next; afterwards weights,
        averages, moments and counters are what they were, to the bit."""
        self.tell(MarkState())
        live = self.tensors()
        saved = copied(live)
        step, samples = self.facts.step, self.facts.samples
        yield
        self.tell(UndoSteps())
        put_back(live, saved)
        self.facts.step, self.facts.samples = step, samples
        self.watch.forget()

"""What a run record must say because it was asked for: seed, budget, rungs, device and name of the
run follow from its command, the steps of its evaluations from its budget."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache

from equivbench.axes import SweepRequest
from equivbench.budget import Budget
from equivbench.errors import UsageError
from equivbench.records.declared import PRECISION, SWEEP, Declaration, declaration_of
from equivbench.records.disturbed import SLOW_STEP, longest_step, slowness
from equivbench.records.evaluations import evaluations
from equivbench.records.schema import RunRecord
from equivbench.request import DEFAULT_KERNELS, MOST_RUNGS, QUICK_START_PAIR, RunRequest
from equivbench.schedule import COOLDOWN, cooldown_begins, is_traced, next_traced, rung_budgets

MOST_OVERSHOOT = 0.5
"""Part of a budget in seconds by which its end may be late in a run of even pace: one long step. A
longer one makes the pace uneven, which is marked (:mod:`equivbench.records.disturbed`) and not
refused."""
MOST_LOST = 0.9
"""Part of the time of the cooldowns of rungs that long steps may have kept them from."""
TIMED_APART = 2.0
"""Steps of a run may be this many times as fast as those timed afterwards: at most 1.4 times in 60
records of two shared cores."""
CONTEST_NAME = re.compile(r"([0-9]{8}T[0-9]{6}Z)-[0-9a-f]{8}")
"""When a contest began, and what tells it from others of the same second."""
_NUMBERED = re.compile(r"(-[1-9][0-9]*)?")
_STAMP = "%Y%m%dT%H%M%SZ"


def request_of(record: RunRecord) -> RunRequest:
    """What the command of ``record`` asks for; raises ``UsageError`` for a command that asks for no
    run."""
    return _request_of(record.command)


@lru_cache(maxsize=1 << 12)
def _request_of(command: str) -> RunRequest:
    """The records of a pair share their command."""
    sweep = SweepRequest.program[-1] in command.split()[:3]
    return (SweepRequest if sweep else RunRequest).of_command(command)


def refusals(record: RunRecord) -> Iterator[str]:
    """The record is of the run that its command asks for, at the steps that its budget says."""
    try:
        declared = declaration_of(record)
    except UsageError:
        return  # said by the rules of what is declared
    if declared is None:
        return
    try:
        request = request_of(record)
        asked = Budget.parse(request.budget or declared.preset.budget)
        longest = None if request.extend is None else asked.times(request.extend).limit
        seeds = request.chosen_seeds
        rungs = declared.preset.rungs if request.rungs is None else request.rungs
        if not 0 <= rungs <= MOST_RUNGS:
            raise UsageError(f"{rungs} rungs are more than the {MOST_RUNGS} that there can be")
    except UsageError as error:
        yield f"command asks for no run: {error}"
        return
    yield from _asked(record, declared, request, seeds)
    yield from _budget(record, asked, longest)
    yield from _run_id(record, request, asked)
    yield from _contest(record)
    yield from _rungs(record, asked, rungs)
    yield from _trace(record)
    yield from _one_course(record)
    yield from _off_budget(record)


def _asked(
    record: RunRecord, declared: Declaration, request: RunRequest, seeds: tuple[int, ...]
) -> Iterator[str]:
    """Pair, arm, seed, preset, device, threads, backend, options and sweep are those asked for."""
    pairs = request.pairs or (QUICK_START_PAIR,)
    arms = request.arms or tuple(arm.name for arm in declared.pair.contestants)
    own = declared.pair.presets[record.preset]
    device = record.environment.device
    named = request.device if not request.devices else request.devices[0]
    on_device = named == "auto" or named.startswith("cpu") == (device == "cpu")
    asks: dict[str, tuple[bool, object]] = {
        "pair": (declared.pair.key in pairs, declared.pair.key),
        "arm": (record.arm in arms, record.arm),
        "seed": (record.seed in seeds, record.seed),
        "preset": (record.preset == request.preset, record.preset),
        "dataset": (
            record.dataset.name == (request.dataset or own.dataset),
            record.dataset.name,
        ),
        "device": (on_device, device),
        "devices": (_on_those_asked(record.devices, request), ", ".join(record.devices)),
        "devices_per_arm": (
            record.devices_per_arm == request.devices_per_arm,
            record.devices_per_arm,
        ),
        "beside": (
            record.beside < max(1, len(request.devices or ()) // max(1, request.devices_per_arm)),
            record.beside,
        ),
        "threads": (
            request.threads in (None, record.environment.threads),
            record.environment.threads,
        ),
        "kernels": (
            not declared.model.kernels
            or record.model.kernels == (request.kernels or DEFAULT_KERNELS),
            record.model.kernels,
        ),
    }
    for name, values in (declared.task.options if declared.task else {}).items():
        chosen = request.variant.get(name, values[0])
        asks[f"variant.{name}"] = (record.variant.get(name) == chosen, record.variant.get(name))
    own_precision = declared.arm.presets[record.preset].recipe.precision
    other = None if request.precision == own_precision else request.precision
    asks["precision"] = (record.variant.get(PRECISION) == other, record.recipe.precision)
    label, value = (record.variant.get(name) for name in SWEEP)
    over: str | None = None
    points: tuple[str | None, ...] = (None,)
    if isinstance(request, SweepRequest):
        over, points = request.over, request.values
    asks["sweep"] = (label == over and value in points, f"{label} {value}")
    for name, (is_asked, found) in asks.items():
        if not is_asked:
            yield f"{name} {found} is not what the command asks for"
    others = set((record.throughput.alternated_with or "").split(", ")) - {""}
    if not others <= set(arms) - {record.arm}:
        yield (
            f"throughput.alternated_with is {record.throughput.alternated_with!r}, not other arms "
            "that the command asks for"
        )


def _on_those_asked(devices: list[str], request: RunRequest) -> bool:
    """Whether the ``devices`` of a record are among those that its command names."""
    if request.devices:
        return set(devices) <= set(request.devices)
    named = request.device
    return ":" not in named or set(devices) <= {named}


def _budget(record: RunRecord, asked: Budget, longest: float | None) -> Iterator[str]:
    """The budget is the one asked for, or its extension, overshot by a step at most."""
    budget = record.budget
    base = budget.limit if budget.extends is None else budget.extends
    if (budget.kind, base) != (asked.kind, asked.limit):
        yield f"the budget is {base:g} {budget.kind}, the command asks for {asked.text}"
        return
    if budget.extends is not None and longest != budget.limit:
        yield (
            f"the run goes on from {base:g} to {budget.limit:g} {budget.kind}, the command "
            f"{'does not extend it' if longest is None else f'to {longest:g}'}"
        )
    if record.status == "completed" and budget.overshoot > _allowed(record):
        yield f"budget.overshoot is {budget.overshoot:g} {budget.kind}, longer than any step"


def _allowed(record: RunRecord) -> float:
    """By how much the end of a budget, or of a rung, may be late, in its own unit."""
    if record.budget.kind != "seconds":
        return longest_step(record)
    # Of a run that was slow for a part of its time a step may take long, but what took twice its
    # budget is no result of it.
    most = 1.0 if slowness(record) else MOST_OVERSHOOT
    return longest_step(record) + most * record.budget.limit


def _run_id(record: RunRecord, request: RunRequest, asked: Budget) -> Iterator[str]:
    """The run is named by its preset, budget, seed, options and time."""
    created = _created(record)
    if created is None:
        return
    kernels = [] if request.kernels in (None, DEFAULT_KERNELS) else [str(request.kernels)]
    point = [record.variant[name].replace(":", "-") for name in SWEEP if name in record.variant]
    words = [record.preset, asked.text, f"seed{record.seed}", *request.variant.values()]
    words += [each for each in (request.dataset, request.precision) if each is not None]
    words += [*kernels, *point, f"{created:{_STAMP}}"]
    # Two contests of one second, begun in two places, are told apart by it. Runs of before there
    # were plans have none.
    token = (record.contest or "").rpartition("-")[2]
    if record.unit is not None or (token and token in record.run_id.split("-")):
        words.append(token)
    if record.budget.extends is not None:
        try:
            words += ["extended", Budget(record.budget.kind, record.budget.limit).text]
        except UsageError as error:
            yield f"budget.limit: {error}"
            return
    name = "-".join(words)
    # A second run of the same second has its number at the end.
    begun, end = record.run_id[: len(name)], record.run_id[len(name) :]
    if begun != name or not _NUMBERED.fullmatch(end):
        yield f"run_id is {record.run_id!r}, a run as it is described has {name!r}"


def _contest(record: RunRecord) -> Iterator[str]:
    """A contest is named by the time at which it began."""
    if record.contest is None:
        if record.throughput.alternated_with is not None:
            yield "contest is null, but the arm took turns with another"
        return
    began, created = _began(record), _created(record)
    if began is None:
        yield f"contest {record.contest!r} is no name of a contest"
    elif created is not None and began < created:
        yield f"contest {record.contest!r} began before the run was created, {record.created}"


def _rungs(record: RunRecord, asked: Budget, rungs: int) -> Iterator[str]:
    """Rungs are a half, a quarter, ... of the budget, as many as were asked for, and no longer than
    they had to be."""
    budget = record.budget
    found = [rung.budget for rung in record.rungs]
    expected = [*rung_budgets(asked, rungs), asked.limit]
    if budget.extends is not None:
        # What lies beyond the first budget depends on the extensions that came between.
        found = [limit for limit in found if limit <= asked.limit]
    # A run that did not come to its end has the first of them.
    if found != (expected if record.final is not None else expected[: len(found)]):
        yield (
            f"rungs are of {_listed(found)} {budget.kind}, the command asks for {_listed(expected)}"
        )
    if budget.kind == "seconds" and not slowness(record):
        # Each branch cools down over the last fifth of its budget, less the step that began it.
        slack = longest_step(record)
        cooled = sum(max(0.0, COOLDOWN * rung.budget - slack) for rung in record.rungs[:-1])
        if record.clock.rungs < (1 - MOST_LOST) * cooled:
            yield (
                f"clock.rungs is {record.clock.rungs:g} s, "
                f"the cooldowns of its rungs take {cooled:g} s"
            )
    for rung in record.rungs:
        if budget.kind == "seconds":
            over = rung.train_seconds - rung.budget
        else:
            over = (rung.step if budget.kind == "steps" else rung.samples) - rung.budget
        if over > _allowed(record):
            yield f"rung of {rung.budget:g} {budget.kind}: {over:g} more are spent than any step"


def _trace(record: RunRecord) -> Iterator[str]:
    """Traced steps are 1, 2, 5, 10, 20, 50, ..., all of them, until the last cooldown begins."""
    following = next_traced(0)
    for point in record.trace:
        if point.step != following:
            yield (
                f"the trace has a point at step {point.step}, "
                f"{'and lacks one before it' if is_traced(point.step) else 'where none is due'}"
            )
            return
        following = next_traced(following)
    if record.status != "completed":
        return
    budget, cools = record.budget, cooldown_begins(record.budget.limit)
    if budget.kind == "seconds":
        last = _steps_before(record, cools)
    else:
        per_step = 1 if budget.kind == "steps" else max(1, record.recipe.batch_size)
        last = math.ceil(round(cools / per_step, 9))
        if record.trace and record.trace[-1].step > last:
            yield f"the trace ends after step {last}, where the last cooldown begins"
    if following <= last:
        yield f"the trace lacks step {following}, which the run made before its last cooldown"


def _steps_before(record: RunRecord, cools: float) -> int:
    """Steps that a run with a budget in seconds made for certain before its cooldown began, after
    ``cools`` seconds.

    How many it makes is no part of its budget: where all before the cooldown was slow they may be
    a few of thousands. In the cooldown it makes no more than the time allows at its fastest step.
    """
    steps, timing = record.steps, record.throughput.step_seconds
    fastest = 0.0 if timing is None else timing.p10 / TIMED_APART
    if fastest <= 0 or slowness(record):
        return 0
    cooled = record.clock.train + record.clock.data - cools
    return math.floor(min(steps / 2, steps - cooled / fastest))


def _one_course(record: RunRecord) -> Iterator[str]:
    """Trace and rungs tell one course: of a budget in seconds a branch leaves it after four fifths
    of its own, no later than at its last step."""
    if record.budget.kind != "seconds":
        return
    for rung in record.rungs:
        for point in record.trace:
            if point.step > rung.step and point.train_seconds < cooldown_begins(rung.budget):
                yield (
                    f"the trace is at step {point.step} after {point.train_seconds:g} s, the rung "
                    f"of {rung.budget:g} s ends at step {rung.step}"
                )
                return
            # The steps of a branch's last fifth are no more than those of the trunk meanwhile.
            late = point.train_seconds > rung.train_seconds
            if late and SLOW_STEP * point.step < rung.step and not slowness(record):
                yield (
                    f"the trace is at step {point.step} only after {point.train_seconds:g} s, the "
                    f"rung of {rung.budget:g} s at step {rung.step}"
                )
                return


def _off_budget(record: RunRecord) -> Iterator[str]:
    """What was measured off the budget took time off the budget."""
    clock, rate = record.clock, record.inference.samples_per_second
    blocks = sum(record.throughput.blocks)
    # A block holds at least one step; half of it may be lost between two readings.
    if clock.timing < blocks / 2:
        yield f"clock.timing is {clock.timing:g} s, the timed blocks took {blocks:g} s at least"
    passes = sum(test.samples * test.rotations for _, test in evaluations(record))
    least = passes / (SLOW_STEP * rate) if rate else 0.0
    if passes and clock.evaluate <= least and not (clock.evaluate > 0 and slowness(record)):
        yield (
            f"clock.evaluate is {clock.evaluate:g} s, the evaluations made {passes} passes over a "
            "sample"
        )
    if record.status == "completed" and clock.checkpoint <= 0:
        yield "clock.checkpoint is zero, but a run that completes is saved"


def backdated(record: RunRecord) -> Iterator[str]:
    """A run that was never resumed began with its contest."""
    began = _began(record)
    created = _created(record)
    if began and created and began > created and not record.restarts:
        yield f"created {record.created!r} lies before its contest {record.contest!r}"


def _created(record: RunRecord) -> datetime | None:
    try:
        time = datetime.fromisoformat(record.created)
    except ValueError:
        return None  # said by another rule
    return time.replace(microsecond=0) if time.tzinfo is not None else None


def _began(record: RunRecord) -> datetime | None:
    found = CONTEST_NAME.fullmatch(record.contest or "")
    if found is None:
        return None
    try:
        return datetime.fromisoformat(found[1])
    except ValueError:
        return None


def _listed(limits: list[float]) -> str:
    return ", ".join(f"{limit:g}" for limit in limits) or "nothing"

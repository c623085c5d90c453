"""Rules of validation: what a rule is, and those that a run record does not contradict itself, what
its types cannot say and a reader takes for granted.

A rule says one thing that is always true of an honest record, such as "the clock's parts add up to
its wall time". To add one, write a function that yields a sentence for each way in which a record
breaks it, and put it into the table of its kind: ``CONSISTENCY``, ``PLAUSIBILITY`` or ``UNUSUAL``
for run records, ``KERNEL_RULES`` for kernel samples, the table of a study for the lines that it
writes.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, TypeVar

import msgspec

from equivbench.errors import UsageError
from equivbench.records.files import NUMBERS, strange_letter
from equivbench.records.metrics import METRICS
from equivbench.records.schema import RunRecord, Test, TestPart
from equivbench.records.store import record_path

LARGEST = 1e30
"""Beyond it a number measures nothing here; sums and products of such numbers still are finite."""

T = TypeVar("T")
Rule = Callable[[T], Iterable[str]]
"""A sentence for each way in which a record breaks the rule that its docstring states."""


def broken_rules(record: object, rules: Iterable[Rule[Any]]) -> list[str]:
    """The sentences of all ``rules`` that ``record`` breaks.

    A record with a number beyond :data:`LARGEST` is not looked at any further: the other rules
    could not be computed.
    """
    beyond = too_large(msgspec.to_builtins(record))
    if beyond is not None:
        return [beyond]
    return [sentence for rule in rules for sentence in rule(record)]


def too_large(plain: Any) -> str | None:
    """A sentence on the first number of ``plain`` (dicts and lists) beyond ``LARGEST``, or None."""
    for path, item in leaves(plain):
        numbers = item if isinstance(item, list) else [item] if type(item) in NUMBERS else []
        if numbers and not (min(numbers) >= -LARGEST and max(numbers) <= LARGEST):
            return f"{path} is beyond {LARGEST:g} either way, which measures nothing"
    return None


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, value) of all that nested dicts and lists hold; a list of numbers, of which a record
    has thousands, is one value."""
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        if type(item) is dict or (type(item) is list and not NUMBERS.issuperset(map(type, item))):
            yield from leaves(item, f"{path}{key}.")
        else:
            yield f"{path}{key}", item


SUM_TOLERANCE = 1e-6
"""Relative: parts are added up in float64 over at most some 1e9 terms, and a defect is far
larger."""

FINALS = ("final", "final_on_part", "final_raw", "final_ema")
"""The evaluations that a completed run ends with."""
OF_A_PART = ("total", "twirled", "equivariance", "share")
OF_A_TEST = ("objective", "floor", "explained", "over_best_untrained")
"""Metrics of a part of an evaluation, and those that only the whole has."""

MEANS_NONE = re.compile(
    r"reason|recipe\..*|model\.(?:wrapper|symmetry_reason)|model\.config\..*|budget\.extends"
    r"|throughput\.alternated_with|throughput\.step_seconds"
    r"|matching\.hardware|environment\.driver|git\..*|contest|weights_sha256"
    r"|(?:trace|rungs|final_on_part|final_raw|final_ema|out_of_distribution)\b.*\.floor"
    r"|.*\.groups|.*\.by\..*\.over_best_untrained"
)
"""Fields whose null says "none" or follows from another field; every other null is a missing
measurement and needs a reason."""


def evaluations(record: RunRecord) -> Iterator[tuple[str, Test]]:
    """(where, evaluation) of every evaluation in ``record``, those of the trace first."""
    yield from of_test_set(record)
    yield from record.out_of_distribution.items()


def of_test_set(record: RunRecord) -> Iterator[tuple[str, Test]]:
    """(where, evaluation) of those on the test set or the part of it that is read on the way."""
    for point in record.trace:
        yield f"trace at step {point.step}", point.test
        yield f"trace at step {point.step}, ema", point.ema
    # The last rung is ``final``.
    yield from ((f"rung of {rung.budget:g}", rung.test) for rung in record.rungs[:-1])
    for name in FINALS:
        test = getattr(record, name)
        if test is not None:
            yield name, test


def implied_baseline(test: Test) -> float | None:
    """The loss of the baseline that ``explained = 1 - total / baseline`` implies, or None."""
    if test.total is None or test.explained is None or test.explained >= 1:
        return None
    return test.total / (1 - test.explained)


def implied_baselines(record: RunRecord) -> dict[int, list[float]]:
    """The baselines that the evaluations imply, by the number of test samples: on the same samples
    there is only one."""
    implied: dict[int, list[float]] = {}
    for _, test in of_test_set(record):
        baseline = implied_baseline(test)
        if baseline is not None:
            implied.setdefault(test.samples, []).append(baseline)
    return implied


def _names(record: RunRecord) -> Iterator[str]:
    """Names are plain and hold what they should, times and checksums are such."""
    try:
        record_path(record, ".")
    except UsageError as error:
        yield str(error)
    seed_is_named = re.search(rf"(?<!\d){record.seed}(?!\d)", record.run_id)
    if record.preset not in record.run_id or not seed_is_named:
        yield (
            f"run_id {record.run_id!r} does not hold preset {record.preset!r} "
            f"and seed {record.seed}"
        )
    try:
        created = datetime.fromisoformat(record.created)
    except ValueError:
        created = None
    if created is None or created.utcoffset() != timedelta(0):
        yield f"created {record.created!r} is not an ISO 8601 time in UTC"
    hashes = (
        ("dataset.sha256", record.dataset.sha256),
        ("recipe.tuning_log_sha256", record.recipe.tuning_log_sha256),
        ("weights_sha256", record.weights_sha256),
    )
    for where, value in hashes:
        if value is not None and not re.fullmatch(r"[0-9a-f]{64}", value):
            yield f"{where} {value!r} is not a SHA-256 in hexadecimal digits"


def _look_alikes(record: RunRecord) -> Iterator[str]:
    """Names are of ASCII characters, which none of another script can be taken for."""
    model, recipe, where = record.model, record.recipe, record.environment
    named: dict[str, Iterable[str | None]] = {
        "preset": [record.preset],
        "contest": [record.contest],
        "model.name": [model.name],
        "model.kernels": [model.kernels],
        "model.wrapper": [model.wrapper],
        "dataset.name": [record.dataset.name],
        "dataset.version": [record.dataset.version],
        "recipe.optimizer": [recipe.optimizer],
        "recipe.precision": [recipe.precision],
        "environment.device": [where.device],
        "environment.packages": [*where.packages, *where.packages.values()],
        "variant": [*record.variant, *record.variant.values()],
        "baselines": record.baselines,
        "out_of_distribution": record.out_of_distribution,
        "final.errors": record.final.errors if record.final else (),
    }
    for path, names in named.items():
        for name in names:
            if name is not None and not (name.isascii() and name.isprintable()):
                yield (
                    f"{path} {name!r} holds {strange_letter(name)}, "
                    "which can be taken for another; names are of ASCII characters"
                )


def _status(record: RunRecord) -> Iterator[str]:
    """The status fits what was measured."""
    if record.status == "completed":
        for name in FINALS:
            if getattr(record, name) is None:
                yield f"status is completed, but {name} is null"
        if record.reason is not None:
            yield "status is completed, but a reason for not completing is given"
    elif not record.reason:
        yield f"status is {record.status} without a reason"
    if record.weights_sha256 is not None and record.final is None:
        yield "weights_sha256 is given, but there is no final result"
    if record.status == "diverged" and record.final is not None:
        yield "status is diverged, but there is a final result"


def _clock(record: RunRecord) -> Iterator[str]:
    """The clock's parts add up to its wall time."""
    parts = msgspec.structs.asdict(record.clock)
    wall = parts.pop("wall")
    for name, value in parts.items():
        if value < 0:
            yield f"clock.{name} is {value} s, below zero"
    total = sum(parts.values())
    if not _close(total, wall):
        yield f"the clock's parts add up to {total:.9g} s, wall is {wall:.9g} s"
    if record.recipe.compile is not None and record.steps > 0 and parts["compile"] <= 0:
        yield f"recipe.compile is {record.recipe.compile!r}, but clock.compile is zero"
    restarts, lost = record.restarts, record.lost_seconds
    if restarts < 0 or lost < 0 or (restarts == 0 and lost > 0):
        yield f"{restarts} restarts and {lost:g} lost seconds contradict each other"


def _budget(record: RunRecord) -> Iterator[str]:
    """The budget that was spent is the one on the clock."""
    budget, clock = record.budget, record.clock
    source, counted = {
        "seconds": ("clock.train + clock.data", clock.train + clock.data),
        "steps": ("steps", record.steps),
        "samples": ("samples", record.samples),
    }[budget.kind]
    if not _close(budget.spent, counted):
        yield f"budget.spent is {budget.spent:.9g} {budget.kind}, {source} is {counted:.9g}"
    if budget.limit <= 0:
        yield f"budget.limit is {budget.limit:g}"
    for name in ("limit", "extends"):
        limit = getattr(budget, name)
        if budget.kind != "seconds" and limit is not None and limit != int(limit):
            yield f"budget.{name} is {limit:g} {budget.kind}, which are whole numbers"
    if budget.extends is not None and budget.extends >= budget.limit:
        yield f"budget.extends is {budget.extends:g}, not below the limit of {budget.limit:g}"
    over = max(0.0, budget.spent - budget.limit)
    if abs(budget.overshoot - over) > SUM_TOLERANCE * abs(budget.limit):
        yield f"budget.overshoot is {budget.overshoot:.9g}, spent less limit is {over:.9g}"
    if record.status == "completed" and budget.spent < budget.limit * (1 - SUM_TOLERANCE):
        yield (
            f"status is completed, but {budget.spent:g} of {budget.limit:g} {budget.kind} are spent"
        )


def _counts(record: RunRecord) -> Iterator[str]:
    """Steps, samples and epochs count the same training."""
    positive = {
        "model.parameters": record.model.parameters,
        "recipe.batch_size": record.recipe.batch_size,
        "recipe.learning_rate": record.recipe.learning_rate,
        "environment.threads": record.environment.threads,
    }
    yield from (f"{name} is {value}" for name, value in positive.items() if value <= 0)
    fraction = record.recipe.augmentation_fraction
    if not 0 <= fraction <= 1:
        yield f"recipe.augmentation_fraction is {fraction:g}, not a fraction"
    if record.steps < 0 or record.samples != record.steps * record.recipe.batch_size:
        yield (
            f"{record.samples} samples do not fit {record.steps} steps of "
            f"{record.recipe.batch_size}"
        )
    train = record.dataset.sizes.get("train", 0)
    # One per cent: a cut of the training split is stated in parts per thousand.
    slack = 0.01 * record.samples + 1e-6 * train
    if train > 0 and abs(record.epochs * train - record.samples) > slack:
        yield f"{record.epochs:g} epochs of {train} samples are not {record.samples} samples"


def _measured(record: RunRecord) -> Iterator[str]:
    """Every measured value is one that its metric can have."""
    steps = record.throughput.step_seconds
    measured = {
        "peak_bytes": record.memory.peak_bytes,
        "energy_joules": record.energy_joules,
        "compile_seconds": record.clock.compile,
        "samples_per_second": record.throughput.samples_per_second,
        "inference_samples_per_second": record.inference.samples_per_second,
        "step_seconds": None if steps is None else steps.p10,
    }
    yield from _out_of_range(measured)


def _throughput(record: RunRecord) -> Iterator[str]:
    """The throughput fits the seconds of the steps."""
    steps, rate = record.throughput.step_seconds, record.throughput.samples_per_second
    if any(seconds <= 0 for seconds in record.throughput.blocks):
        yield "throughput.blocks holds a block that took no time"
    if steps is None:
        return
    if not steps.p10 <= steps.p50 <= steps.p90:
        yield (
            "step_seconds are not in order: "
            f"p10 {steps.p10:g}, p50 {steps.p50:g}, p90 {steps.p90:g}"
        )
    # At most a tenth of the steps is faster than p10, so the mean step cannot be below 0.9 p10.
    least = 0.9 * steps.p10 * (1 - SUM_TOLERANCE)
    if rate is not None and rate > 0 and record.recipe.batch_size / rate < least:
        yield f"throughput {rate:g} samples/s is more than steps of {steps.p10:g} s (p10) allow"


def _order(record: RunRecord) -> Iterator[str]:
    """Trace and rungs go forward and end with the run."""
    busy = record.clock.train + record.clock.data
    for earlier, later in pairwise(record.trace):
        if (
            later.step <= earlier.step
            or later.samples < earlier.samples
            or later.train_seconds < earlier.train_seconds
        ):
            yield f"the trace goes back between steps {earlier.step} and {later.step}"
    for smaller, larger in pairwise(record.rungs):
        if (
            larger.budget <= smaller.budget
            or larger.step < smaller.step
            or larger.samples < smaller.samples
        ):
            yield f"the rungs go back between budgets {smaller.budget:g} and {larger.budget:g}"
    for name, points in (("trace", record.trace), ("rungs", record.rungs)):
        last = points[-1] if points else None
        if last is not None and (last.step > record.steps or last.samples > record.samples):
            yield f"the {name} end{'s' * (name == 'trace')} after the run"
    if record.trace and record.trace[-1].train_seconds > busy * (1 + SUM_TOLERANCE):
        yield "the trace ends after the run"


def _rungs(record: RunRecord) -> Iterator[str]:
    """The last rung is the result of the whole budget, the others those of smaller ones."""
    rungs, budget = record.rungs, record.budget
    for rung in rungs:
        if budget.kind == "seconds":
            counted = rung.train_seconds
        else:
            counted = rung.step if budget.kind == "steps" else rung.samples
        if rung.budget <= 0 or counted < rung.budget * (1 - SUM_TOLERANCE):
            yield f"rung of {rung.budget:g} {budget.kind}: only {counted:g} are spent"
        if budget.kind != "seconds" and rung.budget != int(rung.budget):
            yield f"rung of {rung.budget:g} {budget.kind}, which are whole numbers"
    if record.final is None:
        return
    if not rungs or rungs[-1].test != record.final:
        yield "final is not the test of the last rung"
        return
    last = rungs[-1]
    if not _close(last.budget, budget.limit):
        yield f"the last rung is of {last.budget:g} {budget.kind}, the budget is {budget.limit:g}"
    if last.step != record.steps:
        yield f"the last rung is at step {last.step} of {record.steps}, not at the end"


def _samples(record: RunRecord) -> Iterator[str]:
    """Evaluations that are compared are made of the same samples."""
    for where, test in evaluations(record):
        for name in ("samples", "rotations"):
            if getattr(test, name) <= 0:
                yield f"{where}: {name} is {getattr(test, name)}"
    tests = dict(of_test_set(record))
    size = record.dataset.sizes.get("test")
    most = max((test.samples for test in tests.values()), default=0)
    if size is not None and most > size:
        yield f"{most} test samples were evaluated, the test split has {size}"
    whole = [test for name, test in tests.items() if name in FINALS and name != "final_on_part"]
    part = [test for name, test in tests.items() if name not in FINALS or name == "final_on_part"]
    for what, several in (("final results", whole), ("rungs and trace", part)):
        if len({(test.samples, test.rotations) for test in several}) > 1:
            yield f"the {what} differ in samples or rotations, so that they cannot be compared"
        if len({(*test.by,) for test in several}) > 1:
            yield f"the {what} have other parts (by) on the same samples"
        if len({(*test.errors,) for test in several}) > 1:
            yield f"the {what} have errors of other outputs"
        weights = {tuple(test.groups.weights) for test in several if test.groups is not None}
        if len(weights) > 1:
            yield f"the {what} have other groups.weights on the same samples"
    if len({test.group for test in tests.values()}) > 1:
        yield "the evaluations are under rotations of different groups"


def _strata(record: RunRecord) -> Iterator[str]:
    """A whole lies between its parts, and on the same samples a part is always set against the same
    untrained predictor."""
    best: dict[tuple[int, str], list[float]] = {}
    for where, test in of_test_set(record):
        for name, part in test.by.items():
            if part.total and part.over_best_untrained:
                implied = part.total / part.over_best_untrained
                best.setdefault((test.samples, name), []).append(implied)
        for name in ("total", "twirled", "equivariance"):
            parts = [getattr(part, name) for part in test.by.values()]
            whole, known = getattr(test, name), [each for each in parts if each is not None]
            if whole is None or not known:
                continue
            slack = SUM_TOLERANCE * max(map(abs, known))
            if not min(known) - slack <= whole <= max(known) + slack:
                yield f"{where}: {name} {whole:.9g} is outside that of all its parts (by)"
    for (samples, name), implied in best.items():
        if not _close(min(implied), max(implied)):
            yield (
                f"{name}: total and over_best_untrained imply untrained predictors from "
                f"{min(implied):.9g} to {max(implied):.9g} on {samples} samples"
            )


def _baselines(record: RunRecord) -> Iterator[str]:
    """On the same samples every evaluation is set against the same baselines."""
    for implied in implied_baselines(record).values():
        if not _close(min(implied), max(implied)):
            yield (
                f"explained and total imply baselines from {min(implied):.9g} to "
                f"{max(implied):.9g}; there is only one"
            )
    best: dict[int, list[float]] = {}
    for _, test in of_test_set(record):
        if test.total and test.over_best_untrained:
            best.setdefault(test.samples, []).append(test.total / test.over_best_untrained)
    if record.final is not None and record.final.over_best_untrained and record.baselines:
        best.setdefault(record.final.samples, []).append(min(record.baselines.values()))
    for implied in best.values():
        if not _close(min(implied), max(implied)):
            yield (
                f"total and over_best_untrained imply best untrained predictors from "
                f"{min(implied):.9g} to {max(implied):.9g}; there is only one"
            )


def _groups(record: RunRecord) -> Iterator[str]:
    """The errors by group average to those of their evaluation."""
    for where, test in evaluations(record):
        groups = test.groups
        if groups is None:
            continue
        if not groups.weights or min(groups.weights) <= 0:
            yield f"{where}: groups.weights must be positive, one for each group"
            continue
        for name in ("total", "equivariance"):
            row, whole = getattr(groups, name), getattr(test, name)
            if len(row) != len(groups.weights):
                yield f"{where}: groups.{name} is not one value a group"
                continue
            mean = _weighted_mean(row, groups.weights)
            scale = _weighted_mean(list(map(abs, row)), groups.weights)
            if whole is not None and abs(mean - whole) > SUM_TOLERANCE * max(scale, abs(whole)):
                yield (f"{where}: groups.{name} average to {mean:.9g}, the test says {whole:.9g}")


def _symmetry(record: RunRecord) -> Iterator[str]:
    """A symmetry that is refuted was refuted by something."""
    if record.model.symmetry_verified is False and not record.model.symmetry_reason:
        yield "model.symmetry_verified is false without a model.symmetry_reason"


def _machine_share(record: RunRecord) -> Iterator[str]:
    """The share of the machine is one that a run can have."""
    share = record.machine_share
    if share is None:
        return
    for name, value in msgspec.structs.asdict(share).items():
        if value is not None and value < 0:
            yield f"machine_share.{name} is {value:g}, below zero"
    if share.steal is not None and share.steal > 1:
        yield f"machine_share.steal is {share.steal:g}, more than all of the time"
    if share.p90_over_p10 is not None and share.p90_over_p10 < 1:
        yield f"machine_share.p90_over_p10 is {share.p90_over_p10:g}, below 1"
    if not _close(share.stalled_seconds, record.clock.stalled):
        yield (
            f"machine_share.stalled_seconds is {share.stalled_seconds:.9g}, "
            f"clock.stalled is {record.clock.stalled:.9g}"
        )


def _evaluations(record: RunRecord) -> Iterator[str]:
    """Every evaluation decomposes into its parts."""
    for where, test in evaluations(record):
        whole = {name: getattr(test, name) for name in OF_A_TEST}
        for problem in (*_out_of_range(whole), *_decomposition(test)):
            yield f"{where}: {problem}"
        for name, value in test.errors.items():
            if value is not None and value < 0:
                yield f"{where}: the error of {name} is {value:g}; it is a mean of squares"
        for name, part in test.by.items():
            for problem in _decomposition(part):
                yield f"{where}: {name}: {problem}"


def _decomposition(part: Test | TestPart) -> Iterator[str]:
    """total = twirled + equivariance, and share = equivariance / total."""
    values = {name: getattr(part, name) for name in OF_A_PART}
    yield from _out_of_range(values)
    total, twirled, equivariance, share = values.values()
    if total is None or twirled is None or equivariance is None:
        return
    slack = SUM_TOLERANCE * max(abs(total), abs(twirled), abs(equivariance))
    if abs(total - twirled - equivariance) > slack:
        yield f"total {total:.9g} is not twirled {twirled:.9g} + equivariance {equivariance:.9g}"
    if share is not None and total > 0 and abs(share * total - equivariance) > slack:
        yield f"share {share:.9g} is not equivariance / total, {equivariance / total:.9g}"


def _nulls(record: RunRecord) -> Iterator[str]:
    """A value that was not measured is null with a reason."""
    for path, value in leaves(msgspec.to_builtins(record)):
        if value is not None or MEANS_NONE.fullmatch(path):
            continue
        if not _is_explained(path, record.reasons):
            yield f"{path} is null and reasons has no entry for it"


def _is_explained(path: str, reasons: Mapping[str, str]) -> bool:
    """Whether there is a reason for ``path`` or for a whole that it is part of; one without list
    positions serves them all."""
    names = path.split(".")
    for parts in (names, [name for name in names if not name.isdigit()]):
        if any(".".join(parts[:end]) in reasons for end in range(1, len(parts) + 1)):
            return True
    return False


def _out_of_range(values: Mapping[str, float | None]) -> Iterator[str]:
    problems = (METRICS[name].problem(value) for name, value in values.items())
    yield from (problem for problem in problems if problem is not None)


def _weighted_mean(values: Sequence[float], weights: Sequence[float]) -> float:
    weighted: float = sum(map(operator.mul, values, weights))
    return weighted / sum(weights)


def _close(first: float, second: float) -> bool:
    # The absolute part is a nanosecond: below it a clock has nothing to say.
    return abs(first - second) <= SUM_TOLERANCE * max(abs(first), abs(second)) + 1e-9


CONSISTENCY: tuple[Rule[RunRecord], ...] = (
    _names,
    _look_alikes,
    _status,
    _clock,
    _budget,
    _counts,
    _measured,
    _throughput,
    _order,
    _rungs,
    _samples,
    _strata,
    _baselines,
    _groups,
    _evaluations,
    _symmetry,
    _machine_share,
    _nulls,
)

"""Whether a run record is plausible: what the types cannot say and a reader takes for granted."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import pairwise

import msgspec

from equivbench.errors import UsageError
from equivbench.records.metrics import METRICS
from equivbench.records.nulls import unexplained
from equivbench.records.plausibility import impossible, odd, too_large
from equivbench.records.schema import RULES_VERSION, RunRecord, Test, TestPart
from equivbench.records.store import record_path

SUM_TOLERANCE = 1e-6
"""Relative: parts are added up in float64 over at most some 1e9 terms, and a defect is far
larger."""
OTHER_LIMIT = 0.05
"""Share of wall time that no named clock part accounts for, above which a record deserves a
look."""


def problems(record: RunRecord) -> list[str]:
    """Why ``record`` cannot be right, one sentence each; empty if nothing contradicts itself, the
    device or the data."""
    plain = msgspec.to_builtins(record)
    beyond = too_large(plain)
    if beyond is not None:
        return [beyond]
    checks = (_names, _status, _clock, _budget, _counts, _throughput, _trace, _groups)
    found = [problem for check in checks for problem in check(record)]
    for where, test in _tests(record):
        found.extend(f"{where}: {problem}" for problem in _test(test))
    return [*found, *unexplained(plain, record.reasons), *impossible(record)]


def remarks(record: RunRecord) -> list[str]:
    """What is unusual about ``record`` without being wrong."""
    found = []
    wall = record.clock.wall
    if wall > 0 and record.clock.other > OTHER_LIMIT * wall:
        found.append(
            f"clock.other is {record.clock.other / wall:.0%} of the wall time, more than {OTHER_LIMIT:.0%}"
        )
    if record.model.symmetry_verified is False:
        found.append(f"the declared symmetry {record.model.symmetry} failed its measurement")
    if record.git.dirty:
        found.append("the code had uncommitted changes")
    return [*found, *odd(record)]


def incomparable(record: RunRecord) -> str | None:
    """Why ``record`` must not be compared with records of this version's rules, or None."""
    if record.rules_version == RULES_VERSION:
        return None
    return f"rules version {record.rules_version} is not this equivbench's {RULES_VERSION}"


def _names(record: RunRecord) -> Iterator[str]:
    try:
        record_path(record, ".")
    except UsageError as error:
        yield str(error)
    if record.preset not in record.run_id or not re.search(
        rf"(?<!\d){record.seed}(?!\d)", record.run_id
    ):
        yield f"run_id {record.run_id!r} does not hold preset {record.preset!r} and seed {record.seed}"
    try:
        created = datetime.fromisoformat(record.created)
    except ValueError:
        created = None
    if created is None or created.utcoffset() != timedelta(0):
        yield f"created {record.created!r} is not an ISO 8601 time in UTC"
    hashes = {
        "dataset.sha256": record.dataset.sha256,
        "recipe.tuning_log_sha256": record.recipe.tuning_log_sha256,
    }
    for where, value in hashes.items():
        if value is not None and not re.fullmatch(r"[0-9a-f]{64}", value):
            yield f"{where} {value!r} is not a SHA-256 in hexadecimal digits"


def _status(record: RunRecord) -> Iterator[str]:
    if record.status == "completed":
        if record.final is None:
            yield "status is completed, but final is null"
        if record.reason is not None:
            yield "status is completed, but a reason for not completing is given"
    elif not record.reason:
        yield f"status is {record.status} without a reason"
    if record.status == "diverged" and record.final is not None:
        yield "status is diverged, but there is a final result"


def _clock(record: RunRecord) -> Iterator[str]:
    parts = msgspec.structs.asdict(record.clock)
    wall = parts.pop("wall")
    yield from (
        f"clock.{name} is {value} s, below zero" for name, value in parts.items() if value < 0
    )
    if not _close(sum(parts.values()), wall):
        yield f"the clock's parts add up to {sum(parts.values()):.9g} s, wall is {wall:.9g} s"
    if record.recipe.compile is not None and record.steps > 0 and parts["compile"] <= 0:
        yield f"recipe.compile is {record.recipe.compile!r}, but clock.compile is zero"
    if (
        record.restarts < 0
        or record.lost_seconds < 0
        or (record.restarts == 0 and record.lost_seconds > 0)
    ):
        yield f"{record.restarts} restarts and {record.lost_seconds:g} lost seconds contradict each other"


def _budget(record: RunRecord) -> Iterator[str]:
    budget, clock = record.budget, record.clock
    counted = {
        "seconds": clock.train + clock.data,
        "steps": record.steps,
        "samples": record.samples,
    }[budget.kind]
    if not _close(budget.spent, counted):
        source = "clock.train + clock.data" if budget.kind == "seconds" else budget.kind
        yield f"budget.spent is {budget.spent:.9g} {budget.kind}, {source} is {counted:.9g}"
    if budget.limit <= 0:
        yield f"budget.limit is {budget.limit:g}"
    over = max(0.0, budget.spent - budget.limit)
    if abs(budget.overshoot - over) > SUM_TOLERANCE * abs(budget.limit):
        yield f"budget.overshoot is {budget.overshoot:.9g}, spent less limit is {over:.9g}"
    if record.status == "completed" and budget.spent < budget.limit * (1 - SUM_TOLERANCE):
        yield f"status is completed, but {budget.spent:g} of {budget.limit:g} {budget.kind} are spent"


def _counts(record: RunRecord) -> Iterator[str]:
    positive = {
        "model.parameters": record.model.parameters,
        "recipe.batch_size": record.recipe.batch_size,
        "recipe.learning_rate": record.recipe.learning_rate,
        "environment.threads": record.environment.threads,
    }
    yield from (f"{name} is {value}" for name, value in positive.items() if value <= 0)
    if not 0 <= record.recipe.augmentation_fraction <= 1:
        yield f"recipe.augmentation_fraction is {record.recipe.augmentation_fraction:g}, not a fraction"
    if record.steps < 0 or record.samples != record.steps * record.recipe.batch_size:
        yield f"{record.samples} samples do not fit {record.steps} steps of {record.recipe.batch_size}"
    train = record.dataset.sizes.get("train")
    # One per cent: a cut of the training split is stated in parts per thousand.
    if (
        train is not None
        and train > 0
        and abs(record.epochs * train - record.samples) > 0.01 * record.samples + 1e-6 * train
    ):
        yield f"{record.epochs:g} epochs of {train} samples are not {record.samples} samples"
    measured = {
        "peak_bytes": record.memory.peak_bytes,
        "energy_joules": record.energy_joules,
        "compile_seconds": record.clock.compile,
        "samples_per_second": record.throughput.samples_per_second,
        "inference_samples_per_second": record.inference.samples_per_second,
    }
    yield from _out_of_range(measured)


def _throughput(record: RunRecord) -> Iterator[str]:
    steps, rate = record.throughput.step_seconds, record.throughput.samples_per_second
    if steps is None:
        return
    yield from _out_of_range({"step_seconds": steps.p10})
    if not steps.p10 <= steps.p50 <= steps.p90:
        yield f"step_seconds are not in order: p10 {steps.p10:g}, p50 {steps.p50:g}, p90 {steps.p90:g}"
    # At most a tenth of the steps is faster than p10, so the mean step cannot be below 0.9 p10.
    if (
        rate is not None
        and rate > 0
        and record.recipe.batch_size / rate < 0.9 * steps.p10 * (1 - SUM_TOLERANCE)
    ):
        yield f"throughput {rate:g} samples/s is more than steps of {steps.p10:g} s (p10) allow"


def _trace(record: RunRecord) -> Iterator[str]:
    trace = record.trace
    for earlier, later in pairwise(trace):
        if (
            later.step <= earlier.step
            or later.samples < earlier.samples
            or later.train_seconds < earlier.train_seconds
        ):
            yield f"the trace goes back between steps {earlier.step} and {later.step}"
    if record.final is not None and (not trace or record.final != trace[-1].test):
        yield "final is not the last point of the trace"
    if not trace:
        return
    last, busy = trace[-1], record.clock.train + record.clock.data
    if (
        last.step > record.steps
        or last.samples > record.samples
        or last.train_seconds > busy * (1 + SUM_TOLERANCE)
    ):
        yield "the trace ends after the run"
    if record.status == "completed" and last.step != record.steps:
        yield f"the last evaluation is at step {last.step} of {record.steps}, not at the end"
    tests = [test for _, test in _tests(record)]
    implied = [
        t.total / (1 - t.explained)
        for t in tests
        if t.total is not None and t.explained is not None and t.explained < 1
    ]
    if implied and not _close(min(implied), max(implied)):
        yield f"explained and total imply baselines from {min(implied):.9g} to {max(implied):.9g}; there is only one"


def _groups(record: RunRecord) -> Iterator[str]:
    groups = record.groups
    if groups is None:
        return
    width = len(groups.weights)
    if not width or any(weight <= 0 for weight in groups.weights):
        yield "groups.weights must be positive, one for each group"
        return
    for name, rows in (("total", groups.total), ("equivariance", groups.equivariance)):
        if len(rows) != len(record.trace) or any(len(row) != width for row in rows):
            yield f"groups.{name} is not one row a trace point with one value a group"
            continue
        for point, row in zip(record.trace, rows, strict=True):
            whole: float | None = getattr(point.test, name)
            mean = _weighted_mean(row, groups.weights)
            scale = _weighted_mean(list(map(abs, row)), groups.weights)
            if whole is not None and abs(mean - whole) > SUM_TOLERANCE * max(scale, abs(whole)):
                yield f"groups.{name} at step {point.step} average to {mean:.9g}, the test says {whole:.9g}"


def _test(test: Test) -> Iterator[str]:
    yield from _out_of_range(
        {name: getattr(test, name) for name in ("objective", "floor", "explained")}
    )
    parts: list[tuple[str, Test | TestPart]] = [("", test), *test.by.items()]
    for name, part in parts:
        yield from (f"{name}: {problem}" if name else problem for problem in _parts(part))


def _parts(part: Test | TestPart) -> Iterator[str]:
    yield from _out_of_range(
        {name: getattr(part, name) for name in ("total", "twirled", "equivariance", "share")}
    )
    total, twirled, equivariance, share = part.total, part.twirled, part.equivariance, part.share
    if total is None or twirled is None or equivariance is None:
        return
    scale = max(abs(total), abs(twirled), abs(equivariance))
    if abs(total - twirled - equivariance) > SUM_TOLERANCE * scale:
        yield f"total {total:.9g} is not twirled {twirled:.9g} + equivariance {equivariance:.9g}"
    if (
        share is not None
        and total > 0
        and abs(share * total - equivariance) > SUM_TOLERANCE * scale
    ):
        yield f"share {share:.9g} is not equivariance / total, {equivariance / total:.9g}"


def _tests(record: RunRecord) -> Iterator[tuple[str, Test]]:
    yield from ((f"trace at step {point.step}", point.test) for point in record.trace)
    if record.final is not None:
        yield "final", record.final
    if record.final_raw is not None:
        yield "final_raw", record.final_raw


def _out_of_range(values: dict[str, float | None]) -> Iterator[str]:
    for name, value in values.items():
        problem = None if value is None else METRICS[name].problem(value)
        if problem is not None:
            yield problem


def _weighted_mean(values: Sequence[float], weights: Sequence[float]) -> float:
    weighted: float = sum(map(operator.mul, values, weights))
    return weighted / sum(weights)


def _close(first: float, second: float) -> bool:
    # The absolute part is a nanosecond: below it a clock has nothing to say.
    return abs(first - second) <= SUM_TOLERANCE * max(abs(first), abs(second)) + 1e-9

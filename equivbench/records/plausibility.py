"""What no run can have done: faster than its device, better than its labels, before or after its
time, on other data."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from equivbench.records.peaks import Peak, peak_of, width_of
from equivbench.records.reading import NUMBERS
from equivbench.records.schema import RunRecord, Test, TestPart
from equivbench.registry import DATASETS

LARGEST = 1e30
"""Beyond it a number measures nothing here; sums and products of such numbers still are finite."""
MOST_POINTS = 10_000
"""Trace points of a run; they are log-spaced and some tens."""
FIRST, MADE = datetime(2025, 1, 1, tzinfo=UTC), datetime(2026, 11, 24, tzinfo=UTC)
"""No record is older than this format; and a clock that is behind the day on which this was written
is not believed."""
FUTURE = timedelta(days=365)
"""How far ahead a date is an error for certain, where a day is odd: clocks of machines are wrong,
and so may be the reader's."""
TIMING_FACTOR, TIMING_STEPS = 20.0, 100
"""Steps timed in alternation and steps of a run differ by what else a machine does: under 1.4 times
in 60 records of two shared cores; 27 times in an honest run of 60 steps beside eight other jobs, so
that short runs are let off."""
ROUNDING = 1e-12
"""Relative: means of squares are added up in float64, all of one sign, so that a sum is below zero
by nothing but rounding."""
FLOAT32_VARIANCE = 2.0**-48 / 12
"""Relative: what rounding the targets to float32 (steps of at least 2^-24 of a value) leaves to
whoever knows them exactly."""
VERIFIED_FACTOR, VERIFIED_SHARE = 1000.0, 1e-6
"""A run verifies a symmetry up to 25 times a floor that may itself be some times the recorded
one."""
AVERAGING_GAIN = 2.0
"""Averaging over n rotations makes n passes; on a GPU that waits for its host they may cost no more
than one. Faster than this is odd; milliseconds timed beside other jobs were 3.5 times off, so that
it takes ``TIMING_FACTOR`` to be wrong."""
ROTATIONS_LIMIT = 2.0
"""The share is at most n / (n - 1) for n rotations, n = 2 or more."""


def impossible(record: RunRecord, *, now: datetime | None = None) -> Iterator[str]:
    """Why ``record`` cannot be the outcome of a run, one sentence each; ``now`` is the reader's
    time (for tests)."""
    yield from date_problems(record.created, now=now)
    for check in (_steps, _speed, _throughput, _twirl, _losses, _symmetry, _data):
        yield from check(record)


def odd(record: RunRecord, *, now: datetime | None = None) -> Iterator[str]:
    """What may be right and deserves a look."""
    created = _time(record.created)
    if created is not None and timedelta(days=1) < created - _today(now) <= FUTURE:
        yield f"created {record.created!r} lies in the future"
    ratio = _timing_ratio(record)
    # Timed steps and trained steps differ by warm-up and by what else the machine does, not by a
    # factor of two.
    if ratio is not None and not 0.5 <= ratio <= 2:
        yield f"throughput says {ratio * record.samples:.0f} samples in the time spent, the record has {record.samples}"
    single = record.inference.samples_per_second
    for name, rate in record.inference.twirl.items():
        if single is not None and AVERAGING_GAIN * single < rate:
            yield f"averaging over {name} rotations is said to be {rate / single:.1f} times as fast as a single pass"
    known = DATASETS.without_plugins().get(record.dataset.name)
    if known is None:
        yield f"the data set {record.dataset.name!r} is not known here, so its checksum cannot be checked"
    elif known.value.checksums and record.dataset.version not in known.value.checksums:
        yield f"version {record.dataset.version!r} of {record.dataset.name} is not known here, so its checksum cannot be checked"
    if record.environment.device != "cpu" and _peak(record) is None:
        yield f"the peak of {record.environment.device!r} is not known here, so its speed cannot be checked"


def date_problems(created: str, *, now: datetime | None = None) -> Iterator[str]:
    """Why nothing of this kind can have been made at ``created``; a text that is no time is left to
    others."""
    time = _time(created)
    if time is not None and not FIRST <= time <= _today(now) + FUTURE:
        yield f"created {created!r} is no time at which it can have been made"


def too_large(plain: Any) -> str | None:
    """The first number of ``plain`` (dicts and lists) beyond ``LARGEST``: none of the other checks
    could be computed then."""
    stack: list[tuple[str, Any]] = [("", plain)]
    while stack:
        path, value = stack.pop()
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            kind = type(item)
            if kind is float or kind is int:
                beyond = not -LARGEST <= item <= LARGEST
            elif kind is list and item and NUMBERS.issuperset(map(type, item)):
                # Thousands of numbers, in one go.
                beyond = min(item) < -LARGEST or max(item) > LARGEST
            else:
                beyond = False
                if kind is dict or kind is list:
                    stack.append((f"{path}{key}.", item))
            if beyond:
                return f"{path}{key} is beyond {LARGEST:g} either way, which measures nothing"
    return None


def _steps(record: RunRecord) -> Iterator[str]:
    batch = record.recipe.batch_size
    points = {
        f"trace at step {point.step}": (point.step, point.samples)
        for point in record.trace[:MOST_POINTS]
    }
    for where, (steps, samples) in points.items():
        if samples != steps * batch or steps < 0:
            yield f"{where}: {samples} samples are not {steps} steps of {batch}"
    if len(record.trace) > MOST_POINTS:
        yield f"the trace has {len(record.trace)} points, more than {MOST_POINTS}"
    if any(point.train_seconds < 0 for point in record.trace):
        yield "the trace has a time below zero"
    elif record.status == "completed" and record.trace:
        last, busy = record.trace[-1].train_seconds, record.clock.train + record.clock.data
        # The last evaluation begins when the budget is spent.
        if not math.isclose(last, busy, rel_tol=1e-3, abs_tol=1e-3):
            yield f"the last evaluation began after {last:g} s, the run spent {busy:g} s"


def _speed(record: RunRecord) -> Iterator[str]:
    flops, peak = record.flops_per_sample, _peak(record)
    if flops is not None and flops <= 0:
        yield f"flops_per_sample is {flops:g}"
    if flops is None or flops <= 0 or peak is None:
        return
    width = width_of(record.recipe.precision)
    most = peak.operations[width]
    busy = record.clock.train + record.clock.data
    rates = {
        "throughput": record.throughput.samples_per_second,
        "the run": record.samples / busy if busy > 0 else None,
    }
    for name, rate in rates.items():
        if rate is not None and flops * rate > most:
            yield (
                f"{name} makes {flops * rate:.3g} operations a second, more than the {most:.3g} that "
                f"{record.environment.device!r} with {record.environment.threads} threads can do in {width} bits"
            )


def _throughput(record: RunRecord) -> Iterator[str]:
    ratio = _timing_ratio(record)
    if (
        ratio is not None
        and record.steps >= TIMING_STEPS
        and not 1 / TIMING_FACTOR <= ratio <= TIMING_FACTOR
    ):
        yield (
            f"throughput x time is {ratio * record.samples:.0f} samples, the record has {record.samples}: "
            f"more than a factor of {TIMING_FACTOR:g} apart"
        )


def _twirl(record: RunRecord) -> Iterator[str]:
    single = record.inference.samples_per_second
    for name, rate in record.inference.twirl.items():
        if not (name.isascii() and name.isdigit() and int(name[:9]) >= 2 and len(name) < 9):
            yield f"inference.twirl holds {name!r}, which is no number of rotations"
        elif rate <= 0:
            yield f"inference.twirl.{name} is {rate:g} samples/s"
        elif single is not None and rate > TIMING_FACTOR * single:
            yield f"averaging over {name} rotations runs at {rate:g} samples/s, faster than a single pass at {single:g}"


def _losses(record: RunRecord) -> Iterator[str]:
    lowest = _lowest_loss(record)
    tests = [(f"trace at step {point.step}", point.test) for point in record.trace]
    tests += [
        (name, test)
        for name, test in (("final", record.final), ("final_raw", record.final_raw))
        if test is not None
    ]
    for where, test in tests:
        if test.total is not None and lowest is not None and test.total < lowest:
            yield f"{where}: total {test.total:g} is below {lowest:g}, which rounding of the stored labels alone leaves"
        parts: list[tuple[str, Test | TestPart]] = [
            (where, test),
            *((f"{where}: {key!r}", part) for key, part in test.by.items()),
        ]
        for name, part in parts:
            yield from _shares(name, part)
    for name, value in record.baselines.items():
        if value < 0:
            yield f"baselines.{name} is {value:g}"


def _shares(where: str, part: Test | TestPart) -> Iterator[str]:
    total, equivariance, share = part.total, part.equivariance, part.share
    if equivariance is not None and equivariance < -ROUNDING * abs(total or 0.0):
        yield f"{where}: equivariance is {equivariance:g}, below zero; it is a mean of squares"
    if (
        equivariance is not None
        and total is not None
        and equivariance > ROTATIONS_LIMIT * total * (1 + ROUNDING)
    ):
        yield f"{where}: equivariance {equivariance:g} is more than {ROTATIONS_LIMIT:g} times the total {total:g}"
    if share is not None and share < -ROUNDING:
        yield f"{where}: share is {share:g}, below zero; it is a ratio of means of squares"


def _symmetry(record: RunRecord) -> Iterator[str]:
    model = record.model
    if model.symmetry == "none" and model.symmetry_verified is not None:
        yield "model.symmetry_verified is given, but no symmetry is declared"
    if model.symmetry_verified and record.final is not None:
        share, floor = record.final.share, record.final.floor
        if (
            share is not None
            and floor is not None
            and share > max(VERIFIED_FACTOR * floor, VERIFIED_SHARE)
        ):
            yield f"the declared symmetry {model.symmetry} is said to hold, but the share is {share:g}, the floor {floor:g}"


def _data(record: RunRecord) -> Iterator[str]:
    known = DATASETS.without_plugins().get(record.dataset.name)
    if known is not None:
        expected = known.value.checksums.get(record.dataset.version)
        if expected is not None and record.dataset.sha256 != expected:
            yield (
                f"dataset.sha256 is {record.dataset.sha256[:12]}..., but {record.dataset.name} version "
                f"{record.dataset.version} has {expected[:12]}...: other data"
            )
        if known.value.task != record.task:
            yield f"the data set {record.dataset.name} belongs to the task {known.value.task}, not {record.task!r}"
    for split, size in record.dataset.sizes.items():
        if size <= 0:
            yield f"dataset.sizes.{split} is {size}"


def _lowest_loss(record: RunRecord) -> float | None:
    known = DATASETS.without_plugins().get(record.dataset.name)
    declared = None if known is None else known.value.lowest_loss
    # The mean squared target: as recorded, or as total and explained imply it at any point.
    tests = [point.test for point in record.trace]
    implied = [
        t.total / (1 - t.explained)
        for t in tests
        if t.total is not None and t.explained is not None and t.explained < 1
    ]
    zero = record.baselines.get("zero", max(implied, default=None))
    bounds = [
        bound
        for bound in (declared, None if zero is None else FLOAT32_VARIANCE * zero)
        if bound is not None
    ]
    return max(bounds, default=None)


def _timing_ratio(record: RunRecord) -> float | None:
    """Samples that the timed throughput gives in the time spent, over those of the record."""
    rate, busy = record.throughput.samples_per_second, record.clock.train + record.clock.data
    return (
        rate * busy / record.samples
        if rate is not None and busy > 0 and record.samples > 0
        else None
    )


def _peak(record: RunRecord) -> Peak | None:
    where = record.environment
    return peak_of(where.device, where.cpu, where.threads)


def _time(text: str) -> datetime | None:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def _today(now: datetime | None) -> datetime:
    return max(now or datetime.now(UTC), MADE)

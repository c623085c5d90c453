"""Whether a run record is believed: rules on what no run can have done (faster than its device,
better than its labels, before or after its time, on other data), what is only unusual and deserves
a look, and the sentences of all rules that a record breaks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from equivbench.records.consistency import CONSISTENCY
from equivbench.records.declared import departures, unchecked
from equivbench.records.disturbed import disturbance, slowness
from equivbench.records.evaluations import evaluations, implied_baselines
from equivbench.records.machine import CIRCUMSTANCES, TIMING_STEPS
from equivbench.records.peaks import Peak, peak_of, width_of
from equivbench.records.reasons import names_place
from equivbench.records.requested import backdated, refusals
from equivbench.records.rules import Rule, broken_rules
from equivbench.records.schema import (
    RULES_VERSION,
    Rung,
    RunRecord,
    Test,
    TestPart,
    TracePoint,
)
from equivbench.registry import DATASETS
from equivbench.specs import DatasetSpec

MOST_POINTS = 10_000
"""Trace points, and rungs, of a run; they are log-spaced and some tens."""
FIRST, MADE = datetime(2025, 1, 1, tzinfo=UTC), datetime(2026, 11, 24, tzinfo=UTC)
"""No record is older than this format; and a clock that is behind the day on which this was written
is not believed."""
FUTURE = timedelta(days=365)
"""How far ahead a date is an error for certain, where a day is unusual: clocks of machines are
wrong, and so may be the reader's."""
TIMING_FACTOR = 20.0
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
than one. Faster than this is unusual; milliseconds timed beside other jobs were 3.5 times off, so
that it takes ``TIMING_FACTOR`` to be wrong."""
OTHER_LIMIT = 0.05
"""Share of wall time that no named clock part accounts for, above which a record deserves a
look."""


def possible_date(made: Any) -> Iterator[str]:
    """It was made when it can have been made; a text that is no time is left to others."""
    time = _time(made.created)
    if time is not None and not FIRST <= time <= _today() + FUTURE:
        yield f"created {made.created!r} is no time at which it can have been made"


def _steps(record: RunRecord) -> Iterator[str]:
    """Every evaluation is at a step that the run made."""
    batch = record.recipe.batch_size
    # By place, so that a point that is there twice is named once.
    points: dict[str, TracePoint | Rung] = {
        **{f"trace at step {point.step}": point for point in record.trace[:MOST_POINTS]},
        **{f"rung of {rung.budget:g}": rung for rung in record.rungs[:MOST_POINTS]},
    }
    for where, point in points.items():
        if point.samples != point.step * batch or point.step < 0:
            yield f"{where}: {point.samples} samples are not {point.step} steps of {batch}"
        if point.train_seconds < 0:
            yield f"{where}: a time below zero"
    for name in ("trace", "rungs"):
        if len(getattr(record, name)) > MOST_POINTS:
            yield f"{name}: {len(getattr(record, name))} points, more than {MOST_POINTS}"
    if record.status == "completed" and record.rungs:
        last, busy = record.rungs[-1].train_seconds, _busy(record)
        # The last evaluation begins when the budget is spent.
        if not math.isclose(last, busy, rel_tol=1e-3, abs_tol=1e-3):
            yield f"the last evaluation began after {last:g} s, the run spent {busy:g} s"


def _speed(record: RunRecord) -> Iterator[str]:
    """No more operations a second than the device can do."""
    flops, peak, busy = record.flops_per_sample, _peak(record), _busy(record)
    if flops is not None and flops <= 0:
        yield f"flops_per_sample is {flops:g}"
    if flops is None or flops <= 0 or peak is None:
        return
    width = width_of(record.recipe.precision)
    most = peak.operations[width]
    rates = {
        "throughput": record.throughput.samples_per_second,
        "the run": record.samples / busy if busy > 0 else None,
    }
    for name, rate in rates.items():
        if rate is not None and flops * rate > most:
            yield (
                f"{name} makes {flops * rate:.3g} operations a second, more than the {most:.3g} "
                f"that {record.environment.device!r} with {record.environment.threads} threads "
                f"can do in {width} bits"
            )


def _throughput(record: RunRecord) -> Iterator[str]:
    """The throughput gives the samples of the run in its time."""
    ratio = _timing_ratio(record)
    # Of a run that was slow for a part of its time the mean step says nothing.
    if ratio is None or record.steps < TIMING_STEPS or (ratio > 1 and slowness(record)):
        return
    if not 1 / TIMING_FACTOR <= ratio <= TIMING_FACTOR:
        yield (
            f"throughput x time is {ratio * record.samples:.0f} samples, the record has "
            f"{record.samples}: more than a factor of {TIMING_FACTOR:g} apart"
        )


def _averaging(record: RunRecord) -> Iterator[str]:
    """Averaging over rotations costs at least a pass."""
    single = record.inference.samples_per_second
    for name, rate in record.inference.twirl.items():
        if not (name.isascii() and name.isdigit() and int(name[:9]) >= 2 and len(name) < 9):
            yield f"inference.twirl holds {name!r}, which is no number of rotations"
        elif rate <= 0:
            yield f"inference.twirl.{name} is {rate:g} samples/s"
        elif single is not None and rate > TIMING_FACTOR * single:
            yield (
                f"averaging over {name} rotations runs at {rate:g} samples/s, "
                f"faster than a single pass at {single:g}"
            )


def _losses(record: RunRecord) -> Iterator[str]:
    """No loss is below what rounding of the labels leaves."""
    lowest = _lowest_loss(record)
    for where, test in evaluations(record):
        if test.total is not None and lowest is not None and test.total < lowest:
            yield (
                f"{where}: total {test.total:g} is below {lowest:g}, "
                "which rounding of the stored labels alone leaves"
            )
        if test.total is None:
            yield f"{where}: total is null, but an evaluation that is not finite ends the run"
        yield from _mean_squares(where, test, test.rotations)
        for key, part in test.by.items():
            yield from _mean_squares(f"{where}: {key!r}", part, test.rotations)
    for name, value in record.baselines.items():
        if value < 0:
            yield f"baselines.{name} is {value:g}"


def _mean_squares(where: str, part: Test | TestPart, rotations: int) -> Iterator[str]:
    total, equivariance, share = part.total, part.equivariance, part.share
    if equivariance is not None and equivariance < -ROUNDING * abs(total or 0.0):
        yield f"{where}: equivariance is {equivariance:g}, below zero; it is a mean of squares"
    # The unbiased spread of n predictions is at most n / (n - 1) of their mean squared error.
    largest = rotations / (rotations - 1) if rotations > 1 else math.inf
    if equivariance is not None and total and equivariance > largest * total * (1 + ROUNDING):
        yield (
            f"{where}: equivariance {equivariance:g} is more than {largest:g} times the total "
            f"{total:g}, the most with {rotations} rotations"
        )
    if share is not None and share < -ROUNDING:
        yield f"{where}: share is {share:g}, below zero; it is a ratio of means of squares"


def _symmetry(record: RunRecord) -> Iterator[str]:
    """A symmetry that holds has a share near its floor."""
    model = record.model
    if model.symmetry == "none" and model.symmetry_verified is not None:
        yield "model.symmetry_verified is given, but no symmetry is declared"
    if not model.symmetry_verified or record.final is None:
        return
    share, floor = record.final.share, record.final.floor
    if share is None or floor is None:
        return
    if share > max(VERIFIED_FACTOR * floor, VERIFIED_SHARE):
        yield (
            f"the declared symmetry {model.symmetry} is said to hold, "
            f"but the share is {share:g}, the floor {floor:g}"
        )


def _data(record: RunRecord) -> Iterator[str]:
    """The data are those of the data set that is named."""
    known = _dataset(record)
    if known is not None:
        name, version, found = record.dataset.name, record.dataset.version, record.dataset.sha256
        expected = known.checksums.get(version)
        if expected is not None and found != expected:
            yield (
                f"dataset.sha256 is {found[:12]}..., but {name} version {version} has "
                f"{expected[:12]}...: other data"
            )
        if known.task != record.task:
            yield f"the data set {name} belongs to the task {known.task}, not {record.task!r}"
    for split, size in record.dataset.sizes.items():
        if size <= 0:
            yield f"dataset.sizes.{split} is {size}"


def _unnamed_time(record: RunRecord) -> Iterator[str]:
    """The clock's named parts are nearly all of its time."""
    other, wall = record.clock.other, record.clock.wall
    if wall > 0 and other > OTHER_LIMIT * wall:
        yield f"clock.other is {other / wall:.0%} of the wall time, more than {OTHER_LIMIT:.0%}"


def _broken_symmetry(record: RunRecord) -> Iterator[str]:
    """A declared symmetry holds."""
    if record.model.symmetry_verified is False:
        reason = record.model.symmetry_reason or "no reason is given"
        yield f"the declared symmetry {record.model.symmetry} failed its measurement: {reason}"


def _dirty(record: RunRecord) -> Iterator[str]:
    """The code is that of a commit."""
    if record.git.dirty:
        yield "the code had uncommitted changes"


def _future(record: RunRecord) -> Iterator[str]:
    """It was made before today."""
    created = _time(record.created)
    if created is not None and timedelta(days=1) < created - _today() <= FUTURE:
        yield f"created {record.created!r} lies in the future"


def _uneven_timing(record: RunRecord) -> Iterator[str]:
    """Timed steps are about as fast as trained ones."""
    ratio = _timing_ratio(record)
    # Timed steps and trained steps differ by warm-up and by what else the machine does, not by a
    # factor of two.
    if ratio is not None and not 0.5 <= ratio <= 2:
        yield (
            f"throughput says {ratio * record.samples:.0f} samples in the time spent, "
            f"the record has {record.samples}"
        )


def _fast_averaging(record: RunRecord) -> Iterator[str]:
    """Averaging over rotations is slower than a pass."""
    single = record.inference.samples_per_second
    for name, rate in record.inference.twirl.items():
        if single and AVERAGING_GAIN * single < rate:
            yield (
                f"averaging over {name} rotations is said to be {rate / single:.1f} times as fast "
                "as a single pass"
            )


def _unknown_data(record: RunRecord) -> Iterator[str]:
    """The data set is registered here."""
    known, name, version = _dataset(record), record.dataset.name, record.dataset.version
    if known is None:
        yield f"the data set {name!r} is not known here, so its checksum cannot be checked"
    elif version not in known.checksums:
        yield (
            f"version {version!r} of {name} is not known here, so its checksum cannot be checked"
        )


def _unknown_device(record: RunRecord) -> Iterator[str]:
    """The device's peak is known here."""
    device = record.environment.device
    if device != "cpu" and _peak(record) is None:
        yield f"the peak of {device!r} is not known here, so its speed cannot be checked"


def _dataset(record: RunRecord) -> DatasetSpec | None:
    return DATASETS.known(record.dataset.name)


def _lowest_loss(record: RunRecord) -> float | None:
    """The loss that rounding leaves to whoever knows the labels exactly: as the data set declares
    it, or by float32 from the mean squared target (the zero predictor's loss)."""
    known = _dataset(record)
    declared = None if known is None else known.lowest_loss
    implied = itertools.chain(*implied_baselines(record).values())
    zero = record.baselines.get("zero", max(implied, default=None))
    rounding = None if zero is None else FLOAT32_VARIANCE * zero
    return max((bound for bound in (declared, rounding) if bound is not None), default=None)


def _busy(record: RunRecord) -> float:
    """Seconds of training with its data."""
    return record.clock.train + record.clock.data


def _timing_ratio(record: RunRecord) -> float | None:
    """Samples that the timed throughput gives in the time spent, over those of the record."""
    rate, busy = record.throughput.samples_per_second, _busy(record)
    if rate is None or busy <= 0 or record.samples <= 0:
        return None
    return rate * busy / record.samples


def _peak(record: RunRecord) -> Peak | None:
    where = record.environment
    return peak_of(where.device, where.cpu, where.threads)


def _time(text: str) -> datetime | None:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def _today() -> datetime:
    return max(datetime.now(UTC), MADE)


def _places(record: RunRecord) -> Iterator[str]:
    """It names no folder of a machine."""
    said = {
        "command": record.command,
        "model.config": record.model.config,
        "reason": record.reason,
        "reasons": record.reasons,
    }
    for name, value in said.items():
        if names_place(value):
            yield f"{name} names a folder of the machine that it was made on"


def _disturbed(record: RunRecord) -> Iterator[str]:
    """The run had its machine."""
    found = disturbance(record)
    if found is not None:
        yield f"{found}, so no time-based figure of it is used"


PLAUSIBILITY: tuple[Rule[RunRecord], ...] = (
    possible_date,
    _steps,
    _speed,
    _throughput,
    _averaging,
    _losses,
    _symmetry,
    _data,
)
UNUSUAL: tuple[Rule[RunRecord], ...] = (
    _unnamed_time,
    _disturbed,
    _broken_symmetry,
    _dirty,
    _future,
    _uneven_timing,
    _fast_averaging,
    _unknown_data,
    _unknown_device,
    unchecked,
    backdated,
    _places,
)
"""Rules that an honest record may break; what breaks them is remarked, not refused."""


RUN_RULES: tuple[Rule[RunRecord], ...] = (
    *CONSISTENCY,
    *CIRCUMSTANCES,
    *PLAUSIBILITY,
    departures,
    refusals,
)
"""What every record of a run must keep. The sentences come in this order."""


def problems(record: RunRecord) -> list[str]:
    """Why ``record`` cannot be right, one sentence each; empty if nothing contradicts itself, the
    device or the data."""
    return broken_rules(record, RUN_RULES)


def remarks(record: RunRecord) -> list[str]:
    """What is unusual about ``record`` without being wrong."""
    return [sentence for rule in UNUSUAL for sentence in rule(record)]


def incomparable(record: RunRecord) -> str | None:
    """Why ``record`` must not be compared with records of this version's rules, or None."""
    if record.rules_version == RULES_VERSION:
        return None
    return f"rules version {record.rules_version} is not this equivbench's {RULES_VERSION}"

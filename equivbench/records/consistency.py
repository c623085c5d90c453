"""Rules that a run record does not contradict itself, what its types cannot say and a reader takes
for granted. What a rule is: :mod:`equivbench.records.rules`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import pairwise

import msgspec

from equivbench.errors import UsageError
from equivbench.records.evaluations import EVALUATED, FINALS
from equivbench.records.files import strange_letter
from equivbench.records.rules import SUM_TOLERANCE, Rule, close, nulls, out_of_range
from equivbench.records.schema import RunRecord
from equivbench.records.store import record_place

MEANS_NONE = re.compile(
    r"reason|recipe\..*|model\.(?:wrapper|symmetry_reason)|model\.config\..*|budget\.extends"
    r"|throughput\.alternated_with|throughput\.step_seconds|throughput\.scaling_efficiency"
    r"|matching\.hardware|environment\.driver|git\..*|contest|unit|weights_sha256"
    r"|(?:trace|rungs|final_on_part|final_raw|final_ema|out_of_distribution)\b.*\.floor"
    r"|.*\.groups|.*\.by\..*\.over_best_untrained"
)
"""Fields whose null says "none" or follows from another field; every other null is a missing
measurement and needs a reason."""


def _names(record: RunRecord) -> Iterator[str]:
    """Names are plain and hold what they should, times and checksums are such."""
    try:
        record_place(record)
    except UsageError as error:
        yield str(error)
    seed_is_named = re.search(rf"(?<!\d){record.seed}(?!\d)", record.run_id)
    if record.preset not in record.run_id or not seed_is_named:
        yield (
            f"run_id {record.run_id!r} does not hold preset {record.preset!r} "
            f"and seed {record.seed}"
        )
    if not _is_utc(record.created):
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
        "devices": record.devices,
        "attempts": [attempt.machine_key for attempt in record.attempts],
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
    if not close(total, wall):
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
    if not close(budget.spent, counted):
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
    parameters = record.model.parameters
    if parameters is None and (record.steps or record.status != "failed"):
        yield f"model.parameters is null in a {record.status} run of {record.steps} steps"
    positive = {
        "model.parameters": 1 if parameters is None else parameters,
        "recipe.batch_size": record.recipe.batch_size,
        "recipe.learning_rate": record.recipe.learning_rate,
        "environment.threads": record.environment.threads,
        "devices_per_arm": record.devices_per_arm,
    }
    yield from (f"{name} is {value}" for name, value in positive.items() if value <= 0)
    fraction = record.recipe.augmentation_fraction
    if not 0 <= fraction <= 1:
        yield f"recipe.augmentation_fraction is {fraction:g}, not a fraction"
    weight = record.recipe.symmetry_loss
    if weight < 0:
        yield f"recipe.symmetry_loss is {weight:g}, but a penalty has no weight below zero"
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
        "scaling_efficiency": record.throughput.scaling_efficiency,
    }
    yield from out_of_range(measured)


def _throughput(record: RunRecord) -> Iterator[str]:
    """The throughput fits the seconds of the steps."""
    steps, rate = record.throughput.step_seconds, record.throughput.samples_per_second
    if record.devices_per_arm == 1 and record.throughput.scaling_efficiency is not None:
        yield "throughput.scaling_efficiency is given for an arm on one device"
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
    if not close(last.budget, budget.limit):
        yield f"the last rung is of {last.budget:g} {budget.kind}, the budget is {budget.limit:g}"
    if last.step != record.steps:
        yield f"the last rung is at step {last.step} of {record.steps}, not at the end"


def _attempts(record: RunRecord) -> Iterator[str]:
    """A run says which contest it is of and what worked on it, or, before there were plans, nothing
    of both."""
    attempts = record.attempts
    if record.unit is None:
        if attempts or record.devices or record.beside:
            yield "there are attempts, devices or contests beside it, but unit is null"
        return
    if not re.fullmatch(r"[0-9a-f]{20}", record.unit):
        yield f"unit {record.unit!r} is no digest of a contest"
    if not attempts or not record.devices:
        yield f"unit is given, but {'devices' if attempts else 'attempts'} is empty"
    if record.beside < 0:
        yield f"beside is {record.beside}, below zero"
    if len(record.devices) not in (0, record.devices_per_arm):
        yield (
            f"{len(record.devices)} devices are named, devices_per_arm is {record.devices_per_arm}"
        )
    # Not in order of their times: the clocks of two machines differ.
    for attempt in attempts:
        if not _is_utc(attempt.started):
            yield f"attempts: {attempt.started!r} is not an ISO 8601 time in UTC"
    for attempt in attempts[-1:]:
        if attempt.ended != record.status:
            yield f"status is {record.status}, but the last attempt ended as {attempt.ended}"
        if attempt.machine_key != record.environment.machine_key:
            yield (
                f"environment.machine_key is {record.environment.machine_key!r}, the last attempt "
                f"was on {attempt.machine_key!r}"
            )


def _is_utc(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).utcoffset() == timedelta(0)
    except ValueError:
        return False


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
    if not close(share.stalled_seconds, record.clock.stalled):
        yield (
            f"machine_share.stalled_seconds is {share.stalled_seconds:.9g}, "
            f"clock.stalled is {record.clock.stalled:.9g}"
        )


def _nulls(record: RunRecord) -> Iterator[str]:
    """A value that was not measured is null with a reason."""
    for path in nulls(msgspec.to_builtins(record)):
        if not _means_none(path) and not _is_explained(path, record.reasons):
            yield f"{path} is null and reasons has no entry for it"


@lru_cache(maxsize=1 << 14)
def _means_none(path: str) -> bool:
    """Whether a null there needs no reason; the records of a folder share their paths."""
    return MEANS_NONE.fullmatch(path) is not None


def _is_explained(path: str, reasons: Mapping[str, str]) -> bool:
    """Whether there is a reason for ``path`` or for a whole that it is part of; one without list
    positions serves them all."""
    names = path.split(".")
    for parts in (names, [name for name in names if not name.isdigit()]):
        if any(".".join(parts[:end]) in reasons for end in range(1, len(parts) + 1)):
            return True
    return False


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
    *EVALUATED,
    _attempts,
    _symmetry,
    _machine_share,
    _nulls,
)

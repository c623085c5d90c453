"""What a run record says of its machine, its code and its speed, held against itself: the key of
the machine, versions and commits, memory, energy, and rates that follow from one another."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterator
from typing import Any

import msgspec

from equivbench.records.disturbed import disturbance
from equivbench.records.rules import Rule, nulls
from equivbench.records.schema import RunRecord

_THREADS = re.compile(r"-([0-9]{1,6})t(?=-|$)")
_VERSION = re.compile(r"[0-9][0-9A-Za-z.+!_-]{0,60}")
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SAME = 1e-6
"""Relative: a mean over some numbers in float64."""
BYTES_A_PARAMETER = 8
"""A parameter is kept with its average, 4 bytes each."""
LEAST_PROCESS = 30 * 2**20
"""Bytes of a process that has imported torch: ten times as many in earnest."""
MOST_WRONG_REASONS = 20
"""After so many no further one is looked for: a hostile record can have thousands."""
LEAST_WATTS, MOST_WATTS = 1.0, 5000.0
"""Of one device, a board of several chips included."""
TIMING_STEPS = 100
"""Of fewer steps no rate is held against another one."""
UNDISTURBED_FACTOR = 5.0
"""Timed steps and trained steps of a run that had its machine: 0.8 to 1.1 in 24 records."""
LEAST_INFERENCE, MOST_INFERENCE = 0.05, 1000.0
"""Samples a second of a forward pass over those of a training step, which holds one: 2.1 to 4.2 in
24 records; large batches on a GPU make it more."""


def _machine_key(record: RunRecord) -> Iterator[str]:
    """The key of the machine names its threads."""
    where = record.environment
    named = _THREADS.search(where.machine_key)
    if named is not None and int(named[1]) != where.threads:
        yield (
            f"environment.machine_key {where.machine_key!r} is of {named[1]} threads, "
            f"environment.threads is {where.threads}"
        )
    if where.device == "cpu" and where.driver is not None:
        yield f"environment.driver is {where.driver!r}, but no GPU was used"


def _devices(record: RunRecord) -> Iterator[str]:
    """What an arm computed on is of the kind of its machine, each once."""
    on_cpu = record.environment.device == "cpu"
    for name in record.devices:
        kind, _, index = name.partition(":")
        if kind not in ("cpu", "cuda") or not (index.isdecimal() or name == kind):
            yield f"devices: {name!r} is no device"
        elif (kind == "cpu") != on_cpu:
            yield f"devices: {name!r} is not of the device {record.environment.device!r}"
    if len(set(record.devices)) < len(record.devices):
        yield "devices names one twice"


def _versions(record: RunRecord) -> Iterator[str]:
    """Versions are versions and hashes are hashes."""
    where, git = record.environment, record.git
    for name, version in {"python": where.python, **where.packages}.items():
        if not _VERSION.fullmatch(version):
            yield f"environment: {version!r} is no version of {name}"
    for name, found in (("commit", git.commit), ("tree", git.tree)):
        if found is not None and not _HASH.fullmatch(found):
            yield f"git.{name} {found!r} is not a hash in hexadecimal digits"
    if (git.commit is None) != (git.dirty is None):
        yield "git.commit and git.dirty are both known or both null"


def _memory(record: RunRecord) -> Iterator[str]:
    """The weights fit into the memory."""
    peak, parameters = record.memory.peak_bytes, record.model.parameters
    if peak is None or parameters is None:
        return
    least = BYTES_A_PARAMETER * parameters
    if record.environment.device == "cpu":
        least = max(least, LEAST_PROCESS)
    if record.steps > 0 and peak < least:
        yield f"memory.peak_bytes is {peak}, training {parameters} parameters takes {least}"


def _energy(record: RunRecord) -> Iterator[str]:
    """The energy is a device's over the time of the run."""
    joules, wall = record.energy_joules, record.clock.wall
    if joules is None:
        return
    if record.environment.device == "cpu":
        yield f"energy_joules is {joules:g}, but no energy counter is read on a CPU"
    elif wall > 0 and not LEAST_WATTS <= joules / wall <= MOST_WATTS:
        yield f"energy_joules over clock.wall is {joules / wall:.3g} W, which no device draws"


def _rates(record: RunRecord) -> Iterator[str]:
    """Rates follow from the blocks that were timed, and from one another."""
    timing, batch = record.throughput, record.recipe.batch_size
    rate, single = timing.samples_per_second, record.inference.samples_per_second
    if timing.blocks and min(timing.blocks) > 0 and rate:
        implied = batch / statistics.fmean(timing.blocks)
        if not math.isclose(rate, implied, rel_tol=_SAME):
            yield (
                f"throughput.samples_per_second is {rate:.9g}, "
                f"throughput.blocks make it {implied:.9g}"
            )
    fastest = 0.0 if timing.step_seconds is None else timing.step_seconds.p10
    # Every block is a mean of steps, so that the fastest steps are below the slowest block.
    if timing.blocks and fastest > max(timing.blocks) * (1 + _SAME):
        yield f"step_seconds.p10 is {fastest:g} s, longer than any of throughput.blocks"
    busy = record.clock.train + record.clock.data
    # Of a few steps, or beside other work, a rate says little of another timed a moment later.
    if not rate or record.steps < TIMING_STEPS or not _had_its_machine(record):
        return
    if record.samples > 0 and busy > 0:
        ratio = rate * busy / record.samples
        if not 1 / UNDISTURBED_FACTOR <= ratio <= UNDISTURBED_FACTOR:
            yield (
                f"throughput x time is {ratio:.3g} times the samples of the run, "
                "whose machine was not busy"
            )
    if single and not LEAST_INFERENCE <= single / rate <= MOST_INFERENCE:
        yield (
            f"forward passes make {single:.4g} samples a second, "
            f"{single / rate:.3g} times those of training"
        )


def _had_its_machine(record: RunRecord) -> bool:
    return record.machine_share is not None and disturbance(record) is None


def _reasons(record: RunRecord) -> Iterator[str]:
    """A reason is one of a null."""
    plain, wrong = msgspec.to_builtins(record), 0
    for path in record.reasons:
        found = list(_values_at(plain, path.split(".")))
        if not any(map(_holds_null, found)):
            what = "is not null" if found else "is not in the record"
            yield f"reasons says why {path} is null, which {what}"
            wrong += 1
            if wrong == MOST_WRONG_REASONS:
                return


def _values_at(value: Any, names: list[str]) -> Iterator[Any]:
    """What lies at a path; one that gives no position in a list is that of every position."""
    if not names:
        yield value
    elif isinstance(value, dict):
        if names[0] in value:
            yield from _values_at(value[names[0]], names[1:])
    elif isinstance(value, list):
        if names[0].isdecimal() and len(names[0]) < 7:
            for item in value[int(names[0]) :][:1]:
                yield from _values_at(item, names[1:])
        else:
            for item in value:
                yield from _values_at(item, names)


def _holds_null(value: Any) -> bool:
    if isinstance(value, dict | list):
        return bool(nulls(value))
    return value is None


CIRCUMSTANCES: tuple[Rule[RunRecord], ...] = (
    _machine_key,
    _devices,
    _versions,
    _memory,
    _energy,
    _rates,
    _reasons,
)

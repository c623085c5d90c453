"""How far a plan is, from the files of its results folder alone, whichever executor runs it.
Imports no torch."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from equivbench.errors import FailedError
from equivbench.execution.identity import code_version
from equivbench.execution.leases import (
    SILENT_SECONDS,
    ArmProgress,
    Lease,
    Leases,
    is_alive,
    local_owner,
)
from equivbench.execution.planned import PlanFolder, Unit
from equivbench.records.files import read_bounded
from equivbench.records.schema import ENDED, RunRecord
from equivbench.records.store import decode_record, record_files

Standing = Literal["waiting", "running", "done", "failed"]
STANDINGS: tuple[Standing, ...] = ("waiting", "running", "done", "failed")
_UNIT = re.compile(rb'"unit": "([0-9a-f]{20})"')


class UnitStanding(msgspec.Struct, kw_only=True, frozen=True):
    """Where one unit of a plan stands."""

    unit: str
    """Its digest."""
    pair: str
    seed: int
    labels: dict[str, str]
    """What tells it from other contests of the pair and the seed, such as a value of a sweep."""
    preset: str
    budget: str
    arms: list[str]
    state: Standing
    owner: str | None
    """Who works on it, if somebody does."""
    where: str | None
    """The same in words, with the devices."""
    doing: str | None
    progress: dict[str, ArmProgress]
    """How far each arm was when that was last said."""
    attempts: int
    machine_keys: list[str]
    """The kinds of machine on which it is finished, or else was worked on."""
    note: str | None
    """Why it waits or failed, where something is known."""


class _Ended(NamedTuple):
    """What of a record matters here."""

    arm: str
    contest: str | None
    machine_key: str
    budget: float
    status: str


def standings(results: str | Path) -> list[UnitStanding]:
    """Where every unit of the plan in ``results`` stands, by pair and seed.

    Raises ``FailedError`` where there is no plan.
    """
    folder = PlanFolder(results)
    units = folder.units()
    ended = _ended_runs(folder.results, {unit.digest for unit in units})
    return [
        _standing(unit, folder.leases(unit.digest), ended.get(unit.digest, ())) for unit in units
    ]


def _standing(unit: Unit, leases: Leases, ended: Sequence[_Ended]) -> UnitStanding:
    lease = leases.current()
    alive = None if lease is None else is_alive(lease.owner)
    silent = 0.0 if lease is None or alive is not None else leases.age()
    running = lease is not None and alive is not False and silent <= SILENT_SECONDS
    kinds, diverged = _finished_on(unit, ended)
    last = unit.attempts[-1].ended if unit.attempts else None
    note: str | None = None
    state: Standing
    if running:
        state = "running"
    elif kinds:
        state, note = "done", f"{', '.join(diverged)} diverged" if diverged else None
    elif last == "failed":
        state, note = "failed", "; ".join(unit.failures) or None
    else:
        state = "waiting"
        if unit.code != code_version():
            note = "it was planned with another version of the code, which alone can run it"
        elif last == "interrupted":
            note = "interrupted; run it again with --resume"
        elif last == "died":
            note = "its process is gone; run it again with --resume"
    first = unit.contest.jobs[0]
    return UnitStanding(
        unit=unit.digest,
        pair=unit.contest.pair,
        seed=unit.contest.seed,
        labels={**first.variant, **first.labels},
        preset=first.request.preset,
        budget=unit.contest.budget.text,
        arms=[job.arm for job in unit.contest.jobs],
        state=state,
        owner=lease.owner if running and lease is not None else None,
        where=_where(lease) if running and lease is not None else None,
        doing=lease.doing or None if running and lease is not None else None,
        progress=dict(lease.progress) if lease is not None else {},
        attempts=len(unit.attempts),
        machine_keys=kinds or list(dict.fromkeys(each.machine_key for each in unit.attempts)),
        note=note,
    )


def _finished_on(unit: Unit, ended: Sequence[_Ended]) -> tuple[list[str], list[str]]:
    """The kinds of machine on which all arms of ``unit`` came to their end, and the arms that
    diverged there."""
    limit, arms = unit.contest.budget.limit, {job.arm for job in unit.contest.jobs}
    its = [each for each in ended if each.budget == limit and unit.own in (None, each.contest)]
    kinds = sorted(
        kind
        for kind in {each.machine_key for each in its}
        if arms <= {each.arm for each in its if each.machine_key == kind}
    )
    diverged = {each.arm for each in its if each.machine_key in kinds and each.status == "diverged"}
    return kinds, sorted(diverged)


def _ended_runs(results: Path, digests: set[str]) -> Mapping[str, list[_Ended]]:
    """The runs in ``results`` that came to their end, by their unit, of those in ``digests``."""
    found: dict[str, list[_Ended]] = {}
    for unit, _, record in ended_records(results, digests):
        where, limit = record.environment.machine_key, record.budget.limit
        each = _Ended(record.arm, record.contest, where, limit, record.status)
        found.setdefault(unit, []).append(each)
    return found


def ended_records(results: Path, digests: set[str]) -> Iterator[tuple[str, Path, RunRecord]]:
    """(unit, file, record) of the runs in ``results`` that came to their end, of the units in
    ``digests``; each file is read once."""
    try:
        files = record_files(results)
    except FailedError:  # there are none yet
        return
    for path in files:
        # Most of a record is of no interest here, and not read as one unless it is of this plan.
        with contextlib.suppress(FailedError):
            data = read_bounded(path, follow=False)
            named = _UNIT.search(data)
            if named is None or named[1].decode() not in digests:
                continue
            record = decode_record(data, str(path))
            if record.unit is not None and record.status in ENDED:
                yield record.unit, path, record


def _where(lease: Lease) -> str:
    kind, _, name = lease.owner.partition(":")
    if kind == "local":
        boot, _, process = name.partition(":")
        here = local_owner().split(":")[1] == boot
        place = f"process {process.partition('-')[0]}" if here else "another machine"
    else:
        place = f"{kind} {name}" if name else "somewhere"
    devices = ", ".join(lease.devices)
    return f"{place} on {devices}" if devices else place

"""What executors that hand units to a cluster share: how a plan is named, which of its units are
left to do, and what came of them, read from the results folder."""

from __future__ import annotations

import os
import re
import sys
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from equivbench.errors import UsageError
from equivbench.execution.executors import KeptRecord, RunResult
from equivbench.execution.identity import unit_digest
from equivbench.execution.plan import RunPlan
from equivbench.execution.planned import PlanFolder, Unit
from equivbench.execution.standing import ended_records
from equivbench.records.schema import RunRecord

_KEY = re.compile(r"[a-z][a-z0-9_-]*")


def named(plan: RunPlan) -> RunPlan:
    """``plan`` with each job knowing its unit. Nothing of a machine is in it: devices and threads
    are settled where a unit runs.

    Raises ``UsageError`` where the plan asks for what is meant for one machine, and for what such
    an executor does not do.
    """
    request, name = plan.request, plan.request.executor
    if request.devices is not None or request.device.startswith("cuda:"):
        raise UsageError(
            f"--devices and --device cuda:N are those of one machine; with --executor {name} the "
            "scheduler gives each contest its device (--executor-option), so ask for --device cuda"
        )
    if request.extend is not None:
        raise UsageError(
            f"--executor {name} does not extend a run: ask for the longer --budget, or extend it "
            "with --executor local"
        )
    if any(job.split != "test" for job in plan.jobs):
        raise UsageError(
            f"--executor {name} takes runs that leave a record; trials of a tuning are run by "
            "--executor local"
        )
    contests = []
    for contest in plan.contests:
        digest = unit_digest(contest.jobs)
        jobs = tuple(msgspec.structs.replace(job, unit=digest) for job in contest.jobs)
        contests.append(replace(contest, jobs=jobs))
    return replace(plan, contests=tuple(contests))


def options_by_name(words: Sequence[str], reserved: Mapping[str, str]) -> dict[str, str]:
    """``--executor-option KEY=VALUE`` of a request, by key, an empty value for a bare key.

    Raises ``UsageError`` for what is no such option, for one that is given twice, and for a
    ``reserved`` key, with the reason.
    """
    found: dict[str, str] = {}
    for word in words:
        key, _, value = word.partition("=")
        key = key.strip().lstrip("-")
        if not _KEY.fullmatch(key) or not value.isprintable():
            raise UsageError(
                f"--executor-option takes KEY=VALUE, such as partition=gpu, not {word!r}"
            )
        if key in reserved:
            raise UsageError(f"--executor-option {key}: {reserved[key]}")
        if key in found:
            raise UsageError(f"--executor-option {key} is given twice")
        found[key] = value
    return found


def own_import_path() -> str:
    """Where this process imports from beyond its interpreter's own folders, as PYTHONPATH: what
    registers a user's models must be found on a node too."""
    paths = sysconfig.get_paths()
    names = ("stdlib", "platstdlib", "purelib", "platlib", "scripts")
    standard = [Path(paths[name]) for name in names]
    # The folder of the command itself, which Python puts first on the path of a script.
    user = sysconfig.get_preferred_scheme("user")
    standard.append(Path(sysconfig.get_path("scripts", user)))
    zipped = f"python{sys.version_info.major}{sys.version_info.minor}.zip"
    own = []
    for entry in map(os.path.abspath, sys.path):
        path = Path(entry)
        known = path in standard or path.name == zipped or path.name == "lib-dynload"
        if not known:
            own.append(entry)
    return os.pathsep.join(dict.fromkeys(own))


@dataclass(frozen=True)
class UnitRecords:
    """The records of some units, of runs that came to their end."""

    found: Mapping[str, Sequence[tuple[Path, RunRecord]]]

    @classmethod
    def read(cls, folder: PlanFolder, units: Iterable[Unit]) -> UnitRecords:
        """Read each file of the results once, and only those of the ``units`` as records."""
        found: dict[str, list[tuple[Path, RunRecord]]] = {}
        digests = {unit.digest for unit in units}
        for unit, path, record in ended_records(folder.results, digests):
            found.setdefault(unit, []).append((path, record))
        return cls(found)

    def of(self, unit: Unit) -> list[tuple[Path, RunRecord]]:
        """A record of each arm of ``unit``, all made on one kind of machine; empty where no kind
        has all."""
        limit = unit.contest.budget.limit
        kinds: dict[str, dict[str, tuple[Path, RunRecord]]] = {}
        for path, record in self.found.get(unit.digest, ()):
            if record.budget.limit == limit and unit.own in (None, record.contest):
                own = kinds.setdefault(record.environment.machine_key, {})
                own.setdefault(record.arm, (path, record))
        arms = [job.arm for job in unit.contest.jobs]
        whole = (own for _, own in sorted(kinds.items()) if set(arms) <= set(own))
        return next(([own[arm] for arm in arms] for own in whole), [])


def as_planned(folder: PlanFolder, units: Iterable[Unit]) -> list[Unit]:
    """The ``units`` as their files have them: a contest that was begun afresh, or that somebody
    else is at work on, has another name there."""
    return [folder.read(unit.digest) or unit for unit in units]


def unfinished(folder: PlanFolder, units: Sequence[Unit]) -> list[Unit]:
    """Those of which not every arm has its record."""
    units = as_planned(folder, units)
    records = UnitRecords.read(folder, units)
    return [unit for unit in units if not records.of(unit)]


def count_finished(folder: PlanFolder, units: Iterable[Unit]) -> int:
    """How many of ``units`` their own files say to be finished: quickly, for those who wait."""
    ended = [unit.attempts[-1].ended for unit in as_planned(folder, units) if unit.attempts]
    return ended.count("completed")


def outcome(folder: PlanFolder, units: Sequence[Unit], result: RunResult, lost: str) -> RunResult:
    """Add the records of the ``units`` to ``result``, and for each that is not finished, and of
    which nothing was said yet, a sentence that says why; ``lost`` is where to look."""
    units = as_planned(folder, units)
    records = UnitRecords.read(folder, units)
    for unit in units:
        own = records.of(unit)
        result.kept += [KeptRecord(record, path, None) for path, record in own]
        told = any(text.startswith(f"{unit.title}:") for text in result.failures)
        if own or told:
            continue
        ended = unit.attempts[-1].ended if unit.attempts else None
        known = {
            None: f"it was never begun; {lost}",
            "interrupted": "it was stopped, its state is saved",
            "completed": f"its records are not there; {lost}",
        }
        said = "; ".join(unit.failures) or known.get(ended, f"its process is gone; {lost}")
        result.failures.append(f"{unit.title}: {said}")
    return result

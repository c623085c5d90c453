"""Which run records may be compared: both arms of a pair under one setting, seed by seed, and never
anything else."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Literal

import msgspec

from equivbench.errors import EquivbenchError, FailedError, IncomparableError
from equivbench.records.disturbed import disturbance
from equivbench.records.schema import GroupErrors, RunRecord, TracePoint

EQUIVARIANT = "equivariant"
AUGMENTED = "augmented"
ARMS = (EQUIVARIANT, AUGMENTED)
Contestant = Literal["equivariant", "augmented"]
"""The two arms that are compared; a pair may have further ones, which are shown beside them."""


@dataclass(frozen=True, order=True)
class Setting:
    """All that two runs must share to be compared. An extended run (``budget.extends``) counts at
    the budget it extends."""

    task: str
    pair: str
    preset: str
    machine_key: str
    dataset: str
    dataset_sha256: str
    sizes: tuple[tuple[str, int], ...]
    rules_version: int
    budget_kind: str
    budget_limit: float
    variant: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, record: RunRecord) -> Setting:
        """The setting that ``record`` was run under."""
        return cls(
            task=record.task,
            pair=record.pair,
            preset=record.preset,
            machine_key=record.environment.machine_key,
            dataset=record.dataset.name,
            dataset_sha256=record.dataset.sha256,
            sizes=tuple(sorted(record.dataset.sizes.items())),
            rules_version=record.rules_version,
            budget_kind=record.budget.kind,
            budget_limit=record.budget.limit
            if record.budget.extends is None
            else record.budget.extends,
            variant=tuple(sorted(record.variant.items())),
        )

    @property
    def text(self) -> str:
        """The setting in words, for messages."""
        variant = "".join(f", {name} {value}" for name, value in self.variant)
        budget = f"{self.budget_limit:g} {self.budget_kind}"
        where = f"preset {self.preset}, {budget}{variant}, {self.machine_key}"
        return f"{self.task}/{self.pair} ({where})"


@dataclass(frozen=True)
class ArmRun:
    """One arm and seed: the run under the budget and, where there is one, the run that prolongs
    it."""

    record: RunRecord
    longer: RunRecord | None = None

    @property
    def diverged(self) -> bool:
        """Whether the run under the budget itself ended without a number."""
        return self.record.status == "diverged"

    def trace(self) -> tuple[list[TracePoint], GroupErrors | None]:
        """The evaluations with a usable loss, in order of steps, and their errors by test group
        (same order) or None.

        Points before the first step have no place on a logarithmic axis, nor has a loss of zero:
        both are left out.
        """
        points: list[TracePoint] = []
        errors: list[tuple[GroupErrors | None, int]] = []
        for record in (self.record, self.longer):
            if record is None:
                continue
            known = record.groups is not None and len(record.groups.total) == len(record.trace)
            for row, point in enumerate(record.trace):
                fresh = point.step > (points[-1].step if points else 0)
                if fresh and point.test.total is not None and point.test.total > 0:
                    points.append(point)
                    errors.append((record.groups if known else None, row))
        return points, _joined(errors)


def _joined(errors: Sequence[tuple[GroupErrors | None, int]]) -> GroupErrors | None:
    """The rows of ``errors`` as one; None where one has none, or they are of different groups."""
    known = [(groups, row) for groups, row in errors if groups is not None]
    if not known or len(known) < len(errors):
        return None
    weights = known[0][0].weights
    if any(groups.weights != weights for groups, _ in known):
        return None
    return GroupErrors(
        weights=weights,
        total=[groups.total[row] for groups, row in known],
        equivariance=[groups.equivariance[row] for groups, row in known],
    )


@dataclass(frozen=True)
class MatchedRuns:
    """Both arms under one setting, paired by seed: entry i of ``equivariant`` and of ``augmented``
    has seed ``seeds[i]``."""

    setting: Setting
    kernels: dict[str, str]
    seeds: tuple[int, ...]
    equivariant: tuple[ArmRun, ...]
    augmented: tuple[ArmRun, ...]
    notes: tuple[str, ...]

    @property
    def undecidable(self) -> str | None:
        """Why these runs decide nothing, however clear their losses: a run did not have its
        machine, or the arms of a seed did not take turns on it."""
        for run in (*self.equivariant, *self.augmented):
            found = disturbance(run.record)
            if found is not None:
                return f"{run.record.arm} seed {run.record.seed}: {found}"
        apart = [
            seed
            for seed, first, second in zip(
                self.seeds, self.equivariant, self.augmented, strict=True
            )
            if contest_of(first.record) != contest_of(second.record)
        ]
        if apart:
            plural = "seeds" if len(apart) > 1 else "seed"
            return f"the arms of {plural} {_listed(apart)} did not take turns in one contest"
        return None


@dataclass(frozen=True)
class Pairing:
    """What can be compared, and for everything that was left over an error that says why (not
    raised)."""

    matched: tuple[MatchedRuns, ...]
    problems: tuple[EquivbenchError, ...]


def pair_up(records: Sequence[RunRecord]) -> Pairing:
    """Sort ``records`` into comparisons. Arms other than ``equivariant`` and ``augmented`` take no
    part.

    Kernel backends are kept apart: an arm's runs on one backend are compared with the other arm's
    runs on the backend of the same name, or, where the other arm knows only one (a plain network
    has no equivariant operations), with that.
    """
    settings: dict[Setting, list[RunRecord]] = defaultdict(list)
    for record in records:
        if record.arm in ARMS:
            settings[Setting.of(record)].append(record)
    matched: list[MatchedRuns] = []
    problems: list[EquivbenchError] = []
    for setting in sorted(settings):
        equivariant = _by_kernels(settings[setting], EQUIVARIANT)
        augmented = _by_kernels(settings[setting], AUGMENTED)
        for first, second in _kernel_pairs(set(equivariant), set(augmented)):
            try:
                matched.append(_match(setting, equivariant[first], augmented[second]))
            except FailedError as error:
                problems.append(error)
    arms = {setting: {record.arm for record in settings[setting]} for setting in settings}
    return Pairing(tuple(matched), (*problems, *_one_armed(arms)))


def _by_kernels(records: Sequence[RunRecord], arm: str) -> dict[str, list[RunRecord]]:
    found: dict[str, list[RunRecord]] = defaultdict(list)
    for record in records:
        if record.arm == arm:
            found[record.model.kernels].append(record)
    return found


def _kernel_pairs(equivariant: set[str], augmented: set[str]) -> list[tuple[str, str]]:
    """Which backend of the equivariant arm is compared with which of the augmented one."""
    both = {(name, name) for name in equivariant & augmented}
    if len(augmented) == 1:
        both |= {(name, next(iter(augmented))) for name in equivariant}
    elif len(equivariant) == 1:
        both |= {(next(iter(equivariant)), name) for name in augmented}
    return sorted(both)


def _match(
    setting: Setting, equivariant: Sequence[RunRecord], augmented: Sequence[RunRecord]
) -> MatchedRuns:
    """Both arms' records seed by seed; raises ``FailedError`` if they have no seed in common."""
    notes: list[str] = []
    runs = {
        EQUIVARIANT: _seed_records(EQUIVARIANT, equivariant, notes),
        AUGMENTED: _seed_records(AUGMENTED, augmented, notes),
    }
    common = sorted(set(runs[EQUIVARIANT]) & set(runs[AUGMENTED]))
    partners = {seed: _partners(runs[EQUIVARIANT][seed], runs[AUGMENTED][seed]) for seed in common}
    if not common:
        seeds = " and ".join(f"{sorted(runs[arm]) or 'none'} ({arm})" for arm in ARMS)
        raise FailedError(
            f"{setting.text}: no seed was finished by both arms, seeds {seeds}; "
            "run both with the same seeds"
        )
    for arm in ARMS:
        alone = sorted(set(runs[arm]).difference(common))
        if alone:
            notes.append(
                f"seeds {_listed(alone)} of the {arm} arm have no partner and are left out"
            )
    versions = {
        str(run.record.environment.packages.get("torch"))
        for seed in common
        for run in partners[seed]
    }
    if len(versions) > 1:
        notes.append(f"the runs used different torch versions: {_listed(sorted(versions))}")
    return MatchedRuns(
        setting=setting,
        kernels={
            EQUIVARIANT: equivariant[0].model.kernels,
            AUGMENTED: augmented[0].model.kernels,
        },
        seeds=tuple(common),
        equivariant=tuple(partners[seed][0] for seed in common),
        augmented=tuple(partners[seed][1] for seed in common),
        notes=tuple(notes),
    )


def arm_runs(arm: str, records: Sequence[RunRecord], notes: list[str]) -> dict[int, ArmRun]:
    """The arm's runs by seed: one recipe (the newest), the newest record of each seed, its
    extension joined on. What is left out is put into ``notes``."""
    found = _seed_records(arm, records, notes)
    return {seed: _joined_run(own) for seed, own in found.items()}


def contest_of(record: RunRecord) -> str:
    """What the records of the arms of one contest share. Those that do not name it share the
    second in which it began."""
    return record.contest or record.created


def _seed_records(
    arm: str, records: Sequence[RunRecord], notes: list[str]
) -> dict[int, list[RunRecord]]:
    """The arm's records by seed, those of one recipe (the newest), ascending in time. What is left
    out is put into ``notes``."""
    usable = sorted(
        (record for record in records if _usable(record)),
        key=lambda record: (record.created, record.run_id),
    )
    unusable = len(records) - len(usable)
    if unusable:
        notes.append(
            f"{unusable} record{'s' * (unusable > 1)} of the {arm} arm failed or stopped early "
            "and are left out"
        )
    if not usable:
        return {}
    recipe = _recipe(usable[-1])
    current = [record for record in usable if _recipe(record) == recipe]
    if len(current) < len(usable):
        notes.append(
            f"{len(usable) - len(current)} older records of the {arm} arm have another recipe "
            "or size and are left out"
        )
    seeds = sorted({record.seed for record in current})
    return {seed: [each for each in current if each.seed == seed] for seed in seeds}


def _partners(
    equivariant: Sequence[RunRecord], augmented: Sequence[RunRecord]
) -> tuple[ArmRun, ArmRun]:
    """The runs of one seed that took turns in the newest contest that both arms have records of;
    the newest of each where there is none."""
    common = {contest_of(record) for record in equivariant} & {
        contest_of(record) for record in augmented
    }
    if common:
        newest = next(
            contest_of(each) for each in reversed(equivariant) if contest_of(each) in common
        )
        equivariant = [record for record in equivariant if contest_of(record) == newest]
        augmented = [record for record in augmented if contest_of(record) == newest]
    return _joined_run(equivariant), _joined_run(augmented)


def _joined_run(records: Sequence[RunRecord]) -> ArmRun:
    """The newest of one seed's ``records`` (the newest last) with its longest extension."""
    base = [record for record in records if record.budget.extends is None]
    longer = [record for record in records if record.budget.extends is not None]
    longest = max(longer, key=lambda record: record.budget.limit, default=None)
    if base:
        return ArmRun(base[-1], longest)
    # A run prolonged from the start covers the shorter budget too: each point is a result of that
    # smaller budget.
    assert longest is not None
    return ArmRun(longest)


def _usable(record: RunRecord) -> bool:
    return record.status == "diverged" or (
        record.status == "completed" and bool(ArmRun(record).trace()[0])
    )


def _recipe(record: RunRecord) -> bytes:
    model = (record.model.name, record.model.wrapper, record.model.parameters, record.model.config)
    return msgspec.json.encode((model, record.recipe), order="sorted")


def _one_armed(arms: dict[Setting, set[str]]) -> Iterable[EquivbenchError]:
    """An error for each setting with one arm only: incomparable where the other arm was run under
    another setting."""
    for setting in sorted(arms):
        if len(arms[setting]) != 1:
            continue
        (present,) = arms[setting]
        (absent,) = set(ARMS) - {present}
        same_pair = [
            other for other in arms if (other.task, other.pair) == (setting.task, setting.pair)
        ]
        elsewhere = [other for other in same_pair if absent in arms[other]]
        if elsewhere and not any(len(arms[other]) == 2 for other in same_pair):
            nearest = min(elsewhere, key=lambda other: len(_differences(setting, other)))
            differences = "; ".join(_differences(setting, nearest))
            yield IncomparableError(
                f"{setting.text}: the {absent} arm was run only with another {differences}; "
                "run both alike"
            )
        else:
            yield FailedError(
                f"{setting.text}: only the {present} arm has records; run the {absent} arm too"
            )


def _differences(first: Setting, second: Setting) -> list[str]:
    names = [each.name for each in fields(Setting)]
    unlike = [name for name in names if getattr(first, name) != getattr(second, name)]
    return [
        f"{name.replace('_', ' ')} ({getattr(first, name)} against {getattr(second, name)})"
        for name in unlike
    ]


def _listed(items: Iterable[object]) -> str:
    return ", ".join(str(item) for item in items)

"""Which run records may be compared: both arms of a pair under one setting, seed by seed, and never
anything else."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Literal

import msgspec

from equivbench.errors import EquivbenchError, FailedError, IncomparableError
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
        where = f"preset {self.preset}, {self.budget_limit:g} {self.budget_kind}{variant}, {self.machine_key}"
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
        errors: list[GroupErrors | None] = []
        rows: list[int] = []
        for record in (self.record, self.longer):
            if record is None:
                continue
            known = record.groups is not None and len(record.groups.total) == len(record.trace)
            for row, point in enumerate(record.trace):
                fresh = not points or point.step > points[-1].step
                if (
                    fresh
                    and point.step > 0
                    and point.test.total is not None
                    and point.test.total > 0
                ):
                    points.append(point)
                    rows.append(row)
                    errors.append(record.groups if known else None)
        found = [each for each in errors if each is not None]
        if (
            not found
            or len(found) < len(errors)
            or any(each.weights != found[0].weights for each in found)
        ):
            return points, None
        total = [each.total[row] for each, row in zip(found, rows, strict=True)]
        equivariance = [each.equivariance[row] for each, row in zip(found, rows, strict=True)]
        return points, GroupErrors(weights=found[0].weights, total=total, equivariance=equivariance)


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
    settings: dict[Setting, dict[str, dict[str, list[RunRecord]]]] = defaultdict(
        lambda: {arm: defaultdict(list) for arm in ARMS}
    )
    for record in records:
        if record.arm in ARMS:
            settings[Setting.of(record)][record.arm][record.model.kernels].append(record)
    comparisons: list[MatchedRuns] = []
    problems: list[EquivbenchError] = []
    for setting in sorted(settings):
        arms = settings[setting]
        if not all(arms.values()):
            continue
        for kernels in _kernel_pairs(set(arms[EQUIVARIANT]), set(arms[AUGMENTED])):
            chosen = {arm: arms[arm][name] for arm, name in zip(ARMS, kernels, strict=True)}
            try:
                comparisons.append(_compare(setting, dict(zip(ARMS, kernels, strict=True)), chosen))
            except FailedError as error:
                problems.append(error)
    problems += _one_armed(
        {setting: {arm for arm in ARMS if arms[arm]} for setting, arms in settings.items()}
    )
    return Pairing(tuple(comparisons), tuple(problems))


def _kernel_pairs(equivariant: set[str], augmented: set[str]) -> list[tuple[str, str]]:
    both = {(name, name) for name in equivariant & augmented}
    if len(augmented) == 1:
        both |= {(name, next(iter(augmented))) for name in equivariant}
    elif len(equivariant) == 1:
        both |= {(next(iter(equivariant)), name) for name in augmented}
    return sorted(both)


def _compare(
    setting: Setting, kernels: dict[str, str], records: dict[str, list[RunRecord]]
) -> MatchedRuns:
    notes: list[str] = []
    runs = {arm: arm_runs(arm, records[arm], notes) for arm in ARMS}
    common = sorted(set(runs[EQUIVARIANT]) & set(runs[AUGMENTED]))
    if not common:
        seeds = " and ".join(f"{sorted(runs[arm]) or 'none'} ({arm})" for arm in ARMS)
        raise FailedError(
            f"{setting.text}: no seed was finished by both arms, seeds {seeds}; run both with the same seeds"
        )
    for arm in ARMS:
        alone = sorted(set(runs[arm]).difference(common))
        if alone:
            notes.append(
                f"seeds {_listed(alone)} of the {arm} arm have no partner and are left out"
            )
    torch_versions = {
        run.record.environment.packages.get("torch")
        for arm in ARMS
        for seed in common
        if (run := runs[arm].get(seed)) is not None
    }
    if len(torch_versions) > 1:
        notes.append(
            f"the runs used different torch versions: {_listed(sorted(map(str, torch_versions)))}"
        )
    return MatchedRuns(
        setting=setting,
        kernels=kernels,
        seeds=tuple(common),
        equivariant=tuple(runs[EQUIVARIANT][seed] for seed in common),
        augmented=tuple(runs[AUGMENTED][seed] for seed in common),
        notes=tuple(notes),
    )


def arm_runs(arm: str, records: list[RunRecord], notes: list[str]) -> dict[int, ArmRun]:
    """The arm's runs by seed: one recipe (the newest), the newest record of each seed, its
    extension joined on."""
    usable = sorted(
        (record for record in records if _usable(record)),
        key=lambda record: (record.created, record.run_id),
    )
    unusable = len(records) - len(usable)
    if unusable:
        notes.append(
            f"{unusable} record{'s' * (unusable > 1)} of the {arm} arm failed or stopped early and are left out"
        )
    if not usable:
        return {}
    recipe = _recipe(usable[-1])
    current = [record for record in usable if _recipe(record) == recipe]
    if len(current) < len(usable):
        notes.append(
            f"{len(usable) - len(current)} older records of the {arm} arm have another recipe or size and are left out"
        )
    runs: dict[int, ArmRun] = {}
    for seed in sorted({record.seed for record in current}):
        own = [record for record in current if record.seed == seed]
        longer = [record for record in own if record.budget.extends is not None]
        base = [record for record in own if record.budget.extends is None]
        if base:
            longest = max(longer, key=lambda record: record.budget.limit, default=None)
            runs[seed] = ArmRun(base[-1], longest)
        else:
            # A run prolonged from the start covers the shorter budget too: each point is a result
            # of that smaller budget.
            runs[seed] = ArmRun(max(longer, key=lambda record: record.budget.limit))
    return runs


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
                f"{setting.text}: the {absent} arm was run only with another {differences}; run both alike"
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

"""Which run records may be compared: both arms of a pair under one setting, seed by seed, and never
anything else."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields

import msgspec

from equivbench.counted import counted
from equivbench.errors import EquivbenchError, FailedError, IncomparableError
from equivbench.gap.campaigns import campaigns, contest_of, telling_campaign
from equivbench.records.curves import Evaluation, ResultWeights, curve
from equivbench.records.declared import effective_variant
from equivbench.records.disturbed import disturbance
from equivbench.records.schema import RunRecord
from equivbench.specs import AUGMENTED, CONTESTANTS, EQUIVARIANT


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
            variant=tuple(sorted(effective_variant(record).items())),
        )

    @property
    def text(self) -> str:
        """The setting in words, for messages."""
        variant = "".join(f", {name} {value}" for name, value in self.variant)
        budget = f"{self.budget_limit:g} {self.budget_kind}"
        where = f"preset {self.preset} on {self.dataset}, {budget}{variant}, {self.machine_key}"
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

    def results(self, weights: ResultWeights = "annealed") -> list[Evaluation]:
        """The curve of these weights in order of steps, with what the extension adds, on the part
        of the test set that rungs are read on.

        What has no place on logarithmic axes is left out: no step, a loss of zero.
        """
        found: list[Evaluation] = []
        for record in (self.record, self.longer):
            for each in [] if record is None else curve(record, weights):
                fresh = each.step > (found[-1].step if found else 0)
                if fresh and each.test.total is not None and each.test.total > 0:
                    found.append(each)
        return found


@dataclass(frozen=True)
class MatchedRuns:
    """Both arms under one setting, paired by seed: entry i of ``equivariant`` and of ``augmented``
    has seed ``seeds[i]``. All are of one campaign (:func:`equivbench.gap.campaigns.campaigns`)."""

    setting: Setting
    kernels: dict[str, str]
    seeds: tuple[int, ...]
    unfinished: tuple[int, ...]
    """Further seeds, of which a run failed or was stopped."""
    equivariant: tuple[ArmRun, ...]
    augmented: tuple[ArmRun, ...]
    repetitions: dict[str, dict[int, list[float]]]
    """By arm and seed, the final losses of a seed that was run more than once; the first counts."""
    notes: tuple[str, ...]

    @property
    def arms(self) -> dict[str, tuple[ArmRun, ...]]:
        """The runs of each arm."""
        return {EQUIVARIANT: self.equivariant, AUGMENTED: self.augmented}

    @property
    def records(self) -> list[RunRecord]:
        """Those of both arms, extensions left out."""
        return [run.record for runs in self.arms.values() for run in runs]

    @property
    def finished(self) -> int:
        """Seeds that neither arm failed."""
        pairs = zip(self.equivariant, self.augmented, strict=True)
        return sum(not (first.diverged or second.diverged) for first, second in pairs)

    @property
    def disturbed(self) -> str | None:
        """Which run did not have its machine, and why; None if all had it."""
        for record in self.records:
            found = disturbance(record)
            if found is not None:
                return f"{record.arm} seed {record.seed}: {found}"
        return None

    @property
    def apart(self) -> tuple[int, ...]:
        """Seeds whose arms did not take turns in one contest."""
        return tuple(
            seed
            for seed, first, second in zip(
                self.seeds, self.equivariant, self.augmented, strict=True
            )
            if contest_of(first.record) != contest_of(second.record)
        )

    @property
    def undecidable(self) -> str | None:
        """Why these runs decide nothing, however clear their losses: a seed did not finish, the
        arms of one did not take turns, or a run did not have its machine."""
        started = len(self.seeds) + len(self.unfinished)
        if self.finished < started:
            return f"{self.finished} of {counted(started, 'seed')} finished"
        if self.apart:
            plural = "seeds" if len(self.apart) > 1 else "seed"
            return f"the arms of {plural} {_listed(self.apart)} did not take turns in one contest"
        return self.disturbed


@dataclass(frozen=True)
class Pairing:
    """What can be compared, and for everything that was left over an error that says why (not
    raised)."""

    matched: tuple[MatchedRuns, ...]
    problems: tuple[EquivbenchError, ...]


def pair_up(records: Sequence[RunRecord]) -> Pairing:
    """Sort ``records`` into comparisons. Arms other than ``equivariant`` and ``augmented`` take no
    part.

    Campaigns and kernel backends are kept apart: an arm's runs on one backend are compared with the
    other arm's runs on the backend of the same name, or, where the other arm knows only one (a
    plain network has no equivariant operations), with that.
    """
    settings: dict[Setting, list[RunRecord]] = defaultdict(list)
    for record in records:
        if record.arm in CONTESTANTS:
            settings[Setting.of(record)].append(record)
    matched: list[MatchedRuns] = []
    problems: list[EquivbenchError] = []
    for setting in sorted(settings):
        both = len({record.arm for record in settings[setting]}) == len(CONTESTANTS)
        for campaign in campaigns(settings[setting]):
            equivariant = _by_kernels(campaign, EQUIVARIANT)
            augmented = _by_kernels(campaign, AUGMENTED)
            if both and not (equivariant and augmented):
                problems.append(_alone(setting, campaign))
            for first, second in _kernel_pairs(set(equivariant), set(augmented)):
                partners = _without_partners_of_others(equivariant, first, augmented[second])
                try:
                    matched.append(_match(setting, equivariant[first], partners))
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


def _without_partners_of_others(
    equivariant: dict[str, list[RunRecord]], kernels: str, augmented: Sequence[RunRecord]
) -> list[RunRecord]:
    """The ``augmented`` records without those of contests in which the equivariant arm ran on other
    kernels only; all of them where none is left."""
    contests = {name: set(map(contest_of, own)) for name, own in equivariant.items()}
    others = set().union(*contests.values()) - contests[kernels]
    return [each for each in augmented if contest_of(each) not in others] or list(augmented)


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
        seeds = " and ".join(f"{sorted(runs[arm]) or 'none'} ({arm})" for arm in CONTESTANTS)
        raise FailedError(
            f"{setting.text}: no seed was finished by both arms, seeds {seeds}; "
            "run both with the same seeds"
        )
    for arm in CONTESTANTS:
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
    repetitions = {
        arm: {
            seed: _final_losses(own) for seed, own in runs[arm].items() if len(_unextended(own)) > 1
        }
        for arm in CONTESTANTS
    }
    for arm, repeated in repetitions.items():
        for seed, losses in repeated.items():
            spread = f", final losses {min(losses):.4g} to {max(losses):.4g}" if losses else ""
            notes.append(
                f"seed {seed} of the {arm} arm was run more than once, and the first counts{spread}"
            )
    stopped = {each.seed for each in (*equivariant, *augmented) if not _usable(each)}
    return MatchedRuns(
        setting=setting,
        kernels={
            EQUIVARIANT: equivariant[0].model.kernels,
            AUGMENTED: augmented[0].model.kernels,
        },
        seeds=tuple(common),
        unfinished=tuple(sorted(stopped.difference(common))),
        equivariant=tuple(partners[seed][0] for seed in common),
        augmented=tuple(partners[seed][1] for seed in common),
        repetitions=repetitions,
        notes=tuple(notes),
    )


def arm_runs(
    arm: str, records: Sequence[RunRecord], notes: list[str], holding: Collection[str] = ()
) -> dict[int, ArmRun]:
    """The arm's runs by seed: those of the campaign that says most
    (:func:`equivbench.gap.campaigns.telling_campaign`, to which ``holding`` goes) and of its recipe
    with the most seeds, the first record of each seed, its extension joined on. What is left out is
    put into ``notes``."""
    chosen = telling_campaign(records, holding)
    if len(chosen) < len(records):
        notes.append(
            f"left out {counted(len(records) - len(chosen), 'record')} of the {arm} arm, of "
            "another code or day"
        )
    found = _seed_records(arm, chosen, notes)
    return {seed: _joined_run(own) for seed, own in found.items()}


def _seed_records(
    arm: str, records: Sequence[RunRecord], notes: list[str]
) -> dict[int, list[RunRecord]]:
    """The arm's records by seed, those of one recipe (with the most seeds, the newest of equals),
    ascending in time. What is left out is put into ``notes``."""
    usable = sorted(
        (record for record in records if _usable(record)),
        key=lambda record: (record.created, record.run_id),
    )
    unusable = len(records) - len(usable)
    if unusable:
        notes.append(
            f"left out {counted(unusable, 'record')} of the {arm} arm, which failed or stopped "
            "early"
        )
    if not usable:
        return {}
    recipes: dict[bytes, list[RunRecord]] = defaultdict(list)
    # The newest first, which of equals is the one that is taken.
    for record in reversed(usable):
        recipes[_recipe(record)].append(record)
    current = max(recipes.values(), key=lambda own: len({record.seed for record in own}))[::-1]
    if len(current) < len(usable):
        notes.append(
            f"left out {counted(len(usable) - len(current), 'record')} of the {arm} arm, of "
            "another recipe or size"
        )
    by_seed: dict[int, list[RunRecord]] = defaultdict(list)
    for record in current:
        by_seed[record.seed].append(record)
    return {seed: own for seed, own in sorted(by_seed.items()) if _unextended(own)}


def _partners(
    equivariant: Sequence[RunRecord], augmented: Sequence[RunRecord]
) -> tuple[ArmRun, ArmRun]:
    """The runs of one seed that took turns in the first contest that both arms have records of;
    the first of each where there is none."""
    contests = [list(map(contest_of, _unextended(own))) for own in (equivariant, augmented)]
    common = next((contest for contest in contests[0] if contest in contests[1]), None)
    return _joined_run(equivariant, common), _joined_run(augmented, common)


def _joined_run(records: Sequence[RunRecord], contest: str | None = None) -> ArmRun:
    """The first of one seed's ``records`` (in order of time), of ``contest`` if one is named, with
    the longest extension of it; that of a repetition goes on from another run."""
    first = next(each for each in _unextended(records) if contest in (None, contest_of(each)))
    longer = [
        each
        for each in records
        if each.budget.extends is not None and contest_of(each) == contest_of(first)
    ]
    return ArmRun(first, max(longer, key=lambda record: record.budget.limit, default=None))


def _unextended(records: Sequence[RunRecord]) -> list[RunRecord]:
    return [record for record in records if record.budget.extends is None]


def _final_losses(records: Sequence[RunRecord]) -> list[float]:
    """In order of time, those of runs that diverged left out."""
    finals = [record.final for record in _unextended(records)]
    return [final.total for final in finals if final is not None and final.total is not None]


def _usable(record: RunRecord) -> bool:
    final = record.final
    measured = final is not None and final.total is not None and final.total > 0
    return record.status == "diverged" or (record.status == "completed" and measured)


def _recipe(record: RunRecord) -> bytes:
    model = (record.model.name, record.model.wrapper, record.model.parameters, record.model.config)
    return msgspec.json.encode((model, record.recipe), order="sorted")


def _alone(setting: Setting, campaign: Sequence[RunRecord]) -> FailedError:
    """Of a campaign that only one arm took part in."""
    first = min(campaign, key=lambda record: record.created)
    commit = f", commit {first.git.commit[:12]}" if first.git.commit else ""
    return FailedError(
        f"{setting.text}: the {first.arm} arm was run alone on {first.created[:10]}{commit}; "
        "run both arms in one contest"
    )


def _one_armed(arms: dict[Setting, set[str]]) -> Iterable[EquivbenchError]:
    """An error for each setting with one arm only: incomparable where the other arm was run under
    another setting."""
    for setting in sorted(arms):
        if len(arms[setting]) != 1:
            continue
        (present,) = arms[setting]
        (absent,) = set(CONTESTANTS) - {present}
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

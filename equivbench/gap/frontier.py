"""The frontier of each arm of a pair: the lowest loss that any of its sizes reaches in a budget, as
a power law of the budget above a floor, and the budget at which the arms' frontiers cross.

Everything stands on rungs, each the annealed result of its budget. ``K`` are the budgets, ``S`` the
seeds, ``G`` the test groups.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from equivbench.counted import counted
from equivbench.gap.campaigns import campaign_precedence
from equivbench.gap.finals import shared_groups
from equivbench.gap.intervals import (
    UNKNOWN,
    Band,
    Component,
    Quantity,
    exponential,
    geometric_mean,
    group_part,
    plain,
    ranked,
    student,
)
from equivbench.gap.leads import log_losses_at, tests_at_rungs, ungrouped
from equivbench.gap.loss_law import ENOUGH, FlooredPowerLaw, fit_law
from equivbench.gap.pairing import MatchedRuns, Setting, pair_up
from equivbench.records.curves import is_on_whole_set
from equivbench.records.declared import SWEEP
from equivbench.records.schema import RunRecord
from equivbench.specs import AUGMENTED, CONTESTANTS, EQUIVARIANT, Contestant
from equivbench.tabular import Tabular

Array = NDArray[np.float64]
DECLARED_SIZE = "1"
"""The factor on the widths of a run that is of no sweep."""
LEAST = 3
"""Budgets from which there is an exponent at all."""
REACH = 100.0
"""How far beyond the largest budget a crossing is looked for."""
_STEP = 1e-4
"""In logarithms, for derivatives by differences."""


@dataclass(frozen=True)
class LossLaw:
    """loss = floor + prefactor * seconds ** -exponent; the prefactor and the floor in the unit of
    the loss."""

    exponent: Quantity
    prefactor: Quantity
    floor: Quantity
    """All None where there are too few budgets to fit one; the law is then fitted without."""


@dataclass(frozen=True)
class ArmFrontier:
    """The frontier of one arm."""

    sizes: list[str]
    """Factor on the declared widths of the best size at each budget."""
    losses: list[Quantity]
    """Of that size; the mean over seeds is geometric."""
    law: LossLaw


@dataclass(frozen=True)
class FrontierCrossing:
    """The fitted laws cross at a budget of ``seconds``, from which on ``to`` has the lower loss."""

    seconds: Quantity
    to: Contestant
    extrapolated: bool
    """Whether that lies beyond the largest budget that was measured."""


@dataclass(frozen=True)
class PairFrontier(Tabular):
    """The frontiers of the two arms of a pair under one setting."""

    table_factory: ClassVar[str] = "equivbench.report.frontier:one_frontier_table"

    task: str
    pair: str
    preset: str
    machine_key: str
    dataset: str
    dataset_sha256: str
    sizes: dict[str, int]
    """Samples of each split."""
    rules_version: int
    variant: dict[str, str]
    kernels: dict[str, str]
    seeds: list[int]
    tried: list[str]
    """The sizes that were run, as factors on the declared widths."""
    seconds: list[float]
    """The budgets, ascending."""
    arms: dict[str, ArmFrontier]
    ahead: Contestant
    """The arm with the lower loss at the largest budget; the gap says whether that is decided."""
    crossing: FrontierCrossing | None
    """None where the laws do not cross between the least budget and :data:`REACH` times the
    largest."""
    crossing_seeds: list[int]
    """The seeds whose own laws cross there: to the arm of ``crossing``, where there is one."""
    on_whole_set: bool
    """Whether the losses are those of the whole test set, and not of the part of it that rungs are
    read on."""

    @property
    def not_falling(self) -> list[str]:
        """The arms whose law is not surely a falling one, the interval of its exponent being open
        below or holding values that are not above 0: where it crosses another is not decided."""
        return [arm for arm, own in self.arms.items() if (own.law.exponent.low or 0.0) <= 0]

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        import msgspec

        found: dict[str, Any] = msgspec.to_builtins(self)
        return found


@dataclass(frozen=True)
class Frontiers:
    """``found``, and in words why others are missing (``left_out``)."""

    found: list[PairFrontier]
    left_out: list[str]


def frontiers(records: Sequence[RunRecord]) -> Frontiers:
    """The frontier of every setting in ``records`` whose budget is in seconds: runs of the pair as
    declared, and those of a sweep over its size.

    The intervals are over seeds and test groups, that of a crossing over seeds alone. They do not
    cover that the loss may follow another law, nor that the best size was chosen on the same runs.
    """
    by_setting: dict[tuple[Setting, str], dict[str, list[MatchedRuns]]] = defaultdict(
        lambda: defaultdict(list)
    )
    pairing = pair_up(records)
    left_out = [str(problem) for problem in pairing.problems]
    for runs in pairing.matched:
        label, value = (dict(runs.setting.variant).get(name) for name in SWEEP)
        if label in (None, "size"):
            key = _without_size(runs.setting), str(sorted(runs.kernels.items()))
            by_setting[key][value or DECLARED_SIZE].append(runs)
    found = []
    for (setting, _), sizes in by_setting.items():
        counting = {size: _telling(own) for size, own in sizes.items()}
        for size, own in sizes.items():
            if len(own) > 1:
                left_out.append(
                    f"{setting.text}: of {len(own)} sets of runs of size {size}, of another code "
                    f"or day, that of {_day(counting[size])} counts "
                    f"({counted(len(counting[size].seeds), 'seed')})"
                )
        ordered = dict(sorted(counting.items(), key=lambda each: float(each[0])))
        frontier = _frontier(setting, ordered)
        if isinstance(frontier, str):
            left_out.append(f"{setting.text}: {frontier}")
        else:
            found.append(frontier)
    return Frontiers(found, left_out)


def _telling(own: Sequence[MatchedRuns]) -> MatchedRuns:
    """Of the runs of several campaigns, in order of time, those that count."""
    return max(
        reversed(own),
        key=lambda runs: campaign_precedence(len(runs.seeds), runs.disturbed is not None),
    )


def _day(runs: MatchedRuns) -> str:
    return min(record.created for record in runs.records)[:10]


def _without_size(setting: Setting) -> Setting:
    return replace(setting, variant=tuple(each for each in setting.variant if each[0] not in SWEEP))


@dataclass(frozen=True)
class _Losses:
    """Of one arm: ``logs`` [K, S] of the losses and ``influence`` [K, G] of the test groups on
    their means over seeds; [K, 0] where groups are not known."""

    logs: Array
    influence: Array

    @property
    def means(self) -> Array:
        """[K], over seeds."""
        return np.asarray(self.logs.mean(axis=1))


def _frontier(setting: Setting, sizes: dict[str, MatchedRuns]) -> PairFrontier | str:
    pair = f"{setting.task}/{setting.pair}"
    if setting.budget_kind != "seconds":
        return (
            f"its budget is in {setting.budget_kind} and a frontier is over seconds; `equivbench "
            f"run {pair} --budget 60s --rungs 5` makes one"
        )
    tests = {}
    for size, runs in sizes.items():
        at_rungs = tests_at_rungs(runs)
        if isinstance(at_rungs, str):
            return f"size {size}: {at_rungs}"
        tests[size] = at_rungs
    budgets = sorted(set.intersection(*(set(each) for each in tests.values())))
    seeds = sorted(set.intersection(*(set(runs.seeds) for runs in sizes.values())))
    if len(budgets) < LEAST or not seeds:
        have, command = "arms have", f"run {pair}"
        if set(sizes) != {DECLARED_SIZE}:
            have = "sizes share"
            command = f"analyze sweep {pair} --over size --values {','.join(sizes)}"
        return (
            f"its {have} {counted(len(budgets), 'budget')} and {counted(len(seeds), 'seed')}, and "
            f"a frontier takes {LEAST} and 1; `equivbench {command} --rungs 5` makes one"
        )
    every = [
        test
        for size in tests.values()
        for arms in size.values()
        for own in arms.values()
        for test in own
    ]
    if not shared_groups(every):
        tests = {size: ungrouped(each) for size, each in tests.items()}
    known: dict[str, dict[str, _Losses]] = {arm: {} for arm in CONTESTANTS}
    for size, runs in sizes.items():
        order = [runs.seeds.index(seed) for seed in seeds]
        for arm in CONTESTANTS:
            at = [log_losses_at([tests[size][b][arm][i] for i in order]) for b in budgets]
            known[arm][size] = _Losses(
                np.array([logs for logs, _ in at]),
                np.array([influence.mean(axis=0) for _, influence in at]),
            )
    log_seconds = np.log(budgets)
    fits = {arm: _Fit.of(log_seconds, own) for arm, own in known.items()}
    last = {arm: float(fit.losses.means[-1]) for arm, fit in fits.items()}
    crossing, crossed = _crossing(fits[EQUIVARIANT], fits[AUGMENTED])
    return PairFrontier(
        task=setting.task,
        pair=setting.pair,
        preset=setting.preset,
        machine_key=setting.machine_key,
        dataset=setting.dataset,
        dataset_sha256=setting.dataset_sha256,
        sizes=dict(setting.sizes),
        rules_version=setting.rules_version,
        variant=dict(setting.variant),
        kernels=next(iter(sizes.values())).kernels,
        seeds=seeds,
        tried=list(sizes),
        seconds=budgets,
        arms={arm: fit.frontier() for arm, fit in fits.items()},
        ahead="equivariant" if last[EQUIVARIANT] < last[AUGMENTED] else "augmented",
        crossing=crossing,
        crossing_seeds=[seed for seed, own in zip(seeds, crossed, strict=True) if own],
        on_whole_set=all(is_on_whole_set(each) for runs in sizes.values() for each in runs.records),
    )


@dataclass(frozen=True)
class _Fit:
    """The law through the frontier of one arm: through the means over seeds, and seed by seed."""

    log_seconds: Array
    sizes: list[str]
    losses: _Losses
    law: FlooredPowerLaw
    by_seed: list[FlooredPowerLaw]

    @classmethod
    def of(cls, log_seconds: Array, known: dict[str, _Losses]) -> _Fit:
        """At each budget the losses of the size with the lowest mean."""
        best = [
            min(known, key=lambda size: float(known[size].means[k]))
            for k in range(len(log_seconds))
        ]
        losses = _Losses(
            np.array([known[size].logs[k] for k, size in enumerate(best)]),
            np.array([known[size].influence[k] for k, size in enumerate(best)]),
        )
        by_seed = [fit_law(log_seconds, seed) for seed in losses.logs.T]
        return cls(log_seconds, best, losses, fit_law(log_seconds, losses.means), by_seed)

    def frontier(self) -> ArmFrontier:
        """With an interval on everything."""
        losses = zip(self.losses.logs, self.losses.influence, strict=True)
        moved = sensitivities(
            lambda means: np.array(fit_law(self.log_seconds, means)), self.losses.means
        )
        bands = [
            student(
                np.array([self.law[which]]),
                np.array([[law[which]] for law in self.by_seed]),
                *_groups(moved[:, which] @ self.losses.influence),
            )
            for which in range(len(self.law))
        ]
        prefactor, exponent, floor = bands
        return ArmFrontier(
            self.sizes,
            [geometric_mean(logs, *_groups(influence)) for logs, influence in losses],
            LossLaw(
                exponent=plain(exponent),
                prefactor=exponential(prefactor),
                floor=self._floor(floor) if len(self.log_seconds) >= ENOUGH else UNKNOWN,
            ),
        )

    def _floor(self, band: Band) -> Quantity:
        """Where all fits lie at the bound of 0 they move with nothing, so that nobody knows how far
        above it the floor may be."""
        at_bound = not any(law.floor for law in (self.law, *self.by_seed))
        found = plain(band, least=0.0)
        return replace(found, high=None) if at_bound else found


def _groups(influence: Array) -> list[Component]:
    """The part of the variance that is due to the test groups, which move an estimate by
    ``influence`` [G]; none where they are not known."""
    return [group_part(influence[:, None])] if influence.size > 1 else []


def sensitivities(estimates: Callable[[Array], Array], at: Array) -> Array:
    """[K, P]: the derivatives of the P ``estimates`` by each of the numbers ``at`` [K]."""
    steps = _STEP * np.eye(len(at))
    return np.array([(estimates(at + step) - estimates(at - step)) / (2 * _STEP) for step in steps])


def _crossing(equivariant: _Fit, augmented: _Fit) -> tuple[FrontierCrossing | None, list[bool]]:
    """Where the laws cross for the last time within reach, and of each seed whether its own do: to
    the same arm, where those of the means cross.

    A seed whose laws do not counts as crossing before or beyond it.
    """
    log_seconds = equivariant.log_seconds
    grid = np.linspace(log_seconds[0], log_seconds[-1] + math.log(REACH), 2000)

    def difference(first: FlooredPowerLaw, second: FlooredPowerLaw) -> Array:
        return first.log_loss(grid) - second.log_loss(grid)

    overall = difference(equivariant.law, augmented.law)
    own = [
        difference(first, second)
        for first, second in zip(equivariant.by_seed, augmented.by_seed, strict=True)
    ]
    turns = [_last_turn(grid, each) for each in own]
    where = _last_turn(grid, overall)
    if where is None:
        return None, [turn is not None for turn in turns]
    ends_above = bool(overall[-1] > 0)
    by_seed = []
    for each, turn in zip(own, turns, strict=True):
        if bool(each[-1] > 0) != ends_above:
            by_seed.append(math.inf)
        else:
            by_seed.append(-math.inf if turn is None else turn)
    seeds = np.array(by_seed)[:, None]
    if np.isfinite(seeds).all():
        band = student(np.array([where]), seeds)
    else:
        band = replace(ranked(seeds), mid=np.array([where]))
    crossing = FrontierCrossing(
        exponential(band),
        "augmented" if ends_above else "equivariant",
        extrapolated=bool(where > log_seconds[-1]),
    )
    return crossing, [math.isfinite(each) for each in by_seed]


def _last_turn(grid: Array, difference: Array) -> float | None:
    """Where ``difference`` on ``grid`` changes its sign for the last time; None where it never
    does."""
    turns = np.flatnonzero(np.signbit(difference[1:]) != np.signbit(difference[:-1]))
    if not len(turns):
        return None
    k = int(turns[-1])
    fraction = difference[k] / (difference[k] - difference[k + 1])
    return float(grid[k] + fraction * (grid[k + 1] - grid[k]))

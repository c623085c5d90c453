"""What records say of the commits that they were measured at, as results of asv: the ladder, the
kernels, and of each pair the loss ratio, the seconds a sample and where its arms tie.

Names are those of ``benchmarks/`` under a module of their own, ``records``: a run of a minute and
one of ``dev`` are never one series.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from equivbench.gap.campaigns import LEAD_SEEDS
from equivbench.gap.efficiency import PairGap
from equivbench.gap.intervals import Quantity
from equivbench.gap.pairing import MatchedRuns, pair_up
from equivbench.gap.remembered import gaps_of
from equivbench.records.declared import as_declared
from equivbench.records.ladder import LadderEntry, placed
from equivbench.records.line_files import KernelSamples, of_newest_code
from equivbench.records.schema import Environment
from equivbench.records.submission import admit
from equivbench.report.board import whole_rate
from equivbench.report.gaps import budget_text, kernels_text
from equivbench.report.publication import load_kernels, load_ladder


class Told(NamedTuple):
    """What asv shows of a benchmark."""

    parameter: str
    unit: str
    says: str


LADDER = "records.Ladder.track_seconds_to_target"
KERNELS = "records.Kernels.track_seconds"
LOSS_RATIO = "records.Pairs.track_loss_ratio"
TIME_RATIO = "records.Pairs.track_step_time_ratio"
STEPS_AT_TIE = "records.Ties.track_steps_at_break_even"
TIME_AT_TIE = "records.Ties.track_time_at_break_even"
SECONDS = "records.Arms.track_seconds_per_sample"
BENCHMARKS = {
    LADDER: Told(
        "rung",
        "seconds",
        "Seconds of training and data until the annealed loss is down at the target: geometric "
        "mean over seeds.",
    ),
    KERNELS: Told("kernel", "seconds", "Seconds a call: the least of all rounds."),
    LOSS_RATIO: Told(
        "pair",
        "ratio",
        "Equivariant over augmented test loss at the end of the budget: geometric mean over seeds.",
    ),
    TIME_RATIO: Told(
        "pair", "ratio", "Equivariant over augmented seconds a sample, from steps taken in turn."
    ),
    STEPS_AT_TIE: Told(
        "pair",
        "ratio",
        "Part of its steps at which the equivariant arm ties with the augmented one's end; where "
        "the augmented arm is in front, one over its own part.",
    ),
    TIME_AT_TIE: Told(
        "pair",
        "ratio",
        "Likewise of its time: the equivariant arm's s*, or one over the augmented arm's.",
    ),
    SECONDS: Told(
        "arm", "seconds", "Seconds of training and data a sample: geometric mean over seeds."
    ),
}


class Measured(NamedTuple):
    """One value of one commit on one machine; lower is better."""

    benchmark: str
    parameter: str
    commit: str
    created: str
    """UTC, ISO 8601."""
    where: Environment
    value: float


def measured(results: Path) -> list[Measured]:
    """What is to be compared of the records at or below ``results``: one value of each benchmark,
    parameter, machine and commit.

    Raises ``FailedError`` where a file of results is not valid.
    """
    admitted = admit(results, needed=False)
    pairing = pair_up(admitted.outlines)
    gaps = zip(gaps_of(admitted, pairing), pairing.matched, strict=True)
    found = [
        *(*of_ladder(load_ladder(results)), *of_kernels(load_kernels(results))),
        *of_pairs(gaps),
    ]
    return list({(*each[:3], each.where.machine_key): each for each in found}.values())


def of_ladder(entries: Iterable[LadderEntry]) -> Iterator[Measured]:
    """The times to the target of ``entries`` whose seeds are enough and all came down to it, the
    newest of a commit last."""
    for each in (each for ladder in placed(entries) for each in ladder):
        entry = each.entry
        if each.placing in ("few seeds", "not reached") or entry.censored or not entry.seconds:
            continue
        arm = f"{entry.task}/{entry.pair}/{entry.arm}"
        rung = f"{arm}, {entry.preset}, to {entry.target:g}, {entry.kernels}"
        where = (str(entry.git.commit), entry.created, entry.environment)
        yield Measured(LADDER, rung, *where, entry.seconds)


def of_kernels(samples: Iterable[KernelSamples]) -> Iterator[Measured]:
    """The seconds of ``samples``, of a commit those that count on the board; without those of a
    tree with changes, of a throttled GPU, and of other work or another setting of the allocator
    than the newest of the same kernel on the same machine."""
    usable = [
        each
        for each in sorted(samples, key=lambda each: each.created)
        if each.git.dirty is False and not each.device_state.get("throttled_rounds")
    ]
    newest = {each.identity: _work(each) for each in usable}
    commits: dict[str, list[KernelSamples]] = defaultdict(list)
    for each in usable:
        if _work(each) == newest[each.identity]:
            commits[str(each.git.commit)].append(each)
    for commit, own in commits.items():
        for first, *_ in of_newest_code(own):
            dtype = "" if first.dtype == "float32" else f"/{first.dtype}"
            kernel = "/".join(first.key) + dtype
            where = (commit, first.created, first.environment)
            yield Measured(KERNELS, kernel, *where, min(first.rounds))


def _work(sample: KernelSamples) -> tuple[object, ...]:
    return sample.operations, sample.bytes_fused, sample.allocator


def of_pairs(gaps: Iterable[tuple[PairGap, MatchedRuns]]) -> Iterator[Measured]:
    """The values of ``gaps`` whose runs may be compared, of several campaigns of a commit those
    that count last."""
    for gap, runs in sorted(gaps, key=lambda each: each[0].precedence):
        if comparable(gap, runs):
            yield from _of_gap(gap, runs)


def comparable(gap: PairGap, runs: MatchedRuns) -> bool:
    """Whether ``runs`` are of the pair as it is declared, of committed code, and could decide who
    leads: three seeds or more, all finished, in turn, on a machine of their own."""
    clean = all(record.git.dirty is False for record in runs.records)
    whole = runs.undecidable is None and gap.n_seeds >= LEAD_SEEDS
    return clean and whole and as_declared(gap.variant)


def _of_gap(gap: PairGap, runs: MatchedRuns) -> Iterator[Measured]:
    variant = "".join(f", {name} {value}" for name, value in sorted(gap.variant.items()))
    data = f"{gap.dataset['name']} {gap.dataset['sha256'][:8]}"
    under = f"{gap.preset}, {budget_text(gap)}, {data}, rules {gap.rules_version}{variant}"
    pair, first = f"{gap.task}/{gap.pair}", runs.records[0]
    where = (str(gap.commit), first.created, first.environment)
    both = f"{pair}, {under}, {kernels_text(gap)}"
    steps = gap.sample_efficiency, gap.sample_efficiency_augmented
    time = gap.s_star_equivariant.steady, gap.s_star_augmented.steady
    values = [
        (LOSS_RATIO, both, gap.loss_ratio.value),
        (TIME_RATIO, both, gap.throughput_ratio.steady.value),
        (STEPS_AT_TIE, both, tie(*steps)),
        (TIME_AT_TIE, both, tie(*time)),
    ]
    for arm, own in runs.arms.items():
        rates = [rate for run in own if (rate := whole_rate(run.record))]
        seconds = 1 / statistics.geometric_mean(rates) if rates else None
        name = f"{pair}/{arm}, {under}, {gap.kernels[arm]}"
        values.append((SECONDS, name, seconds))
    for benchmark, parameter, value in values:
        if value:
            yield Measured(benchmark, parameter, *where, value)


def tie(own: Quantity, other: Quantity) -> float | None:
    """Where the arms tie, as ``benchmarks/pairs.py`` tracks it: the equivariant arm's ``own`` part,
    or one over that of the ``other``; None where neither comes down to the other's end."""
    parts = (own, other.map(lambda value: 1 / value) if other.value else other)
    return next((each.value for each in parts if each.value and each.censored is None), None)

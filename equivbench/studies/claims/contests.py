"""C4 and C5, of pairs whose both arms were run: that the symmetry error is a small part of the loss
all along, and which arm has the lower loss for the same device time."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

from equivbench.gap.campaigns import LEAD_SEEDS, contest_of, telling_campaign
from equivbench.gap.efficiency import PairGap
from equivbench.gap.finals import mean_share
from equivbench.gap.intervals import UNKNOWN, Quantity, over_seeds
from equivbench.gap.matched import END, LossLevel, MatchedShares, log_end, matched_shares
from equivbench.gap.pairing import Setting
from equivbench.records.curves import ResultWeights, curve, final_of
from equivbench.records.schema import RunRecord
from equivbench.report.gaps import OTHER, headline, setting
from equivbench.report.text import percent_text, quantity_text, seconds_text
from equivbench.specs import AUGMENTED, EQUIVARIANT
from equivbench.studies.claims.evidence import MachineEvidence
from equivbench.studies.claims.findings import (
    ClaimFigure,
    ClaimPart,
    ClaimVerdict,
    above,
    decide,
    figure,
    make_part,
    percent,
    within,
)
from equivbench.studies.claims.headline import Headline, changes_text, telling_headlines
from equivbench.studies.claims.shares import (
    AugmentedArm,
    augmented_arms,
    gap_of,
    longest,
    rests_on,
)
from equivbench.studies.claims.statements import LEARNT, SMALL_PENALTY

ROUNDING = 1e-9
"""Of a logarithm of a loss."""


def costs_little(machine: MachineEvidence, weights: ResultWeights) -> list[ClaimPart]:
    """C4: a part for each pair of which both arms were run, over the levels of loss that all seeds
    of the augmented one reach."""
    split = [
        record
        for record in machine.declared
        if any(at.test.share is not None for at in curve(record, weights))
    ]
    gaps = machine.gaps
    # An arm that ran alone, however long, has no other's losses to be matched with.
    contests = [
        arm for arm in augmented_arms(split, gaps) if gap_of(arm.setting, arm.kernels, gaps)
    ]
    return [
        _penalty_part(_readable(split, arm, gap, weights), arm, gap, weights)
        for arm in longest(contests)
        if (gap := gap_of(arm.setting, arm.kernels, gaps))
    ]


def _readable(
    records: Sequence[RunRecord], arm: AugmentedArm, gap: PairGap, weights: ResultWeights
) -> MatchedShares:
    """The shares of ``arm`` and of those that it ran beside, in the campaign of ``gap``."""
    alike = [record for record in records if Setting.of(record) == arm.setting]
    (found,) = matched_shares(telling_campaign(alike, gap.contests), weights)
    return found


def _penalty_part(
    readable: MatchedShares, arm: AugmentedArm, gap: PairGap, weights: ResultWeights
) -> ClaimPart:
    blind = min((loss for loss in readable.others.values() if loss), default=readable.baseline)
    shares = [(level, _share_at(level, arm)) for level in readable.levels]
    known = [(level, share) for level, share in shares if share.value is not None]
    learned = {level.name for level, _ in known if blind and level.loss <= (1 - LEARNT) * blind}
    read = [(level, share) for level, share in known if level.name in learned]
    over = [level.name for level, share in read if above(share, SMALL_PENALTY)]
    unsure = [level.name for level, share in read if not within(share, SMALL_PENALTY)]
    decided = decide(
        (
            over,
            "did not hold",
            f"more than {SMALL_PENALTY:.0%} of the loss at {' and '.join(over)}",
        ),
        (
            not read,
            "not measured",
            f"no loss with {LEARNT:.0%} learned that every seed came down to",
        ),
        (unsure, "undecided", f"the intervals do not decide at {' and '.join(unsure)}"),
        (
            True,
            "held",
            f"within {SMALL_PENALTY:.0%} of the loss wherever it was read, at fixed parts "
            "explained and at the loss that both arms reach",
        ),
    )
    end = mean_share(list(arm.finals(weights).values()))
    further = _ends_below(arm, readable.levels, weights)
    # The gap is that of the annealed weights.
    accounted = _accounted(gap) if weights == "annealed" else None
    what = "part of that difference that the symmetry error accounts for"
    too_early = f"does not count: less than {LEARNT:.0%} is learned"
    measured = [
        percent(
            f"share at {level.name} (loss {level.loss:.3g})",
            share,
            "" if level.name in learned else too_early,
        )
        for level, share in known
    ]
    beyond = "not judged: the other arm does not come down to this loss" if further else ""
    measured.append(percent("share at the end of the augmented arm", end, beyond))
    if weights == "annealed":
        measured += [
            figure("loss, equivariant over augmented", gap.loss_ratio),
            figure(what, UNKNOWN, note="the equivariant arm is not surely ahead")
            if accounted is None
            else percent(what, Quantity(accounted), "of the logarithm"),
        ]
    detail = ""
    if read:
        detail = f"at most {max(share.value or 0.0 for _, share in read):.1%}"
        if further and end.value is not None:
            detail += f", {end.value:.1%} at its own end"
        if accounted is not None:
            detail += f", {accounted:.0%} of the equivariant arm's lead"
    published: ClaimVerdict = decide(
        (end.value is None, "not measured", None),
        (end.value is not None and end.value <= SMALL_PENALTY, "held", None),
        (True, "did not hold", None),
    )[0]
    return make_part(arm.pair, "", arm.where, decided, published, detail, measured, arm.records)


def _ends_below(arm: AugmentedArm, levels: Sequence[LossLevel], weights: ResultWeights) -> bool:
    """Whether every run of ``arm`` ends below the worse arm's end: the other arm is that, and what
    lies beyond is read of nobody."""
    ends = [log_end(run.results(weights)) for run in arm.runs.values()]
    own = max((end for end in ends if end is not None), default=math.inf)
    return any(level.name == END and own < math.log(level.loss) - ROUNDING for level in levels)


def _accounted(gap: PairGap) -> float | None:
    """log(1 - share) / log(loss ratio) where the equivariant arm is ahead by its whole interval: 1
    if symmetry were all."""
    ratio, share = gap.loss_ratio, gap.symmetry_penalty.value
    ahead = ratio.high is not None and ratio.high < 1
    if not ahead or not ratio.value or ratio.value < 0 or share is None or share >= 1:
        return None
    return math.log1p(-share) / math.log(ratio.value)


def _share_at(level: LossLevel, arm: AugmentedArm) -> Quantity:
    for name in (AUGMENTED, f"{AUGMENTED} on {arm.kernels}"):
        if name in level.arms:
            return level.arms[name].share
    return UNKNOWN


def wins_per_hour(machine: MachineEvidence, weights: ResultWeights) -> list[ClaimPart]:
    """C5: a part for each pair and pair of kernel backends, at the longest budget of device seconds
    (a CPU's hours are shown as what they are and decide nothing), of the campaign that counts
    there; less data beside all of it."""
    alike: dict[str, list[Headline]] = defaultdict(list)
    for each in telling_headlines(machine.headlines):
        if each.gap.budget["kind"] == "seconds":
            alike[_apart_from_budget(each.gap)].append(each)
    parts = []
    for headlines in alike.values():
        whole = [each for each in headlines if each.fraction == 1]
        if whole:
            chosen = max(whole, key=lambda each: float(each.gap.budget["limit"]))
            fewer = [
                each
                for each in headlines
                if each.fraction not in (None, 1.0) and each.gap.budget == chosen.gap.budget
            ]
            parts.append(_hours_part(machine, chosen, fewer, weights))
    return parts


def _hours_part(
    machine: MachineEvidence,
    chosen: Headline,
    fewer: Sequence[Headline],
    weights: ResultWeights,
) -> ClaimPart:
    gap = chosen.gap
    used = [each.gap for each in (chosen, *fewer)]
    records = [
        record
        for record in machine.records
        if any(
            rests_on(each, Setting.of(record))
            and contest_of(record) in each.contests
            and record.seed in each.seeds
            and each.kernels.get(record.arm) == record.model.kernels
            for each in used
        )
    ]
    diverged = f"{gap.n_diverged} diverged" if gap.n_diverged else ""
    annealed = weights == "annealed"
    ratio = gap.loss_ratio if annealed else _ratio_of(records, gap, weights)
    measured = [
        figure("budget of each arm", Quantity(gap.budget["limit"] / 3600), chosen.unit),
        figure("loss, equivariant over augmented", ratio),
        figure("seconds a sample, equivariant over augmented", gap.throughput_ratio.steady),
        figure("seeds", Quantity(float(gap.n_seeds)), note=diverged),
    ]
    found = headline(gap)
    if found is not None and annealed:
        arm, s_star = found
        sure = "" if gap.behind is not None else "the intervals do not decide that it is behind"
        measured += [
            figure(f"speed-up at which the {arm} arm would tie", s_star.steady, note=sure),
            figure("the same with compilation", s_star.all_in),
        ]
    if annealed:
        measured += _changes(chosen, "")
    for each in fewer if annealed else ():
        with_data = f" with {each.fraction:.3g} of the data"
        measured += [
            figure(f"loss, equivariant over augmented{with_data}", each.gap.loss_ratio),
            *_changes(each, with_data),
        ]
    # Where the lead changes hands, in short.
    turns = [
        f"to {change.to} at {seconds_text(change.seconds.value, 2)}"
        for change in (chosen.steady.changes if chosen.steady else [])
        if change.seconds.value is not None
    ]
    detail = f"{quantity_text(ratio)} at {seconds_text(gap.budget['limit'], 2)}"
    if annealed:
        read = chosen.steady is not None and bool(chosen.steady.seconds)
        never = "never changes" if read else "is read at no smaller budget"
        detail += f", lead {', '.join(turns) or never}"
    return make_part(
        (gap.task, gap.pair),
        # A plain network knows one backend only: it is the equivariant arm's that tells parts of
        # one pair apart.
        f" on {gap.kernels[EQUIVARIANT]}",
        f", {setting(gap)}",
        _leader(chosen, None if annealed else ratio),
        "not measured",
        detail,
        measured,
        records,
    )


def _ratio_of(records: Sequence[RunRecord], gap: PairGap, weights: ResultWeights) -> Quantity:
    """Equivariant over augmented loss of other weights than a budget's result, seed by seed."""
    found: dict[str, dict[int, float]] = {EQUIVARIANT: {}, AUGMENTED: {}}
    for record in records:
        test = final_of(record, weights)
        own = record.arm in found and rests_on(gap, Setting.of(record))
        if own and test is not None and test.total:
            found[record.arm][record.seed] = test.total
    return over_seeds(
        [
            found[EQUIVARIANT][seed] / found[AUGMENTED][seed]
            for seed in gap.seeds
            if seed in found[EQUIVARIANT] and seed in found[AUGMENTED]
        ],
        geometric=True,
    )


def _leader(each: Headline, ratio: Quantity | None) -> tuple[ClaimVerdict, str]:
    """Who leads, by the gap; by the whole interval of ``ratio`` where the weights are others."""
    what = f"ratio of losses (equivariant over augmented) per {each.hardware} time"
    leader = None if each.gap.behind is None else OTHER[each.gap.behind]
    if ratio is not None:
        enough = each.gap.n_seeds >= LEAD_SEEDS
        leader = AUGMENTED if enough and above(ratio, 1.0) else None
        leader = EQUIVARIANT if enough and within(ratio, 1.0) else leader
    return decide(
        (each.hardware == "CPU", "not measured", f"no GPU-hours; {what}"),
        (leader is None, "undecided", f"no lead is claimed; {what}"),
        (leader == AUGMENTED, "held", f"the {leader} arm leads; {what}"),
        (True, "did not hold", f"the {leader} arm leads; {what}"),
    )


def _changes(each: Headline, what: str) -> list[ClaimFigure]:
    """The budgets at which the lead changes hands."""
    name, unit = f"budget at which the lead changes hands{what}", f"{each.hardware}-seconds"
    if each.steady is None or not each.steady.changes:
        why = "no step times" if each.steady is None else changes_text(each)
        return [figure(name, UNKNOWN, unit, why)]
    figures = []
    for change in each.steady.changes:
        explained = each.explained(change)
        note = f"to the {change.to} arm"
        if explained is not None:
            note += f", {percent_text(explained, 2)} explained"
        figures.append(figure(name, change.seconds, unit, note))
    return figures


def _apart_from_budget(gap: PairGap) -> str:
    """What budgets and data fractions of one pair share."""
    variant = sorted(
        (name, value) for name, value in gap.variant.items() if name not in ("sweep", "value")
    )
    data = (gap.dataset["name"], gap.dataset["sha256"])
    return repr((gap.task, gap.pair, data, gap.rules_version, variant, sorted(gap.kernels.items())))

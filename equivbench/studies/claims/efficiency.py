"""C5: which arm has the lower loss for the same device time. A CPU's hours are shown as what they
are and decide nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from equivbench.gap.efficiency import PairGap
from equivbench.gap.intervals import Quantity
from equivbench.gap.pairing import AUGMENTED, EQUIVARIANT, Setting
from equivbench.records.schema import RunRecord
from equivbench.report.gaps import headline, setting
from equivbench.report.text import percent_text, quantity_text, seconds_text
from equivbench.studies.claims.evidence import MachineEvidence
from equivbench.studies.claims.findings import (
    ClaimFigure,
    ClaimPart,
    ClaimVerdict,
    distinct,
    figure,
    missing,
    run_name,
)
from equivbench.studies.claims.headline import Headline, changes_text
from equivbench.studies.claims.statements import Claim


def wins_per_hour(claim: Claim, machine: MachineEvidence) -> list[ClaimPart]:
    """A part for each pair and pair of kernel backends, at the longest budget of device seconds;
    less data beside all of it."""
    alike: dict[str, list[Headline]] = defaultdict(list)
    for each in machine.headlines:
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
            parts.append(_part(claim, machine, chosen, fewer))
    return parts


def _part(
    claim: Claim, machine: MachineEvidence, chosen: Headline, fewer: Sequence[Headline]
) -> ClaimPart:
    gap = chosen.gap
    verdict, reason = _verdict(chosen)
    records = [
        record
        for record in machine.records
        if any(_of(record, each.gap) for each in (chosen, *fewer))
    ]
    measured = [
        figure("budget of each arm", Quantity(gap.budget["limit"] / 3600), chosen.unit),
        figure("loss, equivariant over augmented", gap.loss_ratio),
        figure("seconds a sample, equivariant over augmented", gap.throughput_ratio.steady),
        figure(
            "seeds",
            Quantity(float(gap.n_seeds)),
            note=f"{gap.n_diverged} diverged" if gap.n_diverged else "",
        ),
    ]
    found = headline(gap)
    if found is not None:
        arm, s_star = found
        sure = "" if gap.behind is not None else "the intervals do not decide that it is behind"
        measured.append(
            figure(f"speed-up at which the {arm} arm would tie", s_star.steady, note=sure)
        )
        measured.append(figure("the same with compilation", s_star.all_in))
    measured += _changes(chosen, "")
    for each in fewer:
        with_data = f" with {each.fraction:.3g} of the data"
        measured += [
            figure(f"loss, equivariant over augmented{with_data}", each.gap.loss_ratio),
            *_changes(each, with_data),
        ]
    # A plain network knows one backend only: it is the equivariant arm's that tells parts of one
    # pair apart.
    kernels = gap.kernels[EQUIVARIANT]
    return ClaimPart(
        task=gap.task,
        pair=f"{gap.task}/{gap.pair} on {kernels}",
        subject=f"{gap.task}/{gap.pair}, {setting(gap)}",
        verdict=verdict,
        reason=reason,
        detail=f"{quantity_text(gap.loss_ratio)} at "
        f"{seconds_text(gap.budget['limit'], 2)}{_turns(chosen)}",
        measurements=tuple(measured),
        published=claim.published_on(gap.task),
        runs=distinct(map(run_name, records)),
        commands=distinct(record.command for record in records),
    )


def _verdict(each: Headline) -> tuple[ClaimVerdict, str]:
    ratio = f"ratio of losses (equivariant over augmented) per {each.hardware} time"
    if each.hardware == "CPU":
        return "not measured", f"no GPU-hours; {ratio}"
    leader = each.gap.lead.arm
    if leader is None:
        return "not measured", f"no lead is claimed; {ratio}"
    return ("held" if leader == AUGMENTED else "did not hold"), f"the {leader} arm leads; {ratio}"


def _turns(each: Headline) -> str:
    """Where the lead changes hands, in short."""
    changes = [] if each.steady is None else each.steady.changes
    places = [
        f"to {change.to} at {seconds_text(change.seconds.value, 2)}"
        for change in changes
        if change.seconds.value is not None
    ]
    return f", lead {', '.join(places)}" if places else ", lead never changes"


def _changes(each: Headline, what: str) -> list[ClaimFigure]:
    """The budgets at which the lead changes hands."""
    name = f"budget at which the lead changes hands{what}"
    if each.steady is None or not each.steady.changes:
        return [
            missing(
                name,
                "no step times" if each.steady is None else changes_text(each),
                f"{each.hardware}-seconds",
            )
        ]
    return [
        figure(
            name,
            change.seconds,
            f"{each.hardware}-seconds",
            f"to the {change.to} arm" + _explained(each.explained(change)),
        )
        for change in each.steady.changes
    ]


def _explained(part: float | None) -> str:
    return "" if part is None else f", {percent_text(part, 2)} explained"


def _apart_from_budget(gap: PairGap) -> str:
    """What budgets and data fractions of one pair share."""
    variant = sorted(
        (name, value) for name, value in gap.variant.items() if name not in ("sweep", "value")
    )
    data = (gap.dataset["name"], gap.dataset["sha256"])
    return repr((gap.task, gap.pair, data, gap.rules_version, variant, sorted(gap.kernels.items())))


def _of(record: RunRecord, gap: PairGap) -> bool:
    """Whether ``gap`` rests on ``record``."""
    if (record.task, record.pair) != (gap.task, gap.pair):
        return False
    own = Setting.of(record)
    same = (
        own.task,
        own.pair,
        dict(own.variant),
        own.budget_kind,
        own.budget_limit,
        own.dataset_sha256,
    )
    where = (
        gap.task,
        gap.pair,
        dict(gap.variant),
        gap.budget["kind"],
        gap.budget["limit"],
        gap.dataset["sha256"],
    )
    alike = same == where and own.rules_version == gap.rules_version and record.seed in gap.seeds
    return alike and gap.kernels.get(record.arm) == record.model.kernels

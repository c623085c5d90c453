"""What the page shows of the efficiency gaps: the columns of the terminal's table, with the two
ratios drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from equivbench.gap.efficiency import PairGap
from equivbench.gap.intervals import Quantity
from equivbench.report.gaps import COLUMNS, gap_rows, headline, reading, setting, show
from equivbench.report.html.intervals import axis, bar, ratio_scale
from equivbench.report.provenance import Provenance
from equivbench.report.publication import PublishedGap


@dataclass(frozen=True)
class ShownGap:
    """A gap as the table shows it."""

    gap: PairGap
    unit: str
    cells: dict[str, str]
    """The cells of the terminal's table, by its columns."""
    ratio: Markup
    slack: Markup
    s_star: Quantity
    """Of the arm behind, steady; ``slack_value`` is how much slower the leader could be."""
    slack_value: float | None
    setting: str
    reading: str
    more: list[tuple[str, str]]
    """What else was measured, in words and numbers."""
    provenance: Provenance


@dataclass(frozen=True)
class GapTable:
    """The rows and the axes of the two drawn columns."""

    rows: list[ShownGap]
    ratio_axis: Markup
    slack_axis: Markup


def show_gaps(gaps: Sequence[PublishedGap]) -> GapTable:
    """The table of ``gaps``, each drawn column on one axis."""
    slacks = [_slack(published.gap) for published in gaps]
    ratios, spare = ratio_scale(one.gap.loss_ratio for one in gaps), ratio_scale(slacks)
    rows = [
        ShownGap(
            gap=one.gap,
            unit=one.unit,
            cells=dict(zip(COLUMNS, gap_rows([one.gap])[0], strict=True)),
            ratio=bar(one.gap.loss_ratio, ratios, lead=_side(one.gap.loss_ratio)),
            slack=bar(slack, spare, lead=_leader(one.gap)),
            s_star=_s_star(one.gap),
            slack_value=slack.value,
            setting=setting(one.gap),
            reading=reading(one.gap),
            more=_more(one.gap),
            provenance=one.provenance,
        )
        for one, slack in zip(gaps, slacks, strict=True)
    ]
    return GapTable(rows, axis(ratios), axis(spare))


def _s_star(gap: PairGap) -> Quantity:
    found = headline(gap)
    return Quantity() if found is None else found[1].steady


def _slack(gap: PairGap) -> Quantity:
    found = headline(gap)
    if found is None:
        return Quantity()
    leader = gap.s_star_augmented if found[0] == "equivariant" else gap.s_star_equivariant
    return leader.steady.map(lambda value: 1 / value, falling=True)


def _side(ratio: Quantity) -> str:
    """On which side of the tie the interval lies, if it decides."""
    if ratio.high is not None and ratio.high < 1:
        return "below"
    return "above" if ratio.low is not None and ratio.low > 1 else ""


def _leader(gap: PairGap) -> str:
    return {"augmented": "below", "equivariant": "above", None: ""}[gap.behind]


def _more(gap: PairGap) -> list[tuple[str, str]]:
    epochs = ", ".join(f"{arm} {value:.3g}" for arm, value in gap.epochs.items())
    explained = ", ".join(
        f"{arm} {value:.3g}" for arm, value in gap.explained.items() if value is not None
    )
    facts = [
        (
            "s* of the equivariant arm",
            _timed(gap.s_star_equivariant.steady, gap.s_star_equivariant.all_in),
        ),
        (
            "s* of the augmented arm",
            _timed(gap.s_star_augmented.steady, gap.s_star_augmented.all_in),
        ),
        (
            "sample efficiency, times speed",
            f"{show(gap.sample_efficiency)}, {show(gap.speed.steady)} (equivariant arm)",
        ),
        *(
            (
                f"augmented arm averaged over {n} rotations",
                f"loss {show(twirl.loss)}, {show(twirl.cost)} times the cost",
            )
            for n, twirl in gap.twirl.items()
        ),
        ("explained variance", explained or "not measured"),
        ("epochs", epochs),
        (
            "lead",
            f"{gap.lead.arm}: {gap.lead.reason}"
            if gap.lead.arm
            else f"none claimed: {gap.lead.reason}",
        ),
    ]
    facts += [("note", note) for note in gap.notes]
    return facts + [(f"not measured: {name}", reason) for name, reason in gap.reasons.items()]


def _timed(steady: Quantity, all_in: Quantity) -> str:
    return f"{show(steady)} steady, {show(all_in)} with compilation counted"

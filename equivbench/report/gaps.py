"""The efficiency gap for a reader: a table of all gaps, and a paragraph on each in plain words."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace

from equivbench.budget import Budget
from equivbench.counted import counted
from equivbench.gap.campaigns import LEAD_SEEDS
from equivbench.gap.efficiency import PairGap
from equivbench.gap.intervals import Quantity, Timed
from equivbench.records.schema import RunRecord
from equivbench.report.table import Cell, Column, Table
from equivbench.report.text import number_text, quantity_text
from equivbench.request import RunRequest
from equivbench.specs import AUGMENTED, CONTESTANTS

OTHER = {"equivariant": "augmented", "augmented": "equivariant"}
BARELY = 1.05
"""A bound on the speed-up below this says no more than that the arm is behind."""
NEVER_TIED = "it did not reach the other model's loss within the budget"

COLUMNS = (
    Column("pair", key=True),
    Column("kernels", key=True),
    Column("preset", key=True),
    Column("budget", key=True),
    Column("variant", key=True, show="differs"),
    Column("data", key=True, show="needed"),
    Column("training samples", key=True, show="needed"),
    Column("machine", key=True, show="differs"),
    Column("rules", key=True, show="differs"),
    Column("data digest", key=True, show="needed"),
    Column("commit", key=True, show="needed"),
    Column("day", key=True, show="needed"),
    Column("contests", key=True, show="needed"),
    Column("seeds"),
    Column("loss_equivariant", "number", "equiv. loss", interval=False),
    Column("loss_augmented", "number", "augm. loss", interval=False),
    Column("loss_ratio", "number", "loss ratio"),
    Column("throughput_ratio", "number", "s/sample ratio"),
    Column("behind"),
    Column("seeds_needed", heading="seeds needed"),
    Column("s_star_steady", "number", "s* steady"),
    Column("s_star_all_in", "number", "s* all-in"),
    Column("slowdown_margin", "number", "slowdown margin"),
    Column("decided", show="data"),
    Column("reason", show="data"),
    Column("p", "number", show="data"),
    Column("p_holm", "number", show="data"),
    Column("s_star_equivariant", "number", show="data"),
    Column("s_star_augmented", "number", show="data"),
    Column("sample_efficiency", "number", show="data"),
    Column("speed", "number", show="data"),
    Column("symmetry_penalty", "number", show="data"),
)
LEGEND = (
    "Ratios are equivariant over augmented. s*: how much faster the arm behind must become to tie; "
    f"more than that where {NEVER_TIED}. Slowdown margin: how much slower the better model could "
    "be and still tie. Seeds needed: for a verdict, with a chance of 80%, on an effect of the size "
    "seen."
)


def gap_table(gaps: Sequence[PairGap], title: str = "") -> Table:
    """Make the table of ``gaps``, a row each.

    s* is that of the arm behind, or of the one that seems to be where the intervals do not decide.
    Until it is extended, the arm behind has not reached the other within its budget, so its s* is a
    bound; the slowdown margin of the other is measured within the budget.
    """
    rows: list[list[Cell]] = []
    for gap in gaps:
        found = headline(gap)
        s_star = Timed(Quantity(), Quantity()) if found is None else found[1]
        undecided = "-" if found is None else f"undecided ({found[0]}?)"
        rows.append(
            [
                f"{gap.task}/{gap.pair}",
                kernels_text(gap),
                gap.preset,
                budget_text(gap),
                variant_text(gap.variant),
                gap.dataset["name"],
                gap.dataset["sizes"].get("train"),
                gap.machine_key,
                gap.rules_version,
                gap.dataset["sha256"][:12],
                (gap.commit or "")[:12],
                gap.day,
                tuple(gap.contests),
                seeds_text(gap.n_seeds - gap.n_diverged, gap.n_seeds),
                gap.loss_equivariant,
                gap.loss_augmented,
                gap.loss_ratio,
                gap.throughput_ratio.steady,
                gap.behind or undecided,
                gap.seeds_needed,
                s_star.steady,
                s_star.all_in,
                slowdown_margin(gap),
                gap.decided,
                gap.reason,
                gap.p,
                gap.p_holm,
                gap.s_star_equivariant.steady,
                gap.s_star_augmented.steady,
                gap.sample_efficiency,
                gap.speed.steady,
                gap.symmetry_penalty,
            ]
        )
    return Table(title, COLUMNS, rows, notes=[LEGEND])


def one_gap_table(gap: PairGap) -> Table:
    """Make the table of one gap, with its paragraph below."""
    table = gap_table([gap])
    return replace(table, title=f"{gap.task}/{gap.pair}: {setting(gap)}", notes=gap_lines(gap))


def s_star_of(gap: PairGap, arm: str) -> Timed:
    """The break-even speed-up of ``arm``."""
    return gap.s_star_equivariant if arm == "equivariant" else gap.s_star_augmented


def headline(gap: PairGap) -> tuple[str, Timed] | None:
    """The arm whose s* is the headline, with its s*: the arm behind, or where the intervals do not
    decide the one whose estimate says so. None if not even an estimate does."""
    arm, ratio = gap.behind, gap.loss_ratio
    if arm is None:
        if ratio == Quantity():
            return None
        lagging = ratio.censored == "above" if ratio.value is None else ratio.value >= 1
        arm = "equivariant" if lagging else "augmented"
    return arm, s_star_of(gap, arm)


def slowdown_margin(gap: PairGap) -> Quantity:
    """How much slower the better model could be and still tie: 1 / its s*."""
    found = headline(gap)
    if found is None:
        return Quantity()
    return s_star_of(gap, OTHER[found[0]]).steady.map(lambda value: 1 / value, falling=True)


def paragraphs(gaps: Sequence[PairGap]) -> list[str]:
    """The lines below the table: a paragraph on each gap with its setting."""
    lines: list[str] = []
    for gap in gaps:
        lines += ["", f"{gap.task}/{gap.pair}: {setting(gap)}"]
        lines += [f"  {line}" for line in gap_lines(gap)]
    return lines


def gap_lines(gap: PairGap) -> list[str]:
    """The paragraph on one gap: the reading, the figures behind it, and what to know about them."""
    lines = [reading(gap)]
    ratio = quantity_text(gap.loss_ratio)
    lines.append(f"loss equivariant/augmented {ratio}")
    if "speed" in gap.reasons:
        why = gap.reasons["speed"]
        lines.append("no time-based figure" + f": {why}" * (why != gap.reason))
    else:
        cost = quantity_text(gap.throughput_ratio.steady)
        lines[-1] += f"; seconds a sample equivariant/augmented {cost}"
    found = headline(gap)
    if found is not None and found[1].steady != Quantity():
        arm, s_star = found
        efficiency, speed = gap.sample_efficiency, gap.speed.steady
        if arm == "augmented":
            efficiency = gap.sample_efficiency_augmented
            speed = speed.map(lambda value: 1 / value, falling=True)
        steady, all_in = (quantity_text(each, why="") for each in (s_star.steady, s_star.all_in))
        factors = [quantity_text(each) for each in (efficiency, speed)]
        lines.append(
            f"break-even speed-up of the {arm} arm: {steady} steady, {all_in} with compilation"
        )
        lines.append(f"  = sample efficiency {factors[0]}, times speed {factors[1]}")
    for change in gap.lead_changes:
        hands = (
            "the lead changes hands"
            if change.decided
            else "the lead may change hands, the intervals do not decide it,"
        )
        lines.append(
            f"{hands} to the {change.to} arm at {turn_text(change.seconds)} of budget, "
            f"loss {number_text(change.loss)}"
        )
    return lines + [f"note: {note}" for note in gap.notes]


def reading(gap: PairGap) -> str:
    """The gap in one or two plain sentences."""
    if gap.behind is None:
        return f"No verdict: {gap.reason}{_seeds_needed(gap)}."
    leader = OTHER[gap.behind]
    needed, spare = s_star_of(gap, gap.behind).steady, s_star_of(gap, leader).steady
    said = f"The {gap.behind} arm is behind ({gap.reason})"
    more = "more than " if needed.censored == "above" else ""
    if needed.value is None:
        said += " and no speed-up seen would make it tie" if more else ""
    elif more and needed.value < BARELY:
        said += (
            f": {NEVER_TIED} (`run --extend K` shows how much faster it would have to be to tie)"
        )
    else:
        said += f": it would have to be {more}{number_text(needed.value, 2)}x faster to tie"
    if spare.value is not None and spare.value > 0 and spare.censored != "above":
        more = "more than " if spare.censored == "below" else ""
        factor = number_text(1 / spare.value, 2)
        said += f"; the {leader} arm could be {more}{factor}x slower and still tie"
    return f"{said}."


def _seeds_needed(gap: PairGap) -> str:
    """Behind the reason why there is no verdict, where more seeds could give one."""
    few = gap.p_holm is not None or gap.n_seeds < LEAD_SEEDS
    if not few or gap.seeds_needed is None or gap.seeds_needed <= gap.n_seeds:
        return ""
    return f"; an effect of this size would need {gap.seeds_needed} seeds"


def setting(gap: PairGap) -> str:
    """What the gap was measured under, in words."""
    parts = [f"{gap.preset} on {gap.dataset['name']}"]
    parts += [budget_text(gap), variant_text(gap.variant)]
    parts += [f"kernels {kernels_text(gap)}", gap.machine_key]
    epochs = ", ".join(f"{arm} {number_text(value)}" for arm, value in gap.epochs.items())
    code = f"commit {gap.commit[:12]}" if gap.commit else "code of no commit"
    contests = counted(len(gap.contests), "contest")
    return f"{', '.join(filter(None, parts))}; {code}, {gap.day}, {contests}; epochs: {epochs}"


def budget_text(gap: PairGap) -> str:
    """The budget as the command line takes it."""
    return Budget(gap.budget["kind"], gap.budget["limit"]).text


def kernels_text(gap: PairGap) -> str:
    """One name where both arms run on it, else the equivariant arm's and the other's."""
    return " / ".join(dict.fromkeys(gap.kernels[arm] for arm in CONTESTANTS))


def variant_text(variant: Mapping[str, str]) -> str:
    """How a run differs from the pair as declared: ``forces direct, sweep of data at 0.25``."""
    parts = [
        f"{name} {value}"
        for name, value in sorted(variant.items())
        if name not in ("sweep", "value")
    ]
    if "sweep" in variant:
        parts.append(f"sweep of {variant['sweep']} at {variant.get('value', '?')}")
    return ", ".join(parts)


def seeds_text(finished: int, seeds: int) -> str:
    """How many seeds there are, and how many of them finished if not all did: ``2 of 3``."""
    return str(seeds) if finished == seeds else f"{finished} of {seeds}"


def turn_text(seconds: Quantity) -> str:
    """A budget in seconds with its interval, and a question mark where one end of it is open."""
    text = quantity_text(seconds, 2, kind="seconds")
    if seconds.low is not None and seconds.high is not None:
        return text
    value, _, interval = text.partition(" (")
    return f"{value}?" + f" ({interval}" * bool(interval)


def beyond_gaps(records: Sequence[RunRecord], request: RunRequest) -> list[str]:
    """What is said of runs of ``request`` that stand in no gap, and where they can be compared, by
    pair: a gap is of both contestants, and further arms are in none."""
    arms: dict[str, dict[str, None]] = {}
    for record in records:
        arms.setdefault(f"{record.task}/{record.pair}", {})[record.arm] = None
    said = []
    for pair, own in arms.items():
        further = [arm for arm in own if arm not in CONTESTANTS]
        if not set(CONTESTANTS) <= own.keys():
            both = replace(request, pairs=(pair,), arms=(), resume=False).command()
            said.append(
                f"{pair}: no efficiency gap, which takes runs of both contestants, "
                f"{' and '.join(CONTESTANTS)}; `{both}` trains them in turn"
            )
        if further and AUGMENTED not in own:
            arms_again = (AUGMENTED, *further)
            beside = replace(request, pairs=(pair,), arms=arms_again, resume=False).command()
            said.append(
                f"{pair}: whether {' and '.join(further)} learns more than the augmented arm shows "
                f"where they take turns: `{beside}`"
            )
        elif further:
            race = ["equivbench", "leaderboard", "export", "--race", "--results", request.out]
            said.append(
                f"{pair}: {' and '.join(further)} beside the other arms of the task, ranked by "
                f"loss: `{shlex.join(race)}`"
            )
    return said

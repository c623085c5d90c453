"""The frontiers of a pair for a reader: a table with a row an arm, and a sentence on where they
cross."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from equivbench.counted import counted
from equivbench.gap.frontier import REACH, ArmFrontier, PairFrontier
from equivbench.gap.intervals import Quantity
from equivbench.gap.loss_law import FlooredPowerLaw
from equivbench.report.gaps import turn_text, variant_text
from equivbench.report.table import Cell, Column, Table
from equivbench.report.text import number_text
from equivbench.report.words import LOSS

COLUMNS = (
    Column("pair", key=True),
    Column("arm", key=True),
    Column("preset", key=True, show="differs"),
    Column("variant", key=True, show="differs"),
    Column("data", key=True, show="differs"),
    Column("training samples", key=True, show="needed"),
    Column("kernels", key=True, show="differs"),
    Column("machine", key=True, show="differs"),
    Column("rules", key=True, show="differs"),
    Column("data digest", key=True, show="needed"),
    Column("seeds", "number"),
    Column("budgets", key=True),
    Column("sizes"),
    Column("best", heading="best size"),
    LOSS,
    Column("exponent", "number", digits=2),
    Column("floor", "number", digits=2),
    Column("prefactor", "number", digits=2),
)
LEGEND = (
    "Best size: factor on the declared widths with the lowest loss at the largest budget. Fitted "
    "to the best size at each budget: loss = floor + prefactor x seconds ^ -exponent; intervals "
    "are over seeds and test groups, and do not cover that another law may hold."
)


def frontier_table(found: Sequence[PairFrontier]) -> Table:
    """Make the table of the frontiers, two rows a pair."""
    rows: list[list[Cell]] = []
    for each in found:
        for arm, frontier in each.arms.items():
            law = frontier.law
            rows.append(
                [
                    f"{each.task}/{each.pair}",
                    arm,
                    each.preset,
                    variant_text(each.variant),
                    each.dataset,
                    each.sizes.get("train"),
                    _kernels(each),
                    each.machine_key,
                    each.rules_version,
                    each.dataset_sha256[:12],
                    len(each.seeds),
                    f"{number_text(each.seconds[0])} to {number_text(each.seconds[-1])} s",
                    ", ".join(each.tried),
                    frontier.sizes[-1],
                    frontier.losses[-1],
                    law.exponent,
                    law.floor,
                    law.prefactor,
                ]
            )
    return Table("", COLUMNS, rows, notes=[LEGEND])


def one_frontier_table(found: PairFrontier) -> Table:
    """Make the table of one pair, with its sentence below."""
    return replace(frontier_table([found]), notes=[crossing_sentence(found), LEGEND])


def crossing_sentences(found: Sequence[PairFrontier]) -> list[str]:
    """A sentence on each of ``found``, with what tells it from others of its pair."""
    alike: dict[str, list[PairFrontier]] = defaultdict(list)
    for each in found:
        alike[f"{each.task}/{each.pair}"].append(each)
    return [
        crossing_sentence(each, _apart(each, alike[f"{each.task}/{each.pair}"])) for each in found
    ]


def _apart(found: PairFrontier, others: Sequence[PairFrontier]) -> str:
    """In which of its marks ``found`` differs from one of ``others`` (itself among them); what the
    training samples and their digest are only where nothing else tells two apart."""
    named = [_marks(each) for each in others]
    own = _marks(found)
    differing = [place for place in range(len(own)) if len({marks[place] for marks in named}) > 1]
    twins = [
        each
        for each, marks in zip(others, named, strict=True)
        if (marks, each.seconds) == (own, found.seconds)
    ]
    texts = [own[place] for place in differing]
    if len(twins) > 1:
        texts += [f"{found.sizes.get('train')} training samples of {found.dataset_sha256[:12]}"]
    return ", ".join(filter(None, texts))


def _marks(found: PairFrontier) -> tuple[str, ...]:
    return (
        found.dataset,
        f"preset {found.preset}",
        variant_text(found.variant),
        f"kernels {_kernels(found)}",
        found.machine_key,
        f"rules {found.rules_version}",
    )


def _kernels(found: PairFrontier) -> str:
    return " / ".join(dict.fromkeys(found.kernels.values()))


def crossing_sentence(found: PairFrontier, apart: str = "") -> str:
    """Which arm has the lower loss, where that changes, and in how many seeds it does, in one
    sentence or two; ``apart`` is what tells it from other frontiers of its pair."""
    name = f"{found.task}/{found.pair}" + f" on {apart}" * bool(apart)
    least, most = (f"{number_text(each)} s" for each in (found.seconds[0], found.seconds[-1]))
    crossing, seeds = found.crossing, counted(len(found.seeds), "seed")
    crossed = f"{len(found.crossing_seeds) or 'none'} of {seeds}"
    # A law that may be flat may cross another anywhere or nowhere.
    doubts = [f"the exponent of the {arm} arm is not surely above 0" for arm in found.not_falling]
    if crossing is None:
        nobody = f", nor do those of any seed by itself ({seeds})"
        if found.crossing_seeds:
            nobody = ""
            doubts.append(f"those of {crossed} do")
        said = (
            f"the {found.ahead} arm has the lower loss at {most}, and the fitted laws do not cross "
            f"between {least} and {REACH:g} times {most}{nobody}"
        )
    else:
        where = f"{turn_text(crossing.seconds)}, in {crossed}"
        others = len(found.seeds) - len(found.crossing_seeds)
        if others:
            doubts.append(f"those of {others} of {seeds} do not, to that arm")
        if crossing.extrapolated:
            by_law = "by the laws too" if crossing.to != found.ahead else "but not by the laws"
            said = (
                f"the {found.ahead} arm has the lower loss at {most}, {by_law}. These cross at "
                f"{where}, beyond every budget that was measured, and the {crossing.to} arm has "
                "the lower loss from there on if they go on to hold"
            )
        elif crossing.to != found.ahead:
            said = (
                f"the fitted laws cross at {where}, and put the {crossing.to} arm ahead from there "
                f"on, but at {most} it is the {found.ahead} arm that has the lower loss"
            )
        else:
            said = (
                f"the fitted laws cross at {where}; from there on the {crossing.to} arm has the "
                f"lower loss, up to the {most} that were measured"
            )
    undecided = f" Whether they cross is not decided: {' and '.join(doubts)}." * bool(doubts)
    return f"{name}: {said}.{undecided}"


def fitted_law(frontier: ArmFrontier) -> FlooredPowerLaw | None:
    """The law through ``frontier``; None where there are too few budgets for one."""
    exponent, prefactor = frontier.law.exponent.value, frontier.law.prefactor.value
    if exponent is None or prefactor is None:
        return None
    return FlooredPowerLaw(math.log(prefactor), exponent, frontier.law.floor.value or 0.0)


def law_text(exponent: Quantity) -> str:
    """An exponent for a figure: ``t^-0.41``."""
    return "" if exponent.value is None else f"t^-{number_text(exponent.value, 2)}"

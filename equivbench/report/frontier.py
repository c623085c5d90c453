"""The frontiers of a pair for a reader: a table with a row an arm, and a sentence on where they
cross."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

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
                    " / ".join(dict.fromkeys(each.kernels.values())),
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
    """A sentence on each of ``found``, with its machine where a pair was run on several."""
    machines: dict[str, set[str]] = defaultdict(set)
    for each in found:
        machines[f"{each.task}/{each.pair}"].add(each.machine_key)
    return [
        crossing_sentence(each, with_machine=len(machines[f"{each.task}/{each.pair}"]) > 1)
        for each in found
    ]


def crossing_sentence(found: PairFrontier, *, with_machine: bool = False) -> str:
    """Which arm has the lower loss, and where that changes, in one sentence or two."""
    name = f"{found.task}/{found.pair}" + f" on {found.machine_key}" * with_machine
    least, most = (f"{number_text(each)} s" for each in (found.seconds[0], found.seconds[-1]))
    crossing = found.crossing
    if crossing is None:
        return (
            f"{name}: the {found.ahead} arm has the lower loss at {most}, and the fitted laws do "
            f"not cross between {least} and {REACH:g} times {most}."
        )
    where = turn_text(crossing.seconds)
    if crossing.extrapolated:
        by_law = "by the laws too" if crossing.to != found.ahead else "but not by the laws"
        return (
            f"{name}: the {found.ahead} arm has the lower loss at {most}, {by_law}. These cross "
            f"at {where}, beyond every budget that was measured, and the {crossing.to} arm has the "
            "lower loss from there on if they go on to hold."
        )
    if crossing.to != found.ahead:
        return (
            f"{name}: the fitted laws cross at {where} and put the {crossing.to} arm ahead from "
            f"there on, but at {most} it is the {found.ahead} arm that has the lower loss."
        )
    return (
        f"{name}: the fitted laws cross at {where}; from there on the {crossing.to} arm has the "
        f"lower loss, up to the {most} that were measured."
    )


def fitted_law(frontier: ArmFrontier) -> FlooredPowerLaw | None:
    """The law through ``frontier``; None where there are too few budgets for one."""
    exponent, prefactor = frontier.law.exponent.value, frontier.law.prefactor.value
    if exponent is None or prefactor is None:
        return None
    return FlooredPowerLaw(math.log(prefactor), exponent, frontier.law.floor.value or 0.0)


def law_text(exponent: Quantity) -> str:
    """An exponent for a figure: ``t^-0.41``."""
    return "" if exponent.value is None else f"t^-{number_text(exponent.value, 2)}"

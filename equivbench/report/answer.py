"""The answer that a board opens with: of each pair the gap that says most, of each task a sentence
on who leads, and a table of both."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from equivbench.gap.efficiency import PairGap
from equivbench.gap.intervals import Quantity
from equivbench.records.declared import as_declared
from equivbench.registry import DATASETS
from equivbench.report.appendix import budget_size
from equivbench.report.gaps import (
    OTHER,
    budget_text,
    kernels_text,
    seeds_text,
    slowdown_margin,
    variant_text,
)
from equivbench.report.table import Cell, Column, Missing, Table
from equivbench.report.text import number_text
from equivbench.request import DEFAULT_KERNELS

COLUMNS = (
    Column("pair", key=True),
    Column("kernels", key=True),
    Column("leads"),
    Column("loss_ratio", "number", "loss ratio (95% interval)"),
    Column("slowdown_margin", "number", "the leader could be slower by a factor of", digits=2),
    Column("sure", heading="how sure"),
    Column("preset"),
    Column("data"),
    Column("budget"),
    Column("variant", show="filled"),
    Column("seeds"),
    Column("machine"),
)
CAPTION = (
    "Of each pair the runs of the largest budget, on data whose content is known here. Loss ratio: "
    "equivariant over augmented test loss, below 1 where the equivariant arm's is lower. Other "
    "budgets, data and machines are further down; a backend that only one arm was run on stands "
    "among the training steps."
)


def telling_gaps(gaps: Iterable[PairGap], *, by_kernels: bool = True) -> list[PairGap]:
    """One gap of each pair on each kernel backend, or of each pair, in their order: of the runs as
    the pair is declared (no sweep, no other precision) that of the largest budget, in seconds where
    there is one, then on the default kernels, then of the campaign that comes first
    (:attr:`equivbench.gap.efficiency.PairGap.precedence`). Data whose content is known here come
    before all others, so that nobody chooses who leads by choosing data.

    A backend that one contestant was run on alone, whatever the budget, to be timed there, is in
    no contest. Which arm leads has no part in the choice.
    """
    gaps = list(gaps)
    contested = {_place(gap) for gap in gaps if _contested(gap)}
    found: dict[tuple[str, str, str], PairGap] = {}
    for gap in sorted(gaps, key=_weight):
        if as_declared(gap.variant) and _place(gap) in contested:
            task, pair, kernels = _place(gap)
            found[task, pair, kernels if by_kernels else ""] = gap
    return [found[key] for key in sorted(found)]


def _place(gap: PairGap) -> tuple[str, str, str]:
    return gap.task, gap.pair, kernels_text(gap)


def _contested(gap: PairGap) -> bool:
    """Whether both contestants were run on the backend of ``gap``, or beside each other: a network
    without equivariant operations takes turns with the other on any of them."""
    return len({*gap.kernels.values()}) == 1 or len(gap.apart) < gap.n_seeds


def _weight(gap: PairGap) -> tuple[object, ...]:
    """How much a gap says; the last is there for an order that never changes."""
    known = DATASETS.known(gap.dataset["name"])
    checked = known is not None and gap.dataset["sha256"] in known.checksums.values()
    usual = kernels_text(gap) == DEFAULT_KERNELS
    return checked, budget_size(gap), usual, gap.precedence, gap.machine_key


def leaders_part(gap: PairGap) -> Quantity:
    """The loss of the arm that leads over the other's; of the equivariant arm where none does."""
    if gap.behind != "equivariant":
        return gap.loss_ratio
    return gap.loss_ratio.map(lambda value: 1 / value, falling=True)


def leads(gaps: Sequence[PairGap]) -> dict[str, list[PairGap]]:
    """The ``gaps`` in which each arm leads."""
    return {arm: [gap for gap in gaps if gap.behind == other] for arm, other in OTHER.items()}


def answers(gaps: Iterable[PairGap]) -> dict[str, str]:
    """By task a sentence on those of ``gaps`` that are of it, one gap of each pair."""
    by_task: dict[str, list[PairGap]] = defaultdict(list)
    for gap in telling_gaps(gaps, by_kernels=False):
        by_task[gap.task].append(gap)
    return {task: answer_text(own) for task, own in by_task.items()}


def answer_table(gaps: Sequence[PairGap], title: str = "") -> Table:
    """Make the table of ``gaps``, as :func:`telling_gaps` gives them: who leads, by how much, and
    how sure that is, or why there is no verdict."""
    rows: list[list[Cell]] = [
        [
            f"{gap.task}/{gap.pair}",
            kernels_text(gap),
            "no verdict" if gap.behind is None else OTHER[gap.behind],
            gap.loss_ratio,
            Missing("no verdict") if gap.behind is None else slowdown_margin(gap),
            gap.reason,
            gap.preset,
            gap.dataset["name"],
            budget_text(gap),
            variant_text(gap.variant),
            seeds_text(gap.n_seeds - gap.n_diverged, gap.n_seeds),
            gap.machine_key,
        ]
        for gap in gaps
    ]
    return Table(title, COLUMNS, rows, caption=CAPTION)


def answer_text(gaps: Sequence[PairGap]) -> str:
    """A sentence on the ``gaps`` of one task, one of each pair."""
    parts = []
    for arm, own in leads(gaps).items():
        led = [
            f"{gap.pair} ({_losses(gap)}after {budget_text(gap)} on {gap.dataset['name']})"
            for gap in own
        ]
        if led:
            parts.append(f"the {arm} arm leads in {listed(led)}")
    open_ones = [f"{gap.pair} ({gap.reason})" for gap in gaps if gap.behind is None]
    if open_ones:
        parts.append(f"there is no verdict in {listed(open_ones)}")
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}."


def _losses(gap: PairGap) -> str:
    """How the losses compare, where both are finite."""
    part = leaders_part(gap).value
    return "" if part is None else f"{number_text(part, 2)} of the other's loss "


def listed(names: Sequence[str]) -> str:
    """``a, b and c``."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last

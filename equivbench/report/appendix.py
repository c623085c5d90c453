"""What of a board stands in its appendix: sweeps, and budgets smaller than the largest of the same
pair on the same data, machine and kernel backend."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeAlias, TypeVar

from equivbench.gap.efficiency import PairGap
from equivbench.report.board import Board, BoardSetting
from equivbench.report.gaps import kernels_text

T = TypeVar("T")
BudgetSize: TypeAlias = tuple[bool, float]
"""Whether a budget is in seconds, and its limit: those in seconds count as the larger ones."""


def budget_size(gap: PairGap) -> BudgetSize:
    """How large the budget of ``gap`` is."""
    return gap.budget["kind"] == "seconds", float(gap.budget["limit"])


def boards_apart(boards: Sequence[Board]) -> tuple[list[Board], list[Board]]:
    """``boards`` in two parts, each in order: those to begin with, and those of the appendix. A
    board belongs to the first part if any pair on it has its largest budget there."""

    def pairs(board: Board) -> list[Hashable]:
        place = board.setting.task, board.setting.dataset, board.setting.machine_key
        rows = dict.fromkeys((row.pair, row.kernels) for row in board.rows)
        return [(*row, *place) for row in rows]

    return _apart(
        boards, pairs, lambda board: _size(board.setting), lambda board: _is_sweep(board.setting)
    )


def gaps_apart(gaps: Iterable[T], gap_of: Callable[[T], PairGap]) -> tuple[list[T], list[T]]:
    """``gaps``, each of which ``gap_of`` reads, in the same two parts."""

    def pairs(each: T) -> list[Hashable]:
        gap = gap_of(each)
        place = gap.task, gap.dataset["name"], gap.machine_key
        return [(gap.pair, kernels_text(gap), *place)]

    return _apart(
        list(gaps),
        pairs,
        lambda each: budget_size(gap_of(each)),
        lambda each: "sweep" in gap_of(each).variant,
    )


def _apart(
    all_of_them: Sequence[T],
    pairs_of: Callable[[T], list[Hashable]],
    size_of: Callable[[T], BudgetSize],
    is_sweep: Callable[[T], bool],
) -> tuple[list[T], list[T]]:
    largest: dict[Hashable, BudgetSize] = {}
    for each in all_of_them:
        if not is_sweep(each):
            for pair in pairs_of(each):
                largest[pair] = max(largest.get(pair, size_of(each)), size_of(each))
    first, rest = list[T](), list[T]()
    for each in all_of_them:
        leads = not is_sweep(each) and any(
            size_of(each) == largest[pair] for pair in pairs_of(each)
        )
        (first if leads else rest).append(each)
    return first, rest


def _size(setting: BoardSetting) -> BudgetSize:
    limit, _, kind = setting.budget.partition(" ")
    return kind == "seconds", float(limit)


def _is_sweep(setting: BoardSetting) -> bool:
    return any(part.startswith("sweep=") for part in setting.variant.split(", "))

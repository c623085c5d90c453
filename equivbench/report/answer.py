"""The answer that a board opens with: of each pair the gap that says most, and of each task a
sentence on who leads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from equivbench.gap.efficiency import PairGap
from equivbench.gap.intervals import Quantity
from equivbench.report.gaps import OTHER, budget_text, kernels_text
from equivbench.report.text import number_text


def telling_gaps(gaps: Iterable[PairGap]) -> list[PairGap]:
    """One gap of each pair on each kernel backend, in their order: of the runs as the pair is
    declared (no sweep) that of the largest budget, in seconds where there is one, then of the most
    seeds, then the newest.

    Which arm leads has no part in the choice.
    """
    found: dict[tuple[str, str, str], PairGap] = {}
    for gap in sorted(gaps, key=_weight):
        if "sweep" not in gap.variant:
            found[gap.task, gap.pair, kernels_text(gap)] = gap
    return [found[key] for key in sorted(found)]


def _weight(gap: PairGap) -> tuple[bool, float, int, str, str]:
    """How much a gap says; the last is there for an order that never changes."""
    seconds = gap.budget["kind"] == "seconds"
    return seconds, gap.budget["limit"], gap.n_seeds - gap.n_diverged, gap.day, gap.machine_key


def leaders_part(gap: PairGap) -> Quantity:
    """The loss of the arm that leads over the other's; of the equivariant arm where none does."""
    if gap.behind != "equivariant":
        return gap.loss_ratio
    return gap.loss_ratio.map(lambda value: 1 / value, falling=True)


def leads(gaps: Sequence[PairGap]) -> dict[str, list[PairGap]]:
    """The ``gaps`` in which each arm leads."""
    return {arm: [gap for gap in gaps if gap.behind == other] for arm, other in OTHER.items()}


def answer_text(gaps: Sequence[PairGap]) -> str:
    """A sentence on the ``gaps`` of one task, as :func:`telling_gaps` gives them."""
    times = Counter(gap.pair for gap in gaps)

    def name(gap: PairGap) -> str:
        return gap.pair + f" on {kernels_text(gap)}" * (times[gap.pair] > 1)

    parts = []
    for arm, own in leads(gaps).items():
        led = [f"{name(gap)} ({_losses(gap)}after {budget_text(gap)})" for gap in own]
        if led:
            parts.append(f"the {arm} arm leads in {listed(led)}")
    open_ones = [f"{name(gap)} ({gap.reason})" for gap in gaps if gap.behind is None]
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

"""The efficiency gap in a table and in plain words."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from equivbench.budget import Budget
from equivbench.gap.efficiency import PairGap
from equivbench.gap.intervals import Quantity, Timed

OTHER = {"equivariant": "augmented", "augmented": "equivariant"}
COLUMNS = (
    "pair",
    "kernels",
    "preset",
    "budget",
    "seeds",
    "equiv. loss",
    "augm. loss",
    "loss ratio",
    "s/sample ratio",
    "behind",
    "s* steady",
    "s* all-in",
    "leader's slack",
)
"""Ratios are equivariant over augmented; the slack is how much slower the other arm could be and
still tie (1 / its s*)."""
BARELY = 1.05
"""A bound on the speed-up below this says no more than that the arm is behind."""


def gap_rows(gaps: Sequence[PairGap]) -> list[tuple[str, ...]]:
    """A row per gap under ``COLUMNS``; the s* is that of the arm behind (of the one that seems so,
    in brackets).

    Until it is extended, the arm behind has not reached the other within its budget, so its s* is a
    bound; the leader's slack is measured within the budget.
    """
    return [_row(gap) for gap in gaps]


def headline(gap: PairGap) -> tuple[str, Timed] | None:
    """The arm whose s* is the headline, with its s*: the arm behind, or where the intervals do not
    decide the one whose estimate says so. None if not even an estimate does."""
    arm = gap.behind
    if arm is None:
        s_star = gap.s_star_equivariant.steady.value
        lagging = gap.loss_ratio.value if s_star is None else s_star
        if lagging is None:
            return None
        arm = "equivariant" if lagging >= 1 else "augmented"
    return arm, gap.s_star_equivariant if arm == "equivariant" else gap.s_star_augmented


def reading(gap: PairGap) -> str:
    """The gap in one or two plain sentences."""
    finished = gap.n_seeds - gap.n_diverged
    count = (
        f"{finished} of {gap.n_seeds} seeds finished"
        if gap.n_diverged
        else f"{gap.n_seeds} seed{'s' * (gap.n_seeds != 1)}"
    )
    if gap.behind is None:
        return f"The intervals do not decide which arm is behind ({count})."
    behind, leader = gap.behind, OTHER[gap.behind]
    s_star = gap.s_star_equivariant if behind == "equivariant" else gap.s_star_augmented
    spare = gap.s_star_augmented if behind == "equivariant" else gap.s_star_equivariant
    sentences = [
        f"The {behind} arm is behind ({count})"
        + _faster(s_star.steady)
        + _slower(leader, spare.steady)
        + "."
    ]
    if gap.lead.arm is None:
        sentences.append(f"Not a claimed lead: {gap.lead.reason}.")
    else:
        sentences.append(f"The {gap.lead.arm} arm leads ({gap.lead.reason}).")
    return " ".join(sentences)


def setting(gap: PairGap) -> str:
    """What the gap was measured under, in words."""
    parts = [
        gap.preset,
        budget_text(gap),
        *(f"{name} {value}" for name, value in sorted(gap.variant.items())),
    ]
    parts += [f"kernels {_kernels(gap)}", gap.machine_key]
    epochs = ", ".join(f"{arm} {value:.3g}" for arm, value in gap.epochs.items())
    return f"{', '.join(parts)}; epochs: {epochs}"


def budget_text(gap: PairGap) -> str:
    """The budget as the command line takes it."""
    return Budget(gap.budget["kind"], gap.budget["limit"]).text


def scaling_lines(gaps: Sequence[PairGap]) -> list[str]:
    """How each arm's loss falls with the budget, a line per arm of each pair that was run at three
    or more budgets."""
    lines: list[str] = []
    for gap in gaps:
        for arm, fit in (gap.scaling or {}).items():
            budgets = ", ".join(f"{budget:g}" for budget in fit.budgets)
            falls = f"loss falls as budget^-{fit.exponent:.2f} ({fit.low:.2f} to {fit.high:.2f})"
            line = f"scaling, {gap.task}/{gap.pair} {gap.preset}, {arm}: {falls} over {budgets} {gap.budget['kind']}"
            if line not in lines:
                lines.append(line)
    return lines


def show(quantity: Quantity, *, interval: bool = True, digits: int = 3) -> str:
    """``1.8 (1.5 to 2.3)``; a bound as ``> 3``; an open end of the interval as ``..``; ``-`` where
    nothing was measured."""
    number: Callable[[float | None], str] = lambda value: (
        ".." if value is None else f"{value:.{digits}g}"
    )
    if quantity.value is None:
        return {"above": "> any", "below": "< any", None: "-"}[quantity.censored]
    sign = {"above": "> ", "below": "< ", None: ""}[quantity.censored]
    text = sign + number(quantity.value)
    if interval and (quantity.low is not None or quantity.high is not None):
        text += f" ({number(quantity.low)} to {number(quantity.high)})"
    return text


def turn_text(seconds: Quantity) -> str:
    """A budget in seconds with its interval."""
    assert seconds.value is not None
    low, high = (".." if end is None else duration(end) for end in (seconds.low, seconds.high))
    doubt = "" if seconds.low is not None and seconds.high is not None else "?"
    return f"{duration(seconds.value)}{doubt} ({low} to {high})"


def duration(seconds: float) -> str:
    """Seconds, from two minutes or two hours on in those, to two digits or whole numbers."""
    size, unit = next(
        ((size, unit) for size, unit in ((3600.0, "h"), (60.0, "min")) if seconds >= 2 * size),
        (1.0, "s"),
    )
    value = seconds / size
    return f"{value:.0f} {unit}" if value >= 10 else f"{value:.2g} {unit}"


def _kernels(gap: PairGap) -> str:
    """One name where both arms run on it, else the equivariant arm's and the other's."""
    return " / ".join(dict.fromkeys(gap.kernels[arm] for arm in ("equivariant", "augmented")))


def _row(gap: PairGap) -> tuple[str, ...]:
    found = headline(gap)
    behind, steady, all_in, slack = "-", "-", "-", "-"
    if found is not None:
        leader = gap.s_star_augmented if found[0] == "equivariant" else gap.s_star_equivariant
        slack = show(leader.steady.map(lambda value: 1 / value, falling=True))
        behind, steady, all_in = found[0], show(found[1].steady), show(found[1].all_in)
        if gap.behind is None:
            behind = f"({behind}?)"
    finished = (
        f"{gap.n_seeds - gap.n_diverged} of {gap.n_seeds}" if gap.n_diverged else str(gap.n_seeds)
    )
    return (
        f"{gap.task}/{gap.pair}",
        _kernels(gap),
        gap.preset,
        budget_text(gap),
        finished,
        show(gap.loss_equivariant, interval=False),
        show(gap.loss_augmented, interval=False),
        show(gap.loss_ratio),
        show(gap.throughput_ratio.steady, interval=False),
        behind,
        steady,
        all_in,
        slack,
    )


def _faster(s_star: Quantity) -> str:
    if s_star.value is None:
        return " and no speed-up seen would make it tie" if s_star.censored == "above" else ""
    if s_star.censored == "above" and s_star.value < BARELY:
        return ": it never got there, `run --extend K` shows how much faster it would have to be to tie"
    if s_star.censored == "above":
        return f": it would have to be more than {s_star.value:.2g}x faster to tie"
    return f": it would have to be {s_star.value:.2g}x faster to tie"


def _slower(leader: str, s_star: Quantity) -> str:
    if s_star.value is None or s_star.value <= 0 or s_star.censored == "above":
        return ""
    more = "more than " if s_star.censored == "below" else ""
    return f"; the {leader} arm could be {more}{1 / s_star.value:.2g}x slower and still tie"

"""The gate's report: a table, GitHub annotations and a Markdown summary, all of the same
judgements."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from equivbench.gate.compare import Judgement
from equivbench.gate.verdict import GateVerdict, percent
from equivbench.report.text import markdown_cell, printable

ORDER: tuple[GateVerdict, ...] = (
    "dirty",
    "incomparable",
    "failed",
    "missing",
    "regression",
    "inconclusive",
    "improvement",
    "unchanged",
    "new",
)
"""Worst first: as the exit codes rank them."""
COLUMNS = (
    "benchmark",
    "metric",
    "baseline",
    "candidate",
    "change",
    "99% bounds",
    "noise",
    "repeats",
    "verdict",
    "why",
)
_ERRORS = frozenset({"dirty", "incomparable", "failed", "missing", "regression"})


def rows(judgements: Sequence[Judgement]) -> list[tuple[str, ...]]:
    """A row of text a judgement, worst verdicts first."""
    return [_row(each) for each in worst_first(judgements)]


def worst_first(judgements: Sequence[Judgement]) -> list[Judgement]:
    """The judgements in the order of the report."""
    return sorted(judgements, key=lambda each: ORDER.index(each.verdict))


def summary_line(judgements: Sequence[Judgement]) -> str:
    """How many of each verdict there are: ``1 regression, 11 unchanged``."""
    counts = Counter(each.verdict for each in judgements)
    return (
        ", ".join(f"{counts[verdict]} {verdict}" for verdict in ORDER if counts[verdict])
        or "nothing was compared"
    )


def workflow_commands(judgements: Sequence[Judgement], strict: bool) -> Iterator[str]:
    """GitHub workflow commands: an error for what fails the check, a warning for what cannot be
    told, a notice for the better."""
    for each in worst_first(judgements):
        errs = each.verdict in _ERRORS or (strict and each.verdict == "inconclusive")
        kind = (
            "error"
            if errs
            else {"inconclusive": "warning", "improvement": "notice"}.get(each.verdict)
        )
        if kind is not None:
            title = _property(f"{each.verdict}: {subject(each)}")
            yield f"::{kind} title={title}::{_data(_sentence(each))}"


def markdown(judgements: Sequence[Judgement], heading: str) -> str:
    """A heading, the counts and a table, for the summary page of a workflow run."""
    lines = [f"### {markdown_cell(heading)}", "", markdown_cell(summary_line(judgements)), ""]
    lines += [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    lines += [f"| {' | '.join(markdown_cell(cell) for cell in row)} |" for row in rows(judgements)]
    return "\n".join(lines) + "\n"


def _row(each: Judgement) -> tuple[str, ...]:
    return (
        each.benchmark + (" (control)" if each.control else ""),
        each.metric,
        _quantity(each.baseline, each.unit),
        _quantity(each.candidate, each.unit),
        "" if each.change is None else f"{each.change:+.1%}",
        "" if each.low is None or each.high is None else f"{each.low:+.1%} to {each.high:+.1%}",
        "" if each.noise_floor is None else percent(each.noise_floor),
        each.repeats,
        each.verdict,
        each.reason,
    )


def _sentence(each: Judgement) -> str:
    if each.baseline is None or each.candidate is None or each.change is None:
        return each.reason
    values = f"{_quantity(each.baseline, each.unit)} to {_quantity(each.candidate, each.unit)}"
    interval = (
        ""
        if each.low is None or each.high is None
        else f", 99% bounds {each.low:+.1%} to {each.high:+.1%}"
    )
    return f"{values} ({each.change:+.1%}{interval}): {each.reason}"


def subject(each: Judgement) -> str:
    """What was judged: the benchmark and its metric, where it has one."""
    return f"{each.benchmark} {each.metric}".strip()


def _quantity(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    if unit == "s":
        scale, name = next(
            ((s, n) for s, n in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")) if value >= s),
            (1e-9, "ns"),
        )
        return f"{value / scale:.4g} {name}"
    return f"{value:.4g}" if unit in ("1", "", "task unit") else f"{value:.4g} {unit}"


def _data(text: str) -> str:
    """``text`` as the message of a workflow command, on one line."""
    return printable(" ".join(text.split())).replace("%", "%25")


def _property(text: str) -> str:
    """``text`` as a property of a workflow command, which also ends at commas and colons."""
    return _data(text).replace(":", "%3A").replace(",", "%2C")

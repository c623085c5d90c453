"""The gate's report: a table, GitHub annotations and a Markdown summary, all of the same
judgements."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from equivbench.gap.intervals import Quantity
from equivbench.gate.compare import Judgement
from equivbench.gate.verdict import GateVerdict
from equivbench.report.render import cell_text
from equivbench.report.table import Amount, Cell, Column, Table
from equivbench.report.text import printable

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
SUBJECT = (Column("benchmark", key=True), Column("metric", key=True))
COLUMNS = (
    Column("baseline", "number", digits=4),
    Column("candidate", "number", digits=4),
    Column("change", "change", "change (99% bounds)"),
    Column("noise", "percent", digits=2),
    Column("repeats"),
    Column("verdict"),
    Column("why"),
)
_ERRORS = frozenset({"dirty", "incomparable", "failed", "missing", "regression"})


def gate_table(judgements: Sequence[Judgement], title: str = "") -> Table:
    """Make the table of ``judgements``, the worst verdicts first.

    Of what else tells benchmarks apart (kernels, budget, data, ...) it shows what readers need.
    """
    contexts = dict.fromkeys(name for each in judgements for name in each.context)
    columns = [Column(name, key=True, show="needed") for name in contexts]
    rows = [
        (*subject, *map(each.context.get, contexts), *found)
        for each in worst_first(judgements)
        for subject, found in [_row(each)]
    ]
    # A file that both sides read and that cannot be judged is said once.
    return Table(
        title,
        [*SUBJECT, *columns, *COLUMNS],
        list(dict.fromkeys(rows)),
        caption=summary_line(judgements) if title else "",
    )


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


def _row(each: Judgement) -> tuple[tuple[str, str], tuple[Cell, ...]]:
    """The cells under :data:`SUBJECT` and those under :data:`COLUMNS`."""
    bounds = each.low, each.high
    subject = each.benchmark + (" (control)" if each.control else ""), each.metric
    return subject, (
        _amount(each.baseline, each.unit),
        _amount(each.candidate, each.unit),
        None if each.change is None else Quantity(each.change, *bounds),
        each.noise_floor,
        each.repeats,
        each.verdict,
        each.reason,
    )


def _amount(value: float | None, unit: str) -> Amount | None:
    return None if value is None else Amount(value, "" if unit in ("1", "task unit") else unit)


def _sentence(each: Judgement) -> str:
    """What was measured and why it was judged so, for an annotation."""
    _, found = _row(each)
    cells = dict(zip((column.name for column in COLUMNS), found, strict=True))
    if None in (cells["baseline"], cells["candidate"], cells["change"]):
        return each.reason
    texts = {column.name: cell_text(cells[column.name], column) for column in COLUMNS}
    return "{baseline} to {candidate}, changed by {change}: {why}".format(**texts)


def subject(each: Judgement) -> str:
    """What was judged: the benchmark and its metric, where it has one."""
    return f"{each.benchmark} {each.metric}".strip()


def _data(text: str) -> str:
    """``text`` as the message of a workflow command, on one line."""
    return printable(" ".join(text.split())).replace("%", "%25")


def _property(text: str) -> str:
    """``text`` as a property of a workflow command, which also ends at commas and colons."""
    return _data(text).replace(":", "%3A").replace(",", "%2C")

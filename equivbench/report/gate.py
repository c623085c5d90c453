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
    Column("change", "change", "change (bounds)"),
    Column("power", "percent", "would have seen", digits=2),
    Column("repeats"),
    Column("verdict"),
    Column("why", wraps=True),
)
_ERRORS = frozenset({"dirty", "incomparable", "failed", "missing", "regression"})


def gate_table(judgements: Sequence[Judgement], title: str = "") -> Table:
    """Make the table of ``judgements``, the worst verdicts first.

    Of what else tells benchmarks apart (kernels, budget, data, ...) it shows what readers need.
    """
    contexts = dict.fromkeys(name for each in judgements for name in each.context)
    columns = [*SUBJECT, *(Column(name, key=True, show="needed") for name in contexts), *COLUMNS]
    rows = [
        (
            each.benchmark + (" (control)" if each.control else ""),
            each.metric,
            *map(each.context.get, contexts),
            *_cells(each),
        )
        for each in worst_first(judgements)
    ]
    caption = summary_line(judgements) if title else ""
    # A file that both sides read and that cannot be judged is said once.
    return Table(title, columns, list(dict.fromkeys(rows)), caption=caption)


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
    kinds = dict.fromkeys(_ERRORS, "error")
    kinds |= {"inconclusive": "error" if strict else "warning", "improvement": "notice"}
    for each in worst_first(judgements):
        if each.verdict in kinds:
            # A property of a command also ends at commas and colons.
            title = _data(f"{each.verdict}: {subject(each)}")
            title = title.replace(":", "%3A").replace(",", "%2C")
            yield f"::{kinds[each.verdict]} title={title}::{_data(_sentence(each))}"


def _cells(each: Judgement) -> tuple[Cell, ...]:
    """The cells under :data:`COLUMNS`."""
    unit = "" if each.unit in ("1", "task unit") else each.unit
    sides = (each.baseline, each.candidate)
    return (
        *(None if value is None else Amount(value, unit) for value in sides),
        None if each.change is None else Quantity(each.change, each.low, each.high),
        each.power,
        each.repeats,
        each.verdict,
        each.reason,
    )


def _sentence(each: Judgement) -> str:
    """What was measured and why it was judged so, for an annotation."""
    cells = _cells(each)
    if None in cells[:3]:
        return each.reason
    baseline, candidate, change = map(cell_text, cells[:3], COLUMNS)
    return f"{baseline} to {candidate}, changed by {change}: {each.reason}"


def subject(each: Judgement) -> str:
    """What was judged: the benchmark and its metric, where it has one."""
    return f"{each.benchmark} {each.metric}".strip()


def _data(text: str) -> str:
    """``text`` as the message of a workflow command, on one line."""
    return printable(" ".join(text.split())).replace("%", "%25")

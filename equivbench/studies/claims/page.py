"""The claims in a table, and the Markdown page that shows for each what was measured, by which
commands, and what follows."""

from __future__ import annotations

from collections.abc import Sequence

from equivbench.counted import counted
from equivbench.gap.intervals import Quantity
from equivbench.records.curves import ResultWeights
from equivbench.report.render import markdown_text, to_markdown
from equivbench.report.table import Column, Table
from equivbench.report.text import printable, quantity_text
from equivbench.studies.claims.findings import ClaimFigure, ClaimFinding, ClaimPart, distinct
from equivbench.studies.claims.headline import (
    Headline,
    budget_table,
    headline_table,
    scaling_table,
)
from equivbench.studies.claims.statements import (
    CAMPAIGNS,
    CLAIMS,
    CURVES,
    ORIGIN,
    PAPER,
    Claim,
    claim,
)

HEADINGS: dict[ResultWeights, str] = {"annealed": "annealed", "raw": "raw", "ema": "EMA"}
"""What each kind of weights is called on the page."""


def claims_table(findings: Sequence[ClaimFinding]) -> Table:
    """A row for each claim, machine and preset: the verdict for each kind of weights, that by the
    criterion as published, and why for the annealed ones."""
    columns = (
        Column("claim", key=True),
        Column("title", heading=" ", wraps=True),
        Column("hardware", key=True),
        Column("preset", key=True),
        *(Column(weights, heading=heading) for weights, heading in HEADINGS.items()),
        Column("as_published", heading="as published"),
        Column("why", wraps=True),
    )
    rows = []
    for own in by_evidence(findings):
        first = own["annealed"]
        rows.append(
            (
                first.claim,
                claim(first.claim).title,
                _hardware(first),
                first.preset,
                *(own[weights].verdict if weights in own else None for weights in HEADINGS),
                first.as_published,
                first.reason,
            )
        )
    return Table("", columns, rows)


def by_evidence(
    findings: Sequence[ClaimFinding],
) -> list[dict[ResultWeights, ClaimFinding]]:
    """The findings on one claim, machine and preset together, by their weights."""
    found: dict[tuple[str | None, ...], dict[ResultWeights, ClaimFinding]] = {}
    for each in findings:
        found.setdefault((each.claim, each.machine_key, each.preset), {})[each.weights] = each
    return list(found.values())


def figure_text(figure: ClaimFigure) -> str:
    """The figure with its interval and unit; ``-`` where nothing was measured."""
    quantity = Quantity(figure.value, figure.low, figure.high, figure.censored)
    if figure.unit == "%":
        return quantity_text(quantity.map(lambda value: value / 100), kind="percent")
    unit = "" if figure.value is None else f" {figure.unit}".rstrip()
    return quantity_text(quantity) + unit


def render_claims(
    findings: Sequence[ClaimFinding], headlines: Sequence[Headline] = (), notes: Sequence[str] = ()
) -> str:
    """The page on ``findings``, with the ``headlines`` that C5 rests on; ``notes`` are what was
    left out of the evidence.

    Text from records is escaped, and commands stand in indented code blocks, in which nothing is
    active.
    """
    blocks = [
        "# The claims, and what the records say",
        f"The paper is {PAPER}; its claims are in our words, and *published* is {CURVES}. Every "
        "verdict follows from the rules and the records alone: `equivbench reproduce "
        "--report-only` makes this page from them, `equivbench reproduce` makes the records.",
        ORIGIN,
        _rows(claims_table(findings)),
        "A share depends on the weights that are looked at: those after the learning rate has "
        "fallen to zero (annealed, the result of a budget), those where it begins to fall (raw), "
        "and the average of these (EMA). The verdicts go by whole intervals: *undecided* is what "
        "an interval leaves open, *not measured* means just that. *As published* is the verdict "
        "for the annealed weights by the criterion that the paper's figures suggest, which looks "
        "at no interval. A CPU's time is never read as a GPU's, and no two machines or presets "
        f"are mixed. {CAMPAIGNS}",
    ]
    if headlines:
        blocks += _headline(headlines)
    for each in CLAIMS:
        own = [finding for finding in findings if finding.claim == each.id]
        if own:
            blocks += _section(each, own)
    if notes:
        blocks += ["## Left out", "\n".join(f"- {markdown_text(note)}" for note in notes)]
    return "\n\n".join(blocks) + "\n"


def _headline(headlines: Sequence[Headline]) -> list[str]:
    timed = [each for each in headlines if each.steady is not None]
    return [
        "## The headline: loss per device-hour",
        "Loss of the equivariant arm over that of the augmented one, each at its budget; *data* "
        "is the data set, *part of the data* the fraction of its training split, where some runs "
        "had less than all of it. An arm in brackets with a question mark is ahead "
        "by the estimate alone: there is no verdict. s* is how much faster the other arm would "
        "have to be to tie. An hour is one of the whole machine: CPU-h are no GPU-h.",
        _rows(headline_table(headlines)),
        "At the budgets of the rungs, each the annealed result of its budget; an arm in brackets "
        "is ahead by the interval there, which is no claimed lead:",
        _rows(budget_table(timed)),
        "Exponents of loss = constant x seconds ^ -exponent for each arm, through its rungs of the "
        "last decade of the budget:",
        _rows(scaling_table(timed)),
    ]


def _section(each: Claim, findings: Sequence[ClaimFinding]) -> list[str]:
    published = "; ".join(
        text if task == "all" else f"{task}: {text}" for task, text in each.published.items()
    )
    blocks = [
        f"## {each.id}: {each.title}",
        each.statement,
        f"**Measured.** {each.measured} Enough: {each.suffices}.",
        f"**Rule.** {each.rule}",
        f"**As published.** {each.as_published}",
        f"**Weak points.** {each.weak}",
        f"**Published.** {published}.",
    ]
    for own in by_evidence(findings):
        where = markdown_text(_hardware(own["annealed"]))
        preset = own["annealed"].preset
        where += "" if preset is None else f", preset {markdown_text(preset)}"
        verdicts = [
            f"{found.verdict} ({HEADINGS[weights]}; as published {found.as_published})"
            for weights, found in own.items()
        ]
        blocks += [f"### {each.id}, {where}", f"{', '.join(verdicts)}."]
        for weights, found in own.items():
            blocks.append(f"*{HEADINGS[weights]}*: {markdown_text(found.reason)}.")
            for part in found.parts:
                blocks += _part(part)
        parts = [part for found in own.values() for part in found.parts]
        commands = distinct(command for part in parts for command in part.commands)
        if commands:
            runs = counted(len({run for part in parts for run in part.runs}), "run")
            blocks += [
                f"{runs}, made by",
                "\n".join(f"    {printable(command)}" for command in commands),
            ]
    return blocks


def _part(part: ClaimPart) -> list[str]:
    columns = (
        Column("figure", heading=" "),
        Column("measured (95% interval)"),
        Column("note", heading=" ", show="filled", wraps=True),
    )
    rows = [(each.what, figure_text(each), each.note) for each in part.measurements]
    what = f"**{markdown_text(part.subject)}: {part.verdict}**, {markdown_text(part.reason)}; "
    what += f"as published: {part.as_published}"
    what += f" (published: {markdown_text(part.published)})" if part.published else ""
    return [what, _rows(Table("", columns, rows))]


def _rows(table: Table) -> str:
    return to_markdown(table).rstrip("\n")


def _hardware(finding: ClaimFinding) -> str:
    if finding.machine_key is None or finding.hardware is None:
        return "no machine"
    return f"{finding.hardware}, {finding.machine_key}"

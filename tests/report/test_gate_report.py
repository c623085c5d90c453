"""The gate's report in text, workflow commands and Markdown."""

from __future__ import annotations

import pytest

from equivbench.gate.compare import Judgement
from equivbench.report.gate import (
    COLUMNS,
    gate_table,
    summary_line,
    workflow_commands,
    worst_first,
)
from equivbench.report.render import cell_text, to_markdown, to_plain

FIGURES = {
    "unit": "s",
    "baseline": 0.010,
    "candidate": 0.012,
    "change": 0.2,
    "low": 0.18,
    "high": 0.22,
    "power": 0.01,
}


def one(verdict: str, **changes: object) -> Judgement:
    settings: dict[str, object] = {
        "benchmark": "work",
        "metric": "seconds",
        "verdict": verdict,
        "reason": "because",
        **changes,
    }
    return Judgement(**settings)  # type: ignore[arg-type]


def test_the_worst_come_first() -> None:
    given = [
        one(verdict)
        for verdict in ("unchanged", "regression", "missing", "new", "dirty", "inconclusive")
    ]
    assert [each.verdict for each in worst_first(given)] == [
        "dirty",
        "missing",
        "regression",
        "inconclusive",
        "unchanged",
        "new",
    ]
    assert (
        summary_line(given)
        == "1 dirty, 1 missing, 1 regression, 1 inconclusive, 1 unchanged, 1 new"
    )


@pytest.mark.parametrize(
    ("verdict", "kind"),
    [
        ("regression", "error"),
        ("missing", "error"),
        ("failed", "error"),
        ("incomparable", "error"),
        ("dirty", "error"),
        ("inconclusive", "warning"),
        ("improvement", "notice"),
    ],
)
def test_each_verdict_has_its_annotation(verdict: str, kind: str) -> None:
    (line,) = workflow_commands([one(verdict)], strict=False)
    assert line.startswith(f"::{kind} title=")


def test_strict_makes_an_error_of_what_cannot_be_told() -> None:
    (line,) = workflow_commands([one("inconclusive")], strict=True)
    assert line.startswith("::error ")


def test_what_is_fine_needs_no_annotation() -> None:
    assert not list(workflow_commands([one("unchanged"), one("new")], strict=True))


def test_a_name_cannot_smuggle_in_a_command() -> None:
    (line,) = workflow_commands(
        [one("failed", benchmark="a\n::error::b", reason="x\r\n::set-env name=A::b 100%")],
        strict=False,
    )
    assert "\n" not in line
    assert "\r" not in line
    assert line.count("::") == 2 + line.split("::", 2)[2].count("::")
    assert line.endswith("100%25")


def test_rows_show_times_in_readable_units() -> None:
    table = gate_table([one("regression", **FIGURES)])
    cells = zip(table.columns, table.rows[0], strict=True)
    assert {column.name: cell_text(cell, column) for column, cell in cells} == {
        "benchmark": "work",
        "metric": "seconds",
        "baseline": "10.00 ms",
        "candidate": "12.00 ms",
        "change": "+20.0% (+18.0% to +22.0%)",
        "power": "1.0%",
        "repeats": "",
        "verdict": "regression",
        "why": "because",
    }


def test_markdown_is_a_table_whatever_the_names() -> None:
    judged = [one("failed", benchmark="a|b"), one("regression", **FIGURES)]
    page = to_markdown(gate_table(judged, "A | B"))
    table = [line for line in page.splitlines() if line.startswith("|")]
    assert len(table) == 2 + 2
    assert {line.replace("\\|", "").count("|") for line in table} == {2 + len(COLUMNS) + 1}


def test_what_tells_two_benchmarks_apart_is_shown_and_nothing_else_of_their_context() -> None:
    context = {"machine": "cpu", "preset": "small"}
    judged = [
        one("unchanged", **FIGURES, context={**context, "kernels": kernels})
        for kernels in ("torch", "fused")
    ]
    header = to_plain(gate_table(judged)).splitlines()[0].split()
    assert "kernels" in header
    assert not {"machine", "preset"} & set(header)

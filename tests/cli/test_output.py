"""What commands print on a terminal and in a pipe."""

from __future__ import annotations

import sys

import pytest

from equivbench.cli.output import print_table, print_text
from equivbench.report.table import Column, Table

SENTENCE = "  a paragraph of some words, which is longer than forty characters"


def on_terminal(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("LINES", "25")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.delenv("TERM", raising=False)


def test_a_paragraph_is_a_line_in_a_pipe_and_broken_between_words_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    print_text(SENTENCE)
    assert capsys.readouterr().out == f"{SENTENCE}\n"
    on_terminal(monkeypatch, 40)
    print_text(SENTENCE)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert max(map(len, lines)) <= 40
    assert all(line.startswith(("  a", "  l")) for line in lines)
    assert " ".join(lines).split() == SENTENCE.split()


def test_a_narrow_terminal_is_told_which_columns_it_does_not_show(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    columns = (Column("pair", key=True), Column("method", spare=True))
    table = Table("", columns, [("task/one", "a name of a way that is long")])
    print_table(table)
    assert "a way that is long" in capsys.readouterr().out
    on_terminal(monkeypatch, 30)
    print_table(table)
    shown = capsys.readouterr().out
    assert "a way that is long" not in shown
    assert shown.endswith("not shown for want of width:\nmethod\n")

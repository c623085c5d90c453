"""Pretrained networks as a table, alike in a terminal, in the board's Markdown and on its page."""

from __future__ import annotations

from pathlib import Path

import pytest
from factories import make_record
from pretrained_lines import measurement, on_a_grid

from equivbench.cli.main import main
from equivbench.records.line_files import PRETRAINED_FILE
from equivbench.records.store import write_record
from equivbench.report.pretrained import pretrained_table
from equivbench.report.publication import publish
from equivbench.report.render import row_texts, to_json


def test_each_network_says_what_it_declares_and_what_was_found() -> None:
    lines = [
        measurement("free"),
        measurement("held", symmetry="so3", symmetry_verified=True),
        measurement("broken", symmetry="so3", symmetry_verified=False),
        measurement("bare", reference=None, explained=None),
    ]
    rows = {row["network"]: row for row in row_texts(pretrained_table(lines))}
    assert [rows[name]["verified"] for name in ("free", "held", "broken")] == ["-", "yes", "NO"]
    assert rows["free"]["share"] == "0.20 (0.10 to 0.30)"
    assert rows["free"]["loss"] == "0.500 (eV/A)^2"
    assert rows["free"]["mean of 2"] == "0.450"
    assert rows["free"]["call"] == "250 ms"
    assert rows["bare"]["loss"] == rows["bare"]["mean of 8"] == "no reference"


def test_the_parts_of_a_grid_are_shown_where_there_is_one() -> None:
    shown = [column.name for column in pretrained_table([measurement()]).shown().columns]
    assert "learning" not in shown
    (row,) = to_json(pretrained_table([on_a_grid()]))
    assert row["learning"] + row["grid"] == pytest.approx(row["share"]["value"])
    assert row["translation"] == pytest.approx(0.02)


def test_the_boards_show_what_the_folder_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    write_record(make_record(), results)
    hostile = measurement("<b>bold</b>")
    PRETRAINED_FILE.keep([hostile, on_a_grid()], results)
    assert {each.network for each in publish(results).pretrained} == {"<b>bold</b>", "voxels"}
    texts: dict[str, str] = {}
    for name in ("md", "html", "latex", "csv", "json"):
        with pytest.raises(SystemExit) as stop:
            main(["leaderboard", "export", "--format", name, "--results", str(results)])
        assert stop.value.code == 0
        texts[name] = capsys.readouterr().out
    assert "## Pretrained networks\n" in texts["md"]
    assert "| voxels |" in texts["md"]
    assert 'id="pretrained"' in texts["html"]
    assert "&lt;b&gt;bold&lt;/b&gt;" in texts["html"]
    assert "<b>bold" not in texts["html"]
    assert texts["latex"].count("\\begin{table}") == 2
    assert "voxels &" in texts["latex"]
    assert r"\textless{}b\textgreater{}bold" in texts["latex"]
    # Rows of one kind: those of the boards.
    for name in ("csv", "json"):
        assert "voxels" not in texts[name]


def test_a_folder_without_any_says_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    write_record(make_record(), results)
    for name in ("md", "html"):
        with pytest.raises(SystemExit):
            main(["leaderboard", "export", "--format", name, "--results", str(results)])
        assert "retrained" not in capsys.readouterr().out

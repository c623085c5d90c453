"""Ladders as a table, alike in a terminal, in every format of the board and on its page."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from factories import make_record
from ladder_lines import FIRST, SECOND, keep_ladder, ladder_entry

from equivbench.cli.main import main
from equivbench.gap.ladder_file import keep_entry
from equivbench.records.store import write_record
from equivbench.report.ladder import ladder_table
from equivbench.report.publication import publish
from equivbench.report.render import row_texts, to_json


def test_each_entry_says_what_it_gained_and_all_of_them_together(tmp_path: Path) -> None:
    entries = keep_ladder(tmp_path)
    again, _ = ladder_entry("d" * 40, 0.02, against=SECOND, against_tau=0.05, day=4)
    rows = to_json(ladder_table([*entries, again]))
    assert [row["placing"] for row in rows] == ["first", "faster", "not faster", "faster"]
    assert [row["in_all"] for row in rows] == [1.0, pytest.approx(2.0), None, pytest.approx(5.0)]
    assert rows[1]["speed_up"]["value"] == pytest.approx(2.0)
    assert rows[1]["seconds"]["low"] < rows[1]["seconds"]["value"]
    texts = row_texts(ladder_table(entries))
    assert texts[0]["steps"] == "400"
    assert texts[0]["speed_up"] == texts[0]["p"] == "-"


def test_a_gain_that_was_not_compared_is_no_part_of_the_whole() -> None:
    alone, _ = ladder_entry(SECOND, 0.05, not_compared="it cannot be run here", day=2)
    table = ladder_table([ladder_entry(FIRST)[0], alone])
    assert [row["in_all"] for row in to_json(table)] == [1.0, None]
    assert table.notes[0] == f"toy/pair equivariant {SECOND[:12]}: no p, it cannot be run here"


def test_bounds_are_shown_as_bounds() -> None:
    entry, _ = ladder_entry(SECOND, 0.05, against=FIRST, target=0.17)
    (row,) = row_texts(ladder_table([entry]))
    # 5 n^-1/2 is 0.17 after 865 steps, and the runs end after 800.
    assert row["seconds"].startswith("more than 40")
    assert row["placing"] == "not reached"


def test_the_boards_show_what_the_folder_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    write_record(make_record(), results)
    keep_ladder(results)
    hostile, log = ladder_entry("e" * 40, change="<b>bold</b>", against=SECOND, day=5)
    keep_entry(hostile, log, results)
    assert len(publish(results).ladder) == 4

    def export(name: str, *more: str) -> str:
        with pytest.raises(SystemExit) as stop:
            main(["leaderboard", "export", "--format", name, "--results", str(results), *more])
        assert stop.value.code == 0
        return capsys.readouterr().out

    assert "## Times to target losses\n" in export("md")
    page = export("html")
    assert 'id="ladder"' in page
    assert "&lt;b&gt;bold&lt;/b&gt;" in page
    assert "<b>bold" not in page
    assert "placing" not in export("csv")
    rows = list(csv.DictReader(io.StringIO(export("csv", "--ladder"))))
    values = json.loads(export("json", "--ladder"))
    assert [row["placing"] for row in rows] == [row["placing"] for row in values]
    assert float(rows[1]["speed_up_low"]) == pytest.approx(values[1]["speed_up"]["low"])
    assert export("md", "--ladder").count("\n| toy/pair") == 4
    assert r"\begin{tabular}" in export("latex", "--ladder")


def test_a_folder_without_any_says_nothing_or_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    write_record(make_record(), results)
    for more, code, says in (
        (["--format", "md"], 0, ""),
        (["--format", "html"], 0, ""),
        (["--ladder"], 3, "has no ladder"),
        (["--ladder", "--format", "html"], 2, "--ladder is in md, csv, json, latex"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["leaderboard", "export", "--results", str(results), *more])
        found = capsys.readouterr()
        assert stop.value.code == code
        assert "target losses" not in found.out
        assert says in found.err

"""One word for one quantity: every table draws its columns from one list, and explains them."""

from __future__ import annotations

from equivbench.report import arms, words
from equivbench.report.table import Column, Table
from equivbench.report.words import MEANINGS, legend, with_legend


def test_a_legend_explains_what_is_shown_and_nothing_else() -> None:
    columns = (Column("arm", key=True), words.LOSS, words.SHARE_RAW, Column("floor", show="data"))
    (said,) = with_legend(Table("", columns, [("a", 1.0, 0.1, 0.0)])).notes
    assert said == f"loss: {MEANINGS['loss']}; raw: {MEANINGS['raw']}"


def test_columns_of_one_heading_are_one_column_everywhere() -> None:
    shared = {
        column.heading or column.name: column
        for column in vars(words).values()
        if isinstance(column, Column)
    }
    tables = (arms.SUMMARY_COLUMNS, arms.SWEEP_COLUMNS, arms.END_COLUMNS)
    found = [
        column for table in tables for column in table if (column.heading or column.name) in shared
    ]
    assert len(found) > 15
    assert [column for column in found if column != shared[column.heading or column.name]] == []
    assert set(shared) <= set(MEANINGS)


def test_a_word_is_explained_once() -> None:
    assert legend(["share", "share", "arm"]) == f"share: {MEANINGS['share']}"

"""What Python and notebooks show of records, gaps and measurements: short texts, tables, frames."""

from __future__ import annotations

import html
import re
import sys

import pytest
import torch
from factories import make_run
from hypothesis import given
from hypothesis import strategies as st

import equivbench as eb
from equivbench.gap.intervals import Quantity
from equivbench.measure.measurement import Measurement, Part, Verdict
from equivbench.report.notebook import MOST_ROWS, to_dataframe, to_html
from equivbench.report.render import to_csv
from equivbench.report.table import Column, Table

COLUMNS = (
    Column("pair", key=True),
    Column("loss", "number", unit="eV"),
    Column("why", show="data"),
)
STEPS = [10, 30, 100, 300, 1000]


@pytest.fixture(scope="module")
def records() -> eb.RunRecords:
    return eb.RunRecords(
        make_run(
            arm, lambda step, k=k, s=seed: (1 + s / 50) * k * step**-0.5, STEPS, tau=0.1, seed=seed
        )
        for seed in range(3)
        for arm, k in (("equivariant", 2.0), ("augmented", 4.0))
    )


@pytest.fixture(scope="module")
def measured() -> Measurement:
    part = {
        "total": 4.0,
        "twirled": 3.0,
        "equivariance": 1.0,
        "share": 0.25,
        "floor": 1e-13,
        "compare_untrained": lambda: 0.5,
        "group_weights": torch.ones(8, dtype=torch.float64),
        "group_total": torch.tensor([3.0, 5, 4, 2, 6, 4, 3, 5], dtype=torch.float64),
        "group_equivariance": torch.tensor(
            [1.2, 0.4, 1.1, 0.9, 2, 0.6, 0.8, 1], dtype=torch.float64
        ),
    }
    return Measurement(
        **part,
        objective=1.0,
        explained=0.9,
        samples=5,
        rotations=4,
        group="so3",
        allowed=1e-12,
        verdict=Verdict(False, "the share does not fall with the precision"),
        by={"H": Part(**part)},
        unit="(eV/A)^2",
    )


def cells(page: str) -> list[list[str]]:
    """The texts of a table in HTML, row by row."""
    rows = re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)
    return [
        [html.unescape(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)]
        for row in rows
    ]


@given(names=st.lists(st.text(max_size=8), max_size=3, unique=True))
def test_what_a_cell_holds_is_text_and_never_markup(names: list[str]) -> None:
    page = to_html(Table("<i>", COLUMNS, [(name + "<u>&amp;", 0.5, "") for name in names]))
    assert "<u>" not in page
    assert "<i>" not in page
    shown = [row[0] for row in cells(page)[1:]]
    assert [name.endswith("<u>&amp;") for name in shown] == [True] * len(names)


def test_long_tables_are_cut_and_say_so() -> None:
    table = Table("", COLUMNS, [(f"pair{i}", float(i), "") for i in range(MOST_ROWS + 2)])
    page = to_html(table)
    assert len(cells(page)) == 1 + MOST_ROWS
    assert "2 further rows" in page
    assert cells(page)[0] == ["pair", "loss [eV]"]


def test_a_frame_has_every_column_and_the_numbers_in_full() -> None:
    pytest.importorskip("pandas")
    rows = [("a", Quantity(1 / 3, 0.3, None, "above"), "x"), ("b", 0.1, "y")]
    table = Table("", COLUMNS, rows)
    frame = to_dataframe(table)
    assert list(frame.columns) == to_csv(table).splitlines()[0].split(",")
    assert frame["loss"].tolist() == [1 / 3, 0.1]
    assert frame["loss_low"][0] == 0.3
    assert frame["loss_high"].isna().all()
    assert frame["why"].tolist() == ["x", "y"]


def test_without_pandas_it_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, records: eb.RunRecords
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(eb.FailedError, match=r"equivbench\[notebooks\]"):
        records.to_dataframe()


def test_records_are_a_short_line_each_and_a_table(records: eb.RunRecords) -> None:
    lines = repr(records).splitlines()
    assert len(lines) == len(records)
    assert all(len(line) < 120 and "RunRecord toy/pair" in line for line in lines)
    heading, *rows = cells(records._repr_html_())
    assert heading[:3] == ["pair", "arm", "seed"]
    assert [row[1:3] for row in rows] == [[each.arm, str(each.seed)] for each in records]
    assert len(cells(records[0]._repr_html_())) == 2


def test_gaps_are_what_the_command_prints(records: eb.RunRecords) -> None:
    gaps = eb.efficiency_gap(records)
    assert isinstance(gaps, eb.PairGaps)
    assert re.fullmatch(
        r"<PairGap toy/pair, small, 3 seeds: loss ratio 0\.5\d* \(.*\), "
        r"the augmented arm is behind>",
        repr(gaps[0]),
    )
    heading, row = cells(gaps._repr_html_())
    assert row[heading.index("behind")] == "augmented"
    page = gaps[0]._repr_html_()
    assert "it would have to be" in page or "did not reach" in page
    # What only a frame has is not shown.
    assert "p_holm" not in heading


def test_a_measurement_says_whether_the_symmetry_holds(measured: Measurement) -> None:
    text = "total 4, share 0.25, floor 1e-13, symmetry does not hold"
    assert repr(measured) == f"<Measurement of 5 samples, 4 rotations of so3: {text}>"
    page = measured._repr_html_()
    heading, *rows = cells(page)
    assert heading[1] == "loss [(eV/A)^2]"
    assert [row[0] for row in rows] == ["all", "H"]
    low, high = measured.interval()
    assert rows[0][4] == f"0.2500 ({low:.4f} to {high:.4f})"
    assert "symmetry DOES NOT HOLD: the share does not fall with the precision" in page


def test_frames_of_results_have_a_row_each(records: eb.RunRecords, measured: Measurement) -> None:
    pytest.importorskip("pandas")
    frame = records.to_dataframe()
    assert frame["loss"].tolist() == [record.final.total for record in records]
    gaps = eb.efficiency_gap(records)
    assert gaps.to_dataframe()["loss_ratio"][0] == gaps[0].loss_ratio.value
    assert measured.to_dataframe()["share_low"][0] == measured.interval()[0]


def test_a_decomposition_is_one_line_and_a_row_a_prediction() -> None:
    predictions = torch.randn(4, 1000, 3, generator=torch.Generator().manual_seed(0))
    d = eb.decompose(predictions, torch.zeros(1000, 3))
    assert re.fullmatch(
        r"<Decomposition of 1000 rows: total \S+ = twirled \S+ \+ equivariance \S+, share \S+>",
        repr(d),
    )
    rows = cells(d._repr_html_())[1:]
    assert len(rows) == MOST_ROWS
    assert float(rows[7][2]) == pytest.approx(float(d.total[7]), rel=1e-3)
    assert f"share of all rows: {d.share:#.3g}" in d._repr_html_()

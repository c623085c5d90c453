"""The tables and the figure of gradients show what the analyses hold, and what they lack as
missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gradient_analyses import analysis, point

from equivbench.cli.output import print_table
from equivbench.errors import FailedError
from equivbench.report.figures import save_figure
from equivbench.report.render import cell_text
from equivbench.studies.gradients.command import correlation_table, gradient_table, kind
from equivbench.studies.gradients.record import Gradients
from equivbench.studies.gradients.statistics import pool
from equivbench.studies.record import Estimate


def rows(found: Gradients) -> list[dict[str, str]]:
    """The rows of the table as a reader sees them, by heading."""
    table = gradient_table(found, "1")
    return [
        {
            column.title: cell_text(cell, column)
            for cell, column in zip(row, table.columns, strict=True)
        }
        for row in table.rows
    ]


def test_a_row_holds_a_point_and_the_deviation_relative_to_the_share() -> None:
    (shown,) = rows(analysis(points=[point(step=30, ratio=0.5, share=0.05, deviation=0.25)]))
    assert shown["step"] == "30"
    assert shown["|grad M|"] == "2.00"
    assert shown["|grad V|"] == "1.00"
    assert shown["|grad V| / |grad M|"] == "0.500 (0.450 to 0.550)"
    assert shown["deviation / share"] == "5.00"


def test_what_was_not_measured_is_a_dash_and_never_a_number() -> None:
    lacking = point(step=30, ratio=None, share=None, deviation=0.2)
    first, second = rows(analysis(points=[lacking, point(step=40, share=0.0)]))
    assert [*first.values()][3:] == ["-", "2.00", "-", "-", "0.200", "-"]
    assert second["deviation / share"] == "-"


def test_an_interval_with_an_open_end_says_so() -> None:
    half = point(step=30)
    half.ratio = Estimate(value=0.5, high=0.9)
    (shown,) = rows(analysis(points=[half]))
    assert shown["|grad V| / |grad M|"] == "0.500 (0.900 or less)"


def test_reasons_are_counted_and_cannot_drive_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    reasons = {
        "points.0.ratio": "too few\x1b[2J",
        "points.3.ratio": "too few\x1b[2J",
        "points.1.twirled_norm": "other",
        "correlations.ratio": "elsewhere",
    }
    print_table(gradient_table(analysis(reasons=reasons), "1"))
    *_, first, second, legend = capsys.readouterr().out.splitlines()
    assert [first, second] == [
        "ratio at 2 of 10 points: too few\N{REPLACEMENT CHARACTER}[2J",
        "twirled norm at 1 of 10 points: other",
    ]
    assert legend.startswith("M: twirled error")


def test_correlations_are_given_raw_and_detrended_over_the_runs() -> None:
    (pooled,) = pool([analysis(seed=seed) for seed in range(3)])
    table = correlation_table(pooled)
    assert [row[0] for row in table.rows] == ["gradient ratio", "deviation of parameters"]
    for _, raw, detrended, runs in table.rows:
        assert runs == 3
        assert " to " in cell_text(raw, table.columns[1])
        assert " to " in cell_text(detrended, table.columns[2])
    assert table.notes == []
    assert table.title == kind(pooled) == "toy/pair augmented, small, toy-cpu-2t"


def test_a_quantity_that_no_run_has_is_left_out_and_few_points_are_explained() -> None:
    few = analysis(deviates=False)
    few.points = few.points[:4]
    (pooled,) = pool([few])
    table = correlation_table(pooled)
    assert [row[0] for row in table.rows] == ["gradient ratio"]
    (note,) = [line for line in table.notes if "detrended" in line]
    assert "degrees of freedom are left" in note


def test_the_figure_draws_the_values_that_are_there_with_their_intervals() -> None:
    pytest.importorskip("matplotlib")
    from equivbench.studies.gradients.command import draw_gradients

    whole = analysis()
    whole.points[3] = point(step=20, ratio=None, share=-1e-6)
    norms, ratios = draw_gradients([whole, analysis(seed=1)]).axes
    assert [len(container[0].get_xdata()) for container in norms.containers] == [10, 9, 10, 10]
    ratio, share, deviation = (
        np.asarray(container[0].get_xydata()) for container in ratios.containers[:3]
    )
    kept = [each for each in whole.points if each.ratio.value is not None]
    np.testing.assert_allclose(ratio, [(each.step, each.ratio.value) for each in kept])
    assert len(share) == 9
    assert len(deviation) == 10
    bars = ratios.containers[0][2][0].get_segments()
    np.testing.assert_allclose(bars[0][:, 1], [kept[0].ratio.low, kept[0].ratio.high])


def test_it_writes_the_format_that_the_suffix_names_and_refuses_nothing(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from equivbench.studies.gradients.command import draw_gradients

    assert (
        save_figure(draw_gradients([analysis(variant={"$x_": "\\"})]), tmp_path / "g.svg")
        .read_text()
        .startswith("<?xml")
    )
    with pytest.raises(FailedError, match="no analysis has a point"):
        draw_gradients([analysis(points=[])])

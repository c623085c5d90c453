"""The table and the figure of a landscape say what the line says, and no more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from claim_evidence import all_tasks, curvature, landscape

from equivbench.cli.output import print_table
from equivbench.report.figures import save_figure
from equivbench.report.render import cell_text
from equivbench.studies.landscape.command import landscape_table
from equivbench.studies.landscape.record import Landscape
from equivbench.studies.record import ERROR_PARTS, Estimate

AXIS = np.linspace(-1, 1, 7)


def bowl(**more: object) -> Landscape:
    """Around the end of some run; the total error is a bowl, the other parts a trough and
    nothing."""
    x, y = np.meshgrid(AXIS, 2 * AXIS, indexing="ij")
    grids = {"total": x**2 + y**2, "twirled": x**2, "equivariance": 0 * x}
    return landscape(
        all_tasks()[0],
        curvature(3.0),
        curvature(50.0, largest_again=[41.0], trace=Estimate(value=2.0, low=1.0, high=3.0)),
        axes=[AXIS.tolist(), (2 * AXIS).tolist()],
        grids={name: grid.tolist() for name, grid in grids.items()},
        **more,
    )


def test_every_part_has_its_column() -> None:
    table = landscape_table(bowl(), "1")
    assert [column.name for column in table.columns[1:]] == list(ERROR_PARTS)
    rows = {
        row[0]: [
            cell_text(cell, column) for cell, column in zip(row[1:], table.columns[1:], strict=True)
        ]
        for row in table.rows
    }
    assert rows["largest eigenvalues"] == ["50.0", "50.0", "3.00"]
    assert rows["effective condition"] == [
        "50.0 (45.0 to 55.0)",
        "50.0 (45.0 to 55.0)",
        "3.00 (2.70 to 3.30)",
    ]
    assert rows["trace"] == ["2.00 (1.00 to 3.00)", "2.00 (1.00 to 3.00)", "1.00"]
    assert rows["quadratic fit R2"] == ["0.990"] * 3


def test_the_title_says_on_what_and_hostile_names_are_inert(
    capsys: pytest.CaptureFixture[str],
) -> None:
    title = landscape_table(bowl(), "(eV/A)^2").title
    assert "all parameters (10), 8 test samples, 2 rotations" in title
    print_table(landscape_table(bowl(layers="head\x1b[31m\n*"), "1"))
    first = capsys.readouterr().out.splitlines()[0]
    assert first.isprintable()
    assert "parameters head" in first


def test_a_reason_is_said_once() -> None:
    reasons = {f"parts.{part}.fresh_r2": "without a repeat" for part in ERROR_PARTS} | {
        "parts.total.in_plane_condition": "a saddle"
    }
    assert landscape_table(bowl(reasons=reasons), "1").notes == [
        "total: fresh r2, twirled: fresh r2, equivariance: fresh r2: without a repeat",
        "total: in plane condition: a saddle",
    ]


def test_the_figure_draws_the_slice_it_was_given(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from equivbench.studies.landscape.command import draw_landscape

    found = bowl(pair="$x_$")
    figure = draw_landscape(found)
    surfaces = [axes for axes in figure.axes if axes.name == "3d"]
    assert [axes.get_title().split()[0] for axes in surfaces] == list(ERROR_PARTS)
    # A grid of 7 by 7 points has 36 faces; the total error reaches 1 + 4 at the corners.
    assert len(surfaces[0].collections[0].get_facecolors()) == 36  # type: ignore[attr-defined]
    low, high = surfaces[0].get_zlim()  # type: ignore[attr-defined]
    assert -0.5 < low <= 0
    assert 5 <= high < 5.5
    assert save_figure(figure, tmp_path / "slice.png").stat().st_size > 10_000

"""The figures of learning curves and of a gap: they draw what the records hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from factories import make_record, make_run

from equivbench.errors import FailedError, UsageError
from equivbench.gap.efficiency import efficiency_gap
from equivbench.gap.frontier import frontiers
from equivbench.report.figures import (
    draw_curves,
    draw_gap,
    draw_share,
    require_drawable,
    save_figure,
)
from equivbench.report.frontier_figure import draw_frontier

pytest.importorskip("matplotlib")


def records() -> list:
    return [
        make_run(arm, lambda step: 3.0 * step**-0.5, [10, 100, 1000], tau=0.1, seed=seed)
        for arm in ("equivariant", "augmented")
        for seed in range(2)
    ]


def test_each_seed_and_each_mean_is_a_line_with_the_record_s_points() -> None:
    loss, share, explained = draw_curves(records()).axes
    # Of two arms: raw and averaged weights, two seeds and their mean; on top a line for the legend
    # of each of the former.
    assert len(loss.lines) == 10 + 2
    assert len(share.lines) == len(explained.lines) == 10
    raw, ema, first, second, mean = loss.lines[:5]
    for line, factor, steps in (
        (raw, 1.2, (10, 100)),
        (ema, 0.9 * 1.2, (10, 100)),
        (first, 1.0, (10, 100, 1000)),
        (second, 1.0, (10, 100, 1000)),
        (mean, 1.0, (10, 100, 1000)),
    ):
        points = [(step * 0.1, factor * 3.0 * step**-0.5) for step in steps]
        np.testing.assert_allclose(line.get_xydata(), points)


def test_repetitions_and_extensions_are_no_seeds() -> None:
    again = make_run(
        "augmented", lambda step: 2.0, [10, 100, 1000], tau=0.1, created="2027-01-01T00:00:00Z"
    )
    longer = make_run(
        "augmented",
        lambda step: 2.0,
        [10, 2000],
        tau=0.1,
        limit=200.0,
        budget={"extends": 100.0},
        created="2025-01-01T00:00:00Z",
    )
    once, more = (draw_curves(each).axes[0] for each in (records(), [*records(), again, longer]))
    assert len(more.lines) == len(once.lines)
    for first, second in zip(once.lines, more.lines, strict=True):
        np.testing.assert_array_equal(first.get_xydata(), second.get_xydata())
    assert any("2 seeds" in text.get_text() for text in more.get_legend().get_texts())


def test_the_last_annealed_point_is_on_the_samples_of_the_others() -> None:
    (record, *_) = records()
    assert record.final is not None
    assert record.final_on_part is not None
    record.final_on_part.total = 7.0
    loss = draw_curves([record]).axes[0]
    assert np.asarray(loss.lines[2].get_ydata())[-1] == 7.0


def test_the_share_alone_is_the_panel_of_the_curves() -> None:
    (axes,) = draw_share(records()).axes
    for line, same in zip(axes.lines, draw_curves(records()).axes[1].lines, strict=False):
        np.testing.assert_array_equal(line.get_xydata(), same.get_xydata())


def test_it_writes_the_format_that_the_suffix_names(tmp_path: Path) -> None:
    figure = draw_curves(records(), unit="(eV/A)^2")
    assert save_figure(figure, tmp_path / "curves.svg").read_text().startswith("<?xml")
    assert save_figure(figure, tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UsageError, match="suffix"):
        require_drawable(tmp_path / "curves.nothing")


@pytest.mark.parametrize("suffix", ["svg", "png", "pdf"])
def test_a_figure_of_the_same_records_has_the_same_bytes(suffix: str, tmp_path: Path) -> None:
    first, second = (
        save_figure(draw_curves(records()), tmp_path / f"{name}.{suffix}") for name in "ab"
    )
    assert first.read_bytes() == second.read_bytes()


def test_the_gap_is_drawn_where_the_better_arm_passes_the_other_s_loss() -> None:
    runs = [
        make_run(arm, lambda step, k=k: k * step**-0.5, [10, 100, 1000], tau=0.1, seed=seed)
        for arm, k in (("equivariant", 2.0), ("augmented", 4.0))
        for seed in range(2)
    ]
    (gap,) = efficiency_gap(runs)
    (axes,) = draw_gap(gap, runs, unit="eV").axes
    corner = axes.lines[-1].get_xydata()
    # A loss of 4 n^-0.5 at n = 1000 is that of 2 n^-0.5 at 250 steps, 25 s.
    assert corner[1] == pytest.approx((25.0, 4.0 * 1000**-0.5), rel=1e-3)  # type: ignore[index]
    assert axes.get_ylabel() == "test loss [eV]"


@pytest.mark.parametrize(
    ("whole", "says"), [(False, "on a part of the test set"), (True, "on the whole test set")]
)
def test_a_figure_of_rungs_says_on_what_of_the_test_set_they_are_read(
    whole: bool, says: str
) -> None:
    runs = [
        make_run(
            arm,
            lambda step, k=k: k * step**-0.5,
            [10, 100, 1000],
            tau=0.1,
            seed=seed,
            variant={"forces": "conservative"},
        )
        for arm, k in (("equivariant", 2.0), ("augmented", 4.0))
        for seed in range(2)
    ]
    for run in runs:
        for rung in run.rungs if whole else ():
            rung.test.samples, rung.test.rotations = run.final.samples, run.final.rotations
    (gap,) = efficiency_gap(runs)
    (frontier,) = frontiers(runs).found
    drawn = [draw_curves(runs), draw_share(runs), draw_gap(gap, runs), draw_frontier(frontier)]
    for figure in drawn:
        title = "".join(figure.axes[0].get_title(loc) for loc in ("left", "center"))
        assert title.splitlines()[1] == f"forces conservative, {says}"


def test_it_refuses_nothing() -> None:
    with pytest.raises(FailedError, match="no record"):
        draw_curves([make_record(rungs=[])])

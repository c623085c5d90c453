"""The figures of learning curves and of a gap: they draw what the records hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from factories import make_record, make_run

from equivbench.errors import FailedError, UsageError
from equivbench.gap.efficiency import efficiency_gap
from equivbench.report.figures import (
    draw_curves,
    draw_gap,
    require_drawable,
    save_figure,
)

pytest.importorskip("matplotlib")


def records() -> list:
    return [
        make_run(arm, lambda step: 3.0 * step**-0.5, [10, 100, 1000], tau=0.1, seed=seed)
        for arm in ("equivariant", "augmented")
        for seed in range(2)
    ]


def test_each_seed_and_each_mean_is_a_line_with_the_record_s_points() -> None:
    loss, share, explained = draw_curves(records()).axes
    # Two seeds and a mean, of two arms.
    assert len(loss.lines) == len(share.lines) == len(explained.lines) == 6
    np.testing.assert_allclose(
        loss.lines[0].get_xydata(), [(step * 0.1, 3.0 * step**-0.5) for step in (10, 100, 1000)]
    )


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


def test_it_refuses_nothing() -> None:
    with pytest.raises(FailedError, match="no record"):
        draw_curves([make_record(trace=[])])

"""The figure of learning curves: it draws what the records hold, and refuses what it cannot
compare."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from factories import make_record, make_run

from equivbench.errors import FailedError, IncomparableError, UsageError
from equivbench.report.curves import draw_curves, plot_curves

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
    assert (
        plot_curves(records(), tmp_path / "curves.svg", unit="(eV/A)^2")
        .read_text()
        .startswith("<?xml")
    )
    with pytest.raises(UsageError, match="suffix"):
        plot_curves(records(), tmp_path / "curves.nothing")


def test_it_refuses_nothing_and_mixtures() -> None:
    with pytest.raises(FailedError, match="no record"):
        draw_curves([make_record(trace=[])])
    for other in ({"preset": "dev"}, {"variant": {"sweep": "data", "value": "0.5"}}):
        with pytest.raises(IncomparableError):
            draw_curves([*records(), make_record(**other)])

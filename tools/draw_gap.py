"""Draw docs/figures/gap.png: what the efficiency gap is, on the reference records of the
quick-start pair.

python tools/draw_gap.py [RESULTS] [FIGURE]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from equivbench.gap.efficiency import efficiency_gap
from equivbench.records.schema import RunRecord
from equivbench.records.store import load_results
from equivbench.report.curves import COLOURS
from equivbench.report.figures import empty_figure

ROOT = Path(__file__).parents[1]


def mean_curve(runs: list[RunRecord]) -> tuple[np.ndarray, np.ndarray]:
    """(seconds, loss): geometric means over seeds at each evaluation."""
    points = np.array(
        [[(point.train_seconds, point.test.total) for point in run.trace] for run in runs]
    )
    seconds, loss = np.exp(np.log(points).mean(axis=0)).T
    return seconds, loss


def main(results: Path, figure: Path) -> None:
    """Draw the figure."""
    records = [
        r
        for r in load_results(results)
        if (r.task, r.pair, r.variant) == ("forcefield", "vector", {"forces": "direct"})
    ]
    (gap,) = efficiency_gap(records)
    budget, s_star = gap.budget["limit"], gap.s_star_equivariant.steady.value
    level = gap.loss_augmented.value
    assert s_star is not None
    assert level is not None
    drawn = empty_figure(7.5, 4.2)
    axes = drawn.add_subplot()
    for arm in ("augmented", "equivariant"):
        seconds, loss = mean_curve([record for record in records if record.arm == arm])
        axes.plot(
            seconds,
            loss,
            color=COLOURS[arm],
            marker="o",
            markersize=3,
            linewidth=2,
            label=f"{arm} arm",
        )
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="budget spent [s]",
        ylabel="test loss [(eV/A)^2]",
        ylim=(0.06, 2.5),
    )
    ticks = (1, 2, 5, 10, 20, 60)
    axes.set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
    axes.set_xticks([], minor=True)
    axes.axvline(budget, color="0.4", linewidth=0.8)
    axes.plot(
        [s_star * budget, s_star * budget, budget],
        [0.06, level, level],
        color="0.4",
        linestyle="dashed",
        linewidth=1,
    )
    plain = {"textcoords": "offset points", "color": "0.2", "fontsize": 9}
    axes.annotate("budget B", (budget, 2.0), (-5, 0), rotation=90, va="top", ha="right", **plain)
    axes.annotate(
        "L: where the augmented arm ends",
        (s_star * budget, level),
        (-6, -2),
        ha="right",
        va="top",
        **plain,
    )
    axes.annotate(
        f"s* B: the equivariant arm is there (s* = {s_star:.2f})",
        (s_star * budget, 0.066),
        (-6, 0),
        ha="right",
        **plain,
    )
    axes.legend(frameon=False, loc="upper right", bbox_to_anchor=(0.93, 1.0))
    axes.spines[["top", "right"]].set_visible(False)
    drawn.savefig(figure, dpi=130)


if __name__ == "__main__":
    arguments = [Path(argument) for argument in sys.argv[1:]]
    main(*(arguments + [ROOT / "results", ROOT / "docs" / "figures" / "gap.png"][len(arguments) :]))

"""A sweep's records as curves: which records are one point, in which order, and what is said of
seeds that diverged."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import pytest
from factories import make_record, make_test

from equivbench.errors import UsageError
from equivbench.gap.efficiency import efficiency_gap
from equivbench.gap.intervals import Quantity
from equivbench.records.schema import RunRecord
from equivbench.report.arms import Sweep, gather_sweeps, sweep_table
from equivbench.report.board import build_boards
from equivbench.report.figures import draw_sweep, require_drawable, save_figure
from equivbench.report.render import cell_text
from equivbench.report.text import quantity_text


def record(
    value: str,
    total: float,
    *,
    arm: str = "equivariant",
    seed: int = 0,
    axis: str = "data",
    **more: Any,
) -> RunRecord:
    rungs = [
        {
            "budget": 0.1 * n,
            "step": n,
            "samples": 8 * n,
            "train_seconds": 0.1 * n,
            "test": make_test(factor * total, 0.1 / n),
        }
        for n, factor in ((10, 4.0), (100, 1.0))
    ]
    variant = {"sweep": axis, "value": value}
    return make_record(
        arm=arm,
        seed=seed,
        rungs=rungs,
        variant=variant,
        run_id=f"small-seed{seed}-{axis}-{value}",
        **more,
    )


def first_row(sweep: Sweep) -> dict[str, str]:
    table = sweep_table(sweep)
    cells = zip(table.columns, table.rows[0], strict=True)
    return {column.name: cell_text(cell, column) for column, cell in cells}


def test_values_come_in_numerical_order_and_default_runs_are_left_out() -> None:
    values = ("1", "0.25", "0.5")
    (sweep,) = gather_sweeps(
        [*(record(value, 1.0) for value in values), make_record()], {"toy": "eV"}
    )
    assert [point.value for point in sweep.points] == ["0.25", "0.5", "1"]
    assert (sweep.axis, sweep.unit, sweep.arms) == ("data", "eV", ["equivariant"])
    (named,) = gather_sweeps(
        [record(value, 1.0, axis="optimizer") for value in ("sgd:0.1", "adam")]
    )
    assert [point.value for point in named.points] == ["sgd:0.1", "adam"]


def test_a_point_is_the_mean_over_seeds_at_the_end_and_along_the_way() -> None:
    (sweep,) = gather_sweeps([record("1", 1.0), record("1", 4.0, seed=1)])
    (point,) = sweep.points
    assert (point.seeds, point.finished, point.diverged) == (2, 2, 0)
    assert point.final.total.value == pytest.approx(2.0)
    assert point.final.total.low * point.final.total.high == pytest.approx(4.0)
    assert point.final.explained.value == pytest.approx(1 - 2.5 / 10)
    assert [passed.step for passed in point.rungs] == [10, 100]
    assert [passed.test.total.value for passed in point.rungs] == pytest.approx([8.0, 2.0])
    assert [passed.test.share.value for passed in point.rungs] == pytest.approx([0.01, 0.001])


def test_a_diverged_seed_is_counted_and_in_no_mean() -> None:
    lost = record("1", 4.0, seed=1, status="diverged", reason="nan", final=None)
    (sweep,) = gather_sweeps([record("1", 1.0), lost])
    assert sweep.points[0].final.total.value == pytest.approx(1.0)
    assert first_row(sweep)["seeds"] == "1 of 2, 1 diverged"
    (alone,) = gather_sweeps([lost])
    assert first_row(alone)["loss"] == "-"


def test_axes_budgets_and_machines_are_sweeps_of_their_own_and_the_first_record_counts() -> None:
    others = [
        record("1", 1.0, axis="size"),
        record("1", 1.0, budget={"limit": 50.0}),
        record("1", 1.0, environment={"machine_key": "other"}),
        record("1", 1.0, dataset={"sha256": "1" * 64}),
    ]
    newer = record("1", 3.0, created="2027-01-01T00:00:00Z")
    found = gather_sweeps([newer, record("1", 1.0), *others])
    assert len(found) == 1 + len(others)
    assert found[0].points[0].final.total.value == pytest.approx(1.0)


def test_the_share_of_each_kind_of_weights_has_a_column() -> None:
    point = record("1", 1.0, final_raw=make_test(1.2, 0.3), final_ema=make_test(1.1, 0.2))
    (sweep,) = gather_sweeps([point])
    row = first_row(sweep)
    assert [row[name] for name in ("share", "share_raw", "share_ema")] == [
        "0.0010",
        "0.30",
        "0.20",
    ]


def test_no_board_and_no_gap_mixes_a_point_with_another_or_with_the_default_runs() -> None:
    arms = ("equivariant", "augmented")
    runs = [record(value, 1.0, arm=arm) for value in ("0.5", "1") for arm in arms]
    runs += [make_record(arm=arm) for arm in arms]
    boards = build_boards(runs)
    assert sorted(board.setting.variant for board in boards) == [
        "",
        "sweep=data, value=0.5",
        "sweep=data, value=1",
    ]
    assert all(len(board.rows) == 2 for board in boards)
    assert sorted(gap.variant.get("value", "") for gap in efficiency_gap(runs)) == ["", "0.5", "1"]


def test_quantities_as_text() -> None:
    assert quantity_text(Quantity(0.12345, 0.1, 0.2)) == "0.123 (0.100 to 0.200)"
    assert quantity_text(Quantity(0.12345)) == "0.123"
    assert quantity_text(Quantity()) == "-"


@pytest.mark.parametrize(
    ("axis", "values"),
    [("data", ("0.25", "1")), ("optimizer", ("sgd:0.1", "adam")), ("augmentation", ("0", "1"))],
)
def test_the_figure_draws_every_arm_and_point_with_units(
    axis: str, values: tuple[str, ...], tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    runs = [
        record(value, 1.0 + seed, arm="augmented", seed=seed, axis=axis)
        for value in values
        for seed in (0, 1)
    ]
    (sweep,) = gather_sweeps([*runs, record(values[0], 0.5, axis=axis)], {"toy": "eV^2"})
    figure = draw_sweep(sweep, title="fraction of something")
    loss, share, explained = figure.axes[:3]
    assert loss.get_ylabel() == "test loss [eV^2]"
    assert {axes.get_xlabel() for axes in (loss, share, explained)} == {"fraction of something"}
    assert {axes.get_xlabel() for axes in figure.axes[3:]} == {"budget spent [s]"}
    assert {text.get_text() for text in loss.get_legend().get_texts()} == {
        "augmented",
        "equivariant",
    }
    drawn = next(line for line in loss.lines if len(line.get_xdata()) == len(values))
    assert list(drawn.get_ydata()) == pytest.approx([math.sqrt(2)] * len(values))
    assert all(
        len([line for line in axes.lines if len(line.get_xdata())]) == len(values) + 1
        for axes in figure.axes[3:]
    )
    assert save_figure(figure, tmp_path / "sweep.svg").stat().st_size > 0


def test_what_cannot_be_drawn_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    require_drawable(tmp_path / "sweep.png")
    for path in (tmp_path / "sweep.docx", tmp_path / "nowhere" / "sweep.png", tmp_path / "sweep"):
        with pytest.raises(UsageError, match="cannot draw"):
            require_drawable(path)


def test_curves_survive_json() -> None:
    (sweep,) = gather_sweeps([record("1", 1.0)])
    plain = msgspec.json.decode(msgspec.json.encode(sweep))
    assert plain["points"][0]["final"]["total"]["value"] == pytest.approx(1.0)

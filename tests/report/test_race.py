"""The race: a row for each arm of a task, what averaging over rotations would make of it, and what
is on the Pareto front; alike in every format, in a figure and on the page."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from factories import make_run
from hypothesis import given
from hypothesis import strategies as st

import equivbench as eb
from equivbench.cli.main import main
from equivbench.gap.intervals import over_seeds
from equivbench.records.schema import RunRecord
from equivbench.records.store import write_record
from equivbench.report.board import rank_runs
from equivbench.report.publication import publish
from equivbench.report.race import (
    Race,
    RaceRow,
    pareto_front,
    race_table,
    race_tables,
    races_of,
)
from equivbench.report.race_figure import front_steps
from equivbench.report.render import row_texts

STEPS = [10, 30, 100, 300, 1000]
PLAIN = {"name": "plain-net", "symmetry": "none", "symmetry_verified": None}
REASONS = {
    "flops_per_sample": "not counted",
    "energy_joules": "the device reports no energy",
    "model.symmetry_verified": "no symmetry is declared",
}
TUNED = {"tuned_at": "60s", "tuning_log_sha256": "a" * 64}
SPREAD = (1.0, 1.1, 0.9)
"""Of the losses, by seed."""


def runs(arm: str, loss: float, seeds: int = 3, **overrides: Any) -> list[RunRecord]:
    """Seeds of an arm that end at about ``loss``."""
    return [
        make_run(
            arm,
            lambda step, k=k: loss * k * (step / STEPS[-1]) ** -0.5,  # type: ignore[misc]
            STEPS,
            tau=0.1,
            seed=seed,
            **overrides,
        )
        for seed, k in enumerate(SPREAD[:seeds])
    ]


def plain(arm: str, loss: float, share: float = 0.2, **overrides: Any) -> list[RunRecord]:
    """Runs of a network that declares no symmetry."""
    model = {**PLAIN, **overrides.pop("model", {})}
    return runs(arm, loss, share=share, model=model, reasons=REASONS, **overrides)


def field_of_arms() -> list[RunRecord]:
    return [
        *runs("equivariant", 0.2, share=1e-9, inference={"samples_per_second": 900.0}),
        *plain("augmented", 0.4, recipe=TUNED),
        *plain("frames", 0.3, model={"wrapper": "frames"}, inference=slow(240.0), share=1e-9),
        *plain("augmented", 0.25, pair="other", inference=slow(100.0)),
    ]


def slow(rate: float) -> dict[str, Any]:
    return {"samples_per_second": rate, "twirl": {"2": rate / 2, "4": rate / 4}}


def race_of(records: list[RunRecord], fewest: int = 3) -> Race:
    (race,) = races_of(rank_runs(records), records, {"toy": "eV"}, fewest=fewest)
    return race


def row_of(race: Race, arm: str, averaged_over: int | None = None, pair: str = "pair") -> RaceRow:
    (found,) = (
        each
        for each in race.rows
        if (each.row.pair, each.row.arm, each.averaged_over) == (pair, arm, averaged_over)
    )
    return found


def test_each_arm_of_each_pair_has_a_row_the_lowest_loss_first() -> None:
    race = race_of(field_of_arms())
    own = [(each.row.pair, each.row.arm) for each in race.rows if each.averaged_over is None]
    assert own == [
        ("pair", "equivariant"),
        ("other", "augmented"),
        ("pair", "frames"),
        ("pair", "augmented"),
    ]
    losses = [each.loss.value or 0.0 for each in race.rows]
    assert losses == sorted(losses)


def test_the_loss_is_that_of_the_finals_with_its_interval_over_seeds() -> None:
    row = row_of(race_of(field_of_arms()), "augmented")
    assert row.loss == over_seeds([0.4 * k for k in SPREAD], geometric=True)
    assert row.loss.low is not None
    assert row.share.value == pytest.approx(0.2)
    assert (row.training, row.inference) == (320.0, 1000.0)
    assert (row.tuned_at, row_of(race_of(field_of_arms()), "equivariant").tuned_at) == ("60s", None)


@given(share=st.floats(0.01, 0.9), loss=st.floats(1e-6, 1e3))
def test_averages_over_n_have_the_twirled_loss_and_an_nth_of_the_rest(
    share: float, loss: float
) -> None:
    race = race_of([*runs("equivariant", 1.0), *plain("augmented", loss, share)], fewest=2)
    for n, rate in ((2, 500.0), (4, 250.0), (8, 125.0)):
        row = row_of(race, "augmented", n)
        left = 1 - share + share / n
        mean = (SPREAD[0] * SPREAD[1] * SPREAD[2]) ** (1 / 3)
        # A few roundings of logarithms of order one.
        assert row.loss.value == pytest.approx(loss * left * mean, rel=1e-9)
        assert row.share.value == pytest.approx(share / n / left, rel=1e-9)
        assert row.inference == rate
        assert row.training == row_of(race, "augmented").training


def test_only_plain_networks_without_a_wrapper_are_averaged() -> None:
    race = race_of(field_of_arms())
    averaged = {(each.row.pair, each.row.arm, each.averaged_over) for each in race.rows}
    assert {each for each in averaged if each[2] is not None} == {
        *(("pair", "augmented", n) for n in (2, 4, 8)),
        *(("other", "augmented", n) for n in (2, 4)),
    }


def test_an_arm_that_timed_no_averages_has_none() -> None:
    rates: dict[str, Any] = {"samples_per_second": None, "twirl": {}}
    race = race_of([*runs("equivariant", 1.0), *plain("augmented", 2.0, inference=rates)], 2)
    assert [each.averaged_over for each in race.rows] == [None, None]
    assert row_of(race, "augmented").inference is None
    assert not row_of(race, "augmented").on_front


def test_no_time_counts_of_a_run_that_did_not_have_its_machine() -> None:
    records = [*runs("equivariant", 0.2), *plain("augmented", 0.4)]
    busy = records[-1]
    assert busy.machine_share is not None
    busy.machine_share.cpu_share = 0.05
    busy.inference.samples_per_second, busy.inference.twirl["4"] = 1.0, 1.0
    busy.throughput.samples_per_second = 1.0
    row, fourth = (row_of(race_of(records, 2), "augmented", n) for n in (None, 4))
    assert (row.training, row.inference, fourth.inference) == (320.0, 1000.0, 250.0)
    assert row.loss == over_seeds([0.4 * k for k in SPREAD], geometric=True)
    for record in records[-3:]:
        record.machine_share = busy.machine_share
    row = row_of(race_of(records, 2), "augmented")
    assert (row.training, row.inference, row.on_front) == (None, None, False)


def test_an_arm_is_held_against_the_augmented_one_of_its_own_pair() -> None:
    race = race_of(field_of_arms())
    frames = row_of(race, "frames")
    assert frames.over_augmented.value == pytest.approx(0.3 / 0.4)
    assert frames.verdict.startswith("ahead, p ")
    equivariant = row_of(race, "equivariant")
    assert (equivariant.over_augmented.value, equivariant.verdict) == (pytest.approx(0.5), "")
    # Neither an augmented arm nor an average of one, nor an arm of a pair without one.
    for row in race.rows:
        if row.row.arm == "augmented":
            assert (row.over_augmented.value, row.verdict) == (None, "")
    headings = [column.title for column in race_table(race).shown().columns]
    assert "over augmented" in headings
    apart = [*plain("augmented", 0.4), *runs("a", 0.1, pair="b"), *runs("c", 0.1, pair="d")]
    assert {row.verdict for row in race_of(apart).rows} == {""}
    shown = race_table(race_of(apart)).shown().columns
    assert "over_augmented" not in [column.name for column in shown]


def test_an_arm_is_held_against_the_augmented_runs_that_it_took_turns_with() -> None:
    """Seeds that the contestants were run on before, and more of them, change nothing."""
    before = [
        *runs("equivariant", 0.2, contest="a" * 12),
        *plain("augmented", 0.5, contest="a" * 12),
    ]
    later: dict[str, Any] = {"contest": "b" * 12, "created": "2026-01-02T04:04:05Z"}
    turns = [
        *plain("augmented", 0.4, seeds=3, run_id="again", **later),
        *plain("frames", 0.3, model={"wrapper": "frames"}, **later),
    ]
    frames = row_of(race_of([*before, *turns]), "frames")
    assert frames.over_augmented.value == pytest.approx(0.3 / 0.4)
    assert frames.verdict.startswith("ahead, p ")
    fewer = row_of(race_of([*before, *turns[:2], *turns[3:5]]), "frames")
    assert fewer.verdict == "2 seeds; a verdict takes 3"
    alone = row_of(race_of([*before, *turns[3:]]), "frames")
    assert alone.verdict == "the arms of seeds 0, 1, 2 did not take turns in one contest"


def test_settings_are_apart_and_sweeps_race_with_nobody() -> None:
    records = field_of_arms()
    elsewhere = [
        record
        for arm in ("equivariant", "augmented", "third")
        for record in runs(arm, 0.5, environment={"machine_key": "toy-gpu"})
    ]
    swept = [
        record
        for arm in ("equivariant", "augmented", "third")
        for record in runs(arm, 0.6, variant={"sweep": "data", "value": "0.5"})
    ]
    records += [*elsewhere, *swept]
    races = races_of(rank_runs(records), records, {})
    assert sorted(race.setting.machine_key for race in races) == ["toy-cpu-2t", "toy-gpu"]
    assert {race.setting.variant for race in races} == {""}


def test_two_arms_are_a_pair_and_no_race_unless_asked_for() -> None:
    records = [*runs("equivariant", 0.2), *plain("augmented", 0.4)]
    assert races_of(rank_runs(records), records, {}) == []
    assert len(race_of(records, fewest=2).rows) == 2 + 3


def test_of_an_arm_the_largest_campaign_races_and_another_day_is_said() -> None:
    later = {"git": {"tree": "2" * 40, "commit": "3" * 40}, "created": "2026-02-01T00:00:00Z"}
    once = plain("augmented", 0.1, seeds=1, run_id="again", recipe=TUNED, **later)
    assert row_of(race_of([*field_of_arms(), *once]), "augmented").loss.value == pytest.approx(
        0.4 * 0.99 ** (1 / 3)
    )
    records = [*field_of_arms(), *plain("canonical", 0.1, model={"wrapper": "canonical"}, **later)]
    table = race_table(race_of(records))
    assert any("did not take turns" in note for note in table.notes)
    assert "day" in [column.name for column in table.shown().columns]
    alike = race_table(race_of(field_of_arms()))
    assert not any("did not take turns" in note for note in alike.notes)
    assert "day" not in [column.name for column in alike.shown().columns]


def test_the_legend_of_several_tables_is_below_the_last_and_each_names_its_data() -> None:
    elsewhere = [
        record
        for arm in ("equivariant", "augmented", "third")
        for record in runs(arm, 0.5, dataset={"name": "larger-set"})
    ]
    records = [*field_of_arms(), *elsewhere]
    races = races_of(rank_runs(records), records, {"toy": "eV"})
    first, last = race_tables(races)
    assert (first.notes, len(last.notes)) == ([], 4)
    assert [table.caption[:15] for table in (first, last)] == ["Data larger-set", "Data toy-set 1 "]
    assert last.caption.endswith("; loss in eV.")


def test_an_arm_with_a_diverged_seed_comes_last_and_is_on_no_front() -> None:
    lost = plain("frail", 0.01)
    lost[0].status, lost[0].final, lost[0].reason = "diverged", None, "NaN"
    race = race_of([*field_of_arms(), *lost])
    assert [each.row.arm for each in race.rows[-4:]] == ["frail"] * 4
    assert not any(each.on_front for each in race.rows if each.row.arm == "frail")
    rows = row_texts(race_table(race))
    assert rows[-1]["seeds"] == "2 of 3"


points = st.lists(
    st.tuples(st.none() | st.integers(1, 5).map(float), st.none() | st.integers(1, 5).map(float)),
    max_size=8,
)


@given(points=points)
def test_nothing_beats_what_is_on_the_front_and_something_on_it_beats_all_else(
    points: list[tuple[float | None, float | None]],
) -> None:
    def beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
        return one != other and one[0] <= other[0] and one[1] >= other[1]

    known = {k: (x, y) for k, (x, y) in enumerate(points) if x is not None and y is not None}
    front = pareto_front(points)
    assert front <= known.keys()
    for place, point in known.items():
        beaten = [each for each in front if beats(known[each], point)]
        assert bool(beaten) == (place not in front)


@given(points=st.lists(st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)), min_size=1, max_size=10))
def test_the_staircase_is_the_lowest_loss_at_no_more_than_a_cost(
    points: list[tuple[float, float]],
) -> None:
    steps = front_steps(points)
    assert steps == sorted(steps, key=lambda each: (each[0], -each[1]))
    assert (steps[0][0], steps[-1][0]) == (min(points)[0], max(points)[0])
    for cost, _ in points:
        # The last corner at a cost is the lower end of a step.
        reached = [loss for at, loss in steps if at <= cost][-1]
        assert reached == min(loss for at, loss in points if at <= cost)


def test_the_front_is_named_in_the_table() -> None:
    race = race_of(field_of_arms())
    front = {(each.row.arm, each.averaged_over) for each in race.rows if each.on_front}
    # The equivariant arm has the lowest loss at 900 samples/s; the augmented one has 1000.
    assert front == {("equivariant", None), ("augmented", None)}
    rows = row_texts(race_table(race))
    assert [row["front"] for row in rows].count("yes") == 2
    tuned = {(row["pair"], row["arm"]): row["tuned"] for row in rows}
    assert tuned["pair", "augmented"] == "at 60s"
    assert tuned["pair", "frames"] == "not tuned"


# --- commands


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for record in field_of_arms():
        write_record(record, tmp_path / "results")
    return tmp_path / "results"


def export(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[Any, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(["leaderboard", "export", *arguments])
    captured = capsys.readouterr()
    return stop.value.code, captured.out, captured.err


def test_the_race_is_alike_in_every_format(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = {}
    for name in ("md", "csv", "json", "latex"):
        code, texts[name], err = export(
            capsys, "--race", "--format", name, "--results", str(results)
        )
        assert (code, err) == (0, "")
    rows = list(csv.DictReader(io.StringIO(texts["csv"])))
    values = json.loads(texts["json"])
    assert len(rows) == len(values) == 9
    assert [row["arm"] for row in rows] == [row["arm"] for row in values]
    assert [float(row["loss"]) for row in rows] == [row["loss"]["value"] for row in values]
    assert {row["task"] for row in rows} == {"toy"}
    lines = [line for line in texts["md"].splitlines() if line.startswith("| ")]
    assert len(lines) == 2 + 9
    assert texts["md"].startswith("### The race: toy, small")
    assert texts["latex"].count(r"\end{tabular}") >= 1


def test_the_boards_have_the_races_of_three_arms_and_more(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(publish(results).races) == 1
    _, page, _ = export(capsys, "--format", "html", "--results", str(results))
    assert 'id="race"' in page
    assert 'data-task="toy"' in page[page.index('id="race"') :]
    _, text, _ = export(capsys, "--results", str(results))
    assert text.count("### The race: ") == 1
    # Formats of rows of one kind have the board alone.
    _, sheet, _ = export(capsys, "--format", "csv", "--results", str(results))
    assert "averaged" not in sheet


def test_a_pair_alone_has_a_race_only_where_it_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for record in [*runs("equivariant", 0.2), *plain("augmented", 0.4)]:
        write_record(record, tmp_path)
    assert "The race" not in export(capsys, "--results", str(tmp_path))[1]
    assert "The race" in export(capsys, "--race", "--results", str(tmp_path))[1]
    _, page, _ = export(capsys, "--format", "html", "--results", str(tmp_path))
    assert 'id="race"' not in page


def test_what_cannot_be_shown_says_why(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = export(capsys, "--race", "--ladder", "--results", str(results))
    assert (code, "two kinds" in err) == (2, True)
    code, _, err = export(capsys, "--race", "--format", "html", "--results", str(results))
    assert (code, "--race is in md, csv, json, latex" in err) == (2, True)
    for record in runs("equivariant", 0.2):
        write_record(record, tmp_path / "alone")
    code, _, err = export(capsys, "--race", "--results", str(tmp_path / "alone"))
    assert (code, "no setting in which two arms raced" in err) == (3, True)


# --- the figure


def test_the_figure_has_a_line_an_arm_and_the_costs_of_averages() -> None:
    pytest.importorskip("matplotlib")
    figure = eb.plot.race(field_of_arms(), task="toy")
    training, inference = figure.axes
    assert (training.get_xscale(), training.get_yscale()) == ("log", "log")
    labels = [line.get_label() for line in training.get_lines()]
    assert labels[:4] == ["pair equivariant", "other augmented", "pair frames", "pair augmented"]
    assert {text.get_text() for text in inference.texts} == {"2", "4", "8"}
    assert training.get_title() == "by budget, on a part of the test set"
    assert inference.get_title() == "at the end, on the whole test set"
    augmented = next(line for line in inference.get_lines() if len(line.get_xdata()) == 4)
    assert list(augmented.get_xdata()) == pytest.approx([1.0, 2.0, 4.0, 8.0])


def test_the_figure_says_where_rungs_are_read_on_the_whole_test_set() -> None:
    pytest.importorskip("matplotlib")
    records = field_of_arms()
    for record in records:
        assert record.final is not None
        for rung in record.rungs:
            rung.test.samples = record.final.samples
            rung.test.rotations = record.final.rotations
    training, _ = eb.plot.race(records).axes
    assert training.get_title() == "by budget, on the whole test set"


def test_a_figure_of_several_races_needs_a_choice(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    records = field_of_arms()
    others = [
        record for arm in ("equivariant", "augmented") for record in runs(arm, 0.3, task="board")
    ]
    with pytest.raises(eb.UsageError, match=r"shows one race; .*board, small.*; toy, small"):
        eb.plot.race([*records, *others])
    assert eb.plot.race([*records, *others], task="toy", out=tmp_path / "race.svg").axes
    assert "<svg" in (tmp_path / "race.svg").read_text(encoding="utf-8")
    with pytest.raises(eb.FailedError, match="no race to draw"):
        eb.plot.race(runs("equivariant", 0.3))

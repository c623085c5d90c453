"""What is shown while arms train: the words and the numbers of the tables."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from equivbench.cli.progress import Bars, Lines
from equivbench.report.arms import SUMMARY_COLUMNS
from equivbench.report.words import MEANINGS, OBJECTIVE
from equivbench.training.job import Progress

PROGRESS = Progress(
    step=10,
    spent=5.0,
    limit=10.0,
    finished=False,
    loss=4.1234,
    total=0.31,
    share=0.0112,
    explained=0.62,
    samples_per_second=930.4,
    seconds_left=12.0,
)
JOB: Any = SimpleNamespace(
    arm="augmented", labels={}, budget="60s", title="toy/pair augmented seed 0"
)
CONTEST: Any = SimpleNamespace(pair="toy/pair", seed=0)


def test_a_line_has_the_words_and_numbers_of_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    Lines().trained(JOB, PROGRESS)
    said = capsys.readouterr().err
    figures = "objective 4.12  loss 0.310  explained 62.0%  share 0.011  930 samples/s  0:12 left"
    assert said == f"{JOB.title}: 10 steps, {figures}\n".replace("  ", " ")
    headings = {column.heading or column.name for column in SUMMARY_COLUMNS}
    assert {"loss", "explained", "share", "samples/s"} <= headings
    assert OBJECTIVE not in headings


def test_bars_say_once_what_the_words_mean() -> None:
    page = io.StringIO()
    bars = Bars(Console(file=page, width=400))
    for _ in range(2):
        bars.begin(CONTEST, [JOB])
        bars.show(JOB, PROGRESS)
        bars.end()
    shown = page.getvalue()
    assert shown.count(MEANINGS["explained"]) == 1
    assert "loss 0.310  explained 62.0%" in shown
    assert shown.count("toy/pair seed 0, 60s an arm") == 2


@given(width=st.integers(60, 200))
def test_a_bar_fits_its_terminal_and_the_loss_is_always_there(width: int) -> None:
    page = io.StringIO()
    bars = Bars(Console(file=page, width=width, force_terminal=False))
    bars.begin(CONTEST, [JOB])
    bars.show(JOB, PROGRESS)
    bars.end()
    *_, line = page.getvalue().splitlines()
    assert len(line.rstrip()) <= width
    assert "loss 0.310" in line
    assert "0:12 left" in line
    assert "objective" in line or width < 130


def test_contests_side_by_side_have_their_bars_in_one_view() -> None:
    page = io.StringIO()
    bars = Bars(Console(file=page, width=400))
    lanes = [bars.beside() for _ in range(2)]
    for number, lane in enumerate(lanes):
        lane.begin(SimpleNamespace(pair="toy/pair", seed=number), [JOB])
    for lane in lanes:
        lane.show(JOB, PROGRESS)
        lane.phase("timing")
    assert len(bars._bars.tasks) == 2
    lanes[0].end()
    (left,) = bars._bars.tasks
    assert left.description == "toy/pair seed 1 augmented"
    assert left.fields["phase"] == "[timing]"
    # One that is over leaves its line, and its place can take another contest.
    assert "toy/pair seed 0 augmented objective 4.12  loss 0.310" in page.getvalue()
    lanes[0].begin(SimpleNamespace(pair="toy/pair", seed=2), [JOB])
    assert len(bars._bars.tasks) == 2
    for lane in lanes:
        lane.note("compiled eagerly")
        lane.end()
    assert bars._bars is None
    shown = page.getvalue()
    assert shown.count("compiled eagerly") == 1
    assert shown.count(MEANINGS["explained"]) == 1


def test_whoever_shows_nothing_of_contests_is_told_of_all() -> None:
    lines = Lines()
    assert lines.beside() is lines

"""Lines of ``pretrained.jsonl``: what makes one right, which of several counts, and a folder of
them validated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pretrained_lines import measurement, on_a_grid

from equivbench.records.files import write_lines
from equivbench.records.line_files import PRETRAINED_FILE, line_files
from equivbench.records.pretrained import AveragedCost, GridErrors, newest
from equivbench.records.schema import Git
from equivbench.records.submission import review


def test_honest_lines_break_no_rule() -> None:
    assert PRETRAINED_FILE.problems_of(measurement()) == []
    assert PRETRAINED_FILE.problems_of(on_a_grid()) == []
    assert line_files()["pretrained.jsonl"] is PRETRAINED_FILE


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"schema_version": 2}, "schema version 2"),
        ({"created": "2999-01-01T00:00:00+00:00"}, "2999"),
        ({"samples": 0}, "samples is 0, below 1"),
        ({"rotations": 1}, "rotations is 1, below 2"),
        ({"calls": 0}, "calls is 0, below 1"),
        ({"call_seconds": 0.0}, "call_seconds is 0"),
        ({"total": 0.6}, "twirled and equivariance make 0.5"),
        ({"total": 0.0}, "total is 0"),
        ({"equivariance": -0.1}, "equivariance -0.1"),
        ({"share": 0.02}, "its parts make it 0.2"),
        ({"share_low": 0.25}, "does not lie in its interval, 0.25 to 0.3"),
        ({"share_high": 1.5}, "does not lie in its interval, 0.1 to 1.5"),
        ({"floor": -1.0}, "floor is -1"),
        ({"explained": 1.5}, "explained is 1.5, above 1"),
        ({"floor": None}, "floor is null and reasons has no entry for it"),
        ({"reference": None}, "reference is null and reasons has no entry for it"),
        ({"averaged": {}}, "averaged is of nothing, not of 2, 4 and 8"),
        ({"symmetry_verified": True}, "symmetry_verified is said of a network that declares none"),
        ({"verdict": ""}, "verdict is empty"),
    ],
)
def test_each_rule_finds_what_breaks_it(changed: dict[str, Any], says: str) -> None:
    problems = PRETRAINED_FILE.problems_of(measurement(**changed))
    assert any(says in each for each in problems), problems


def test_what_averaging_buys_and_costs_follows_from_the_parts() -> None:
    line = measurement()
    line.averaged["4"] = AveragedCost(error=0.4, seconds=0.5)
    assert PRETRAINED_FILE.problems_of(line) == [
        "averaged.4.error is 0.4, the parts make it 0.425",
        "averaged.4.seconds is 0.5, 4 calls take 1",
    ]


def test_the_grids_part_follows_from_the_parts() -> None:
    grid = GridErrors(poses=4, learning=0.1, grid=0.03, translation=-0.01)
    assert PRETRAINED_FILE.problems_of(on_a_grid(grid=grid)) == [
        "grid.translation is -0.01",
        "grid.learning and grid.grid make 0.13, equivariance is 0.1",
    ]


def test_a_repetition_replaces_nothing_and_newer_packages_do() -> None:
    first = measurement(created="2026-01-01T00:00:00+00:00")
    again = measurement(created="2026-01-02T00:00:00+00:00", twirled=0.41)
    newer = measurement(created="2026-01-03T00:00:00+00:00", packages={"toy-networks": "2.0"})
    assert newest([again, first]) == [first]
    assert newest([again, newer, first]) == [newer]
    assert newest([first, on_a_grid()]) == [first, on_a_grid()]
    other_code = measurement(created="2026-01-02T00:00:00+00:00", git=Git(commit="b", dirty=False))
    assert newest([first, other_code]) == [other_code]
    other_data = measurement(created="2026-01-02T00:00:00+00:00", data_sha256="1" * 64)
    assert newest([first, other_data]) == [other_data]


def test_a_quick_look_never_stands_before_a_whole_measurement() -> None:
    quick = measurement(created="2026-01-01T00:00:00+00:00", samples=2)
    whole = measurement(created="2026-01-02T00:00:00+00:00")
    again = measurement(created="2026-01-03T00:00:00+00:00", samples=2, rotations=8)
    assert newest([quick, whole, again]) == [whole]


def test_a_folder_is_validated(tmp_path: Path) -> None:
    (file,) = PRETRAINED_FILE.keep([measurement(), on_a_grid()], tmp_path)
    assert file == tmp_path / "toy-cpu-2t" / "pretrained.jsonl"
    (report,) = review([tmp_path])
    assert report.problems == []
    PRETRAINED_FILE.keep([measurement(created="2026-01-03T00:00:00+00:00")], tmp_path)
    (report,) = review([tmp_path])
    assert report.problems == ["line 3: it is a copy of line 1"]


def test_what_is_wrong_with_many_lines_is_said_once_in_their_order(tmp_path: Path) -> None:
    file = write_lines(
        [measurement(f"net {number}") for number in range(24)],
        tmp_path / "elsewhere" / "pretrained.jsonl",
    )
    misplaced = "it belongs into the folder 'toy-cpu-2t' of its machine"
    (report,) = review([tmp_path])
    assert report.problems == [f"lines 1 to 24: {misplaced}"]

    def with_samples(*counts: int) -> list[str]:
        lines = [measurement(f"net {number}", samples=count) for number, count in enumerate(counts)]
        write_lines(lines, tmp_path / "toy-cpu-2t" / file.name)
        return review([tmp_path / "toy-cpu-2t"])[0].problems

    assert with_samples(1, 0, 0, 1) == ["lines 2 and 3: samples is 0, below 1"]
    assert with_samples(0, 1, 0, -1) == [
        "lines 1 and 3: samples is 0, below 1",
        "line 4: samples is -1, below 1",
    ]
    assert with_samples(*[0, 1] * 6) == ["6 lines, the first 1: samples is 0, below 1"]

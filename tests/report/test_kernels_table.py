"""The table of kernel times: order, ratios over alternated rounds, nothing that is not a number."""

from __future__ import annotations

from typing import Any

import pytest
from factories import make_record
from toy_roofline import toy_roofline

from equivbench.records.line_files import KernelSamples
from equivbench.report.kernels import COLUMNS, heading, kernel_table, speed_up
from equivbench.report.render import cell_text, to_plain
from equivbench.report.terminal import fitted


def sample(backend: str, rounds: list[float], **changes: object) -> KernelSamples:
    record = make_record()
    settings: dict[str, Any] = {
        "created": "2026-01-02T03:04:05+00:00",
        "command": "equivbench kernels",
        "case": "toy",
        "mode": "forward",
        "backend": backend,
        "method": "by hand",
        "dtype": "float32",
        "rounds": rounds,
        "compile_seconds": 0.0,
        "errors": {"output": 3e-7},
        "bytes_fused": 1e6,
        "bytes_unfused": 4e6,
        "operations": 1e6,
        "bandwidth": 1e9,
        "allocator": {},
        "environment": record.environment,
        "git": record.git,
        **changes,
    }
    return KernelSamples(**{"roofline": toy_roofline(settings), **settings})


def test_rows_go_by_mode_and_then_from_fast_to_slow():
    samples = [
        sample("e3nn", [4.0]),
        sample("slow", [8.0]),
        sample("fast", [2.0]),
        sample("fast", [9.0], mode="backward"),
    ]
    rows = [
        {column.name: cell_text(cell, column) for column, cell in zip(COLUMNS, row, strict=True)}
        for row in kernel_table(samples).rows
    ]
    order = [("forward", "fast"), ("forward", "e3nn"), ("forward", "slow"), ("backward", "fast")]
    assert [(row["mode"], row["backend"]) for row in rows] == order
    assert [row["x e3nn"] for row in rows] == ["2.00", "1.00", "0.500", "-"]
    assert rows[0]["ms"] == "2000"
    assert rows[0]["of roof"] == "0.050%"
    assert rows[0]["bound by"] == "memory bandwidth"
    assert rows[0]["error"] == "3e-07"


def test_a_sample_of_before_has_no_fraction_of_the_roof():
    of_before = {"roofline": None, "allocator": None, "fraction_of_floor": 1.3}
    (row,) = kernel_table([sample("mine", [1.0], schema_version=1, **of_before)]).rows
    texts = {
        column.name: cell_text(cell, column) for column, cell in zip(COLUMNS, row, strict=True)
    }
    assert (texts["of roof"], texts["bound by"]) == ("old roofline", "-")
    assert "130%" not in texts.values()


def test_the_ratio_is_of_rounds_side_by_side():
    drifting = [1.0, 2.0, 4.0, 8.0]
    # Both sides drift alike; their least rounds agree with the ratio of each round.
    assert speed_up(
        sample("mine", drifting), sample("e3nn", [3 * value for value in drifting])
    ) == pytest.approx(3.0)
    # One lucky round, on one side, does not make the ratio.
    assert speed_up(
        sample("mine", [0.1, 1.0, 1.0]), sample("e3nn", [2.0, 2.0, 2.0])
    ) == pytest.approx(2.0)


def test_throttled_rounds_are_told():
    state = {"throttled_rounds": 2.0, "throttled_by": "SwPowerCap"}
    (row,) = kernel_table([sample("mine", [1.0, 1.0, 1.0], device_state=state)]).rows
    assert "throttled in 2 of 3 rounds: SwPowerCap" in str(row[-1])


def test_the_heading_says_what_and_where():
    text = heading("a paper", {"nodes": 5, "edges": 7}, sample("mine", [1.0]))
    assert text.startswith("toy: 5 nodes, 7 edges, float32; ")
    assert "a copy runs at 1.00 GB/s" in text
    assert text.endswith("a paper")


def test_a_later_sample_of_the_same_is_shown_and_replaces_nothing():
    first = sample("mine", [1.0, 1.1])
    again = sample("mine", [0.5, 0.6], created="2026-01-03T03:04:05+00:00")
    (row,) = kernel_table([again, first]).rows
    cells = dict(zip([column.name for column in COLUMNS], row, strict=True))
    assert cells["ms"] == 1000.0
    assert cells["method"] == "by hand (timed again: 500 ms; the first counts)"


def test_the_table_fits_a_terminal_of_80_columns() -> None:
    samples = [
        sample(
            backend,
            [0.12345],
            mode="double_backward",
            method="cuequivariance 0.13.0 naive",
            compile_seconds=12.3,
        )
        for backend in ("cuequivariance", "e3nn-compiled")
    ]
    table = kernel_table(samples)
    assert max(map(len, to_plain(table).splitlines())) > 80
    narrow = fitted(table, 80)
    assert max(map(len, to_plain(narrow).splitlines())) <= 80
    assert {"ms", "x e3nn", "of roof", "error"} <= {each.name for each in narrow.columns}

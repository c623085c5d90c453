"""The headline: what it puts side by side and keeps apart, its words, its figure, and that it asks
for no torch."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import numpy as np
import pytest
from power_laws import BUDGETS, CROSSING, LIMIT, T_STAR, law, runs

from equivbench.gap.campaigns import LEAD_SEEDS
from equivbench.gap.efficiency import efficiency_gap
from equivbench.records.schema import RunRecord
from equivbench.report.gaps import gap_lines
from equivbench.report.render import cell_text
from equivbench.report.table import Table
from equivbench.report.text import seconds_text
from equivbench.studies.claims.headline import (
    Headline,
    budget_table,
    headline_table,
    make_headline,
    scaling_table,
)

GPU = {"environment": {"device": "NVIDIA H100", "machine_key": "epyc-2t-h100"}}


def one(records: list[RunRecord]) -> Headline:
    (headline,) = make_headline(records)
    return headline


def shown(table: Table) -> list[dict[str, str]]:
    """The rows as a reader sees them, by column."""
    return [
        {
            column.name: cell_text(cell, column)
            for cell, column in zip(row, table.columns, strict=True)
        }
        for row in table.rows
    ]


def cell(headline: Headline, column: str) -> str:
    (row,) = shown(headline_table([headline]))
    return row[column]


def at_fraction(value: str, **more: object) -> list[RunRecord]:
    return runs(CROSSING, variant={"sweep": "data", "value": value}, **more)


def test_hours_are_of_the_device_that_was_measured() -> None:
    cpu, gpu = one(runs(CROSSING)), one(runs(CROSSING, **GPU))
    assert (cpu.hardware, cpu.unit) == ("CPU", "CPU-hours")
    assert (gpu.hardware, gpu.unit) == ("GPU", "GPU-hours")
    assert cell(cpu, "device-hours").endswith("CPU-h")
    assert cell(gpu, "device-hours").endswith("GPU-h")
    assert cpu.seconds == pytest.approx(LIMIT)
    assert "GPU" not in " ".join(shown(headline_table([cpu]))[0].values())
    assert len(make_headline(runs(CROSSING) + runs(CROSSING, **GPU))) == 2


def test_the_data_fraction_is_an_axis_and_nothing_is_mixed() -> None:
    faster = {"equivariant": law(2.0, 0.7), "augmented": law(5.0, 0.3)}
    records = (
        runs(CROSSING)
        + at_fraction("0.25")
        + runs(faster, variant={"sweep": "data", "value": "0.5"})
    )
    found = make_headline(records)
    assert [each.fraction for each in found] == [1.0, 0.5, 0.25]
    alone = make_headline(runs(CROSSING))[0]
    assert found[0] == alone
    assert found[1].gap.loss_ratio.value < found[0].gap.loss_ratio.value
    # The order of the records is of no matter.
    assert make_headline(list(reversed(records))) == found


def test_other_sweeps_take_no_part_and_a_value_that_is_no_number_has_no_fraction() -> None:
    assert make_headline(runs(CROSSING, variant={"sweep": "size", "value": "0.5"})) == []
    for value in ("much", "nan", "-1", "inf"):
        odd = one(at_fraction(value))
        assert odd.fraction is None
        assert cell(odd, "part") == "-"


def test_the_gaps_are_those_of_the_gap_command() -> None:
    generator = np.random.default_rng(0)
    records = runs(CROSSING, seeds=6, noise=0.05, generator=generator) + at_fraction(
        "0.25", seeds=2
    )
    assert sorted(map(repr, efficiency_gap(records))) == sorted(
        repr(each.gap) for each in make_headline(records)
    )


def test_who_is_ahead_is_bracketed_until_the_rules_let_it_be_claimed() -> None:
    apart = {"equivariant": law(2.0, 0.5), "augmented": law(4.0, 0.5)}
    generator = np.random.default_rng(1)
    claimed = one(runs(apart, seeds=LEAD_SEEDS, noise=0.01, generator=generator))
    guessed = one(runs(apart, seeds=LEAD_SEEDS - 1, noise=0.01, generator=generator))
    assert [cell(each, "ahead") for each in (claimed, guessed)] == [
        "equivariant",
        "(equivariant?)",
    ]


def test_the_table_says_at_which_budget_the_lead_changes_hands() -> None:
    generator = np.random.default_rng(2)
    decided = one(runs(CROSSING, seeds=5, noise=0.01, generator=generator))
    text = cell(decided, "lead changes at")
    assert text.startswith(f"{seconds_text(decided.steady.changes[0].seconds.value, 2)} (")
    assert "to equivariant" in text
    # 5 * 32^-.3 = 1.77 of a baseline of 10.
    assert text.endswith("82% explained")
    assert decided.steady.changes[0].seconds.value == pytest.approx(T_STAR, rel=0.1)
    assert any(
        "lead changes hands to the equivariant arm" in line for line in gap_lines(decided.gap)
    )
    noisy = {"noise": 0.15, "generator": np.random.default_rng(3)}
    unsure = one(runs(CROSSING, seeds=LEAD_SEEDS, **noisy))
    assert "? to equivariant" in cell(unsure, "lead changes at")
    assert any("may change hands" in line for line in gap_lines(unsure.gap))
    never = one(runs({"equivariant": law(4.0, 0.5), "augmented": law(5.0, 0.5)}))
    assert cell(never, "lead changes at") == "never from 3.2 s to 100 s"


def test_the_ratio_is_given_by_budget_too() -> None:
    found = one(runs(CROSSING, seeds=5, noise=0.01, generator=np.random.default_rng(2)))
    rows = shown(budget_table([found]))
    assert [row["budget"] for row in rows] == [seconds_text(each, 2) for each in BUDGETS]
    # The lead changes hands at 32 s; at 25 s the ratio is 32^.4 / 25^.4 = 1.1, seen by seeds .01
    # apart.
    assert [row["ahead"] for row in rows] == [
        "(augmented)" if seconds < T_STAR else "(equivariant)" for seconds in BUDGETS
    ]
    assert rows[-1]["loss ratio"] == cell(found, "loss ratio")
    assert all(row["device-hours"].endswith("CPU-h") for row in rows)


def test_the_exponents_are_those_of_the_rungs() -> None:
    (row,) = shown(scaling_table([one(runs(CROSSING, seeds=2))]))
    assert row["equivariant"].startswith("0.70")
    assert row["augmented"].startswith("0.30")
    assert (row["to"], row["why not"]) == ("100 s", "-")


def test_without_step_times_the_row_is_full_of_gaps_and_still_a_row() -> None:
    untimed = {"samples_per_second": None, "step_seconds": None}
    found = one(runs(CROSSING, throughput=untimed, budget={"kind": "steps", "limit": 500.0}))
    assert found.seconds is None
    assert cell(found, "device-hours") == cell(found, "lead changes at") == "-"
    (row,) = shown(scaling_table([found]))
    assert (row["equivariant"], row["why not"]) == ("-", "the budget is not in seconds")


def test_headlines_are_plain_data() -> None:
    plain = msgspec.json.decode(msgspec.json.encode(one(runs(CROSSING, seeds=LEAD_SEEDS))))
    assert plain["steady"]["changes"][0]["to"] == "equivariant"
    assert plain["fraction"] == 1.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0123, "12 ms"),
        (9.96, "10 s"),
        (99.6, "100 s"),
        (119.0, "119 s"),
        (120.0, "2.0 min"),
        (6000.0, "100 min"),
        (9000.0, "2.5 h"),
    ],
)
def test_durations_are_read_at_a_glance(seconds: float, text: str) -> None:
    assert seconds_text(seconds, 2) == text


def test_the_headline_needs_no_torch() -> None:
    code = "import sys, equivbench.studies.claims.headline; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

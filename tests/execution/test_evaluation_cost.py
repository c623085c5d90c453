"""What evaluations take: within the bound for every pair and preset, as counted from what is
declared and as measured in the reference records."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from equivbench.budget import Budget
from equivbench.cli.main import main
from equivbench.execution.evaluation_cost import (
    ALLOWED_PART,
    allowed_seconds,
    evaluation_cost,
    wrapper_passes,
)
from equivbench.records.schema import RunRecord
from equivbench.records.store import load_results
from equivbench.registry import DATASETS, PAIRS
from equivbench.report.kernel_axis import OURS
from equivbench.specs import PairPreset

RESULTS = Path(__file__).parents[2] / "results"
ARMS = [
    (key, arm.name, preset)
    for key, entry in PAIRS.entries().items()
    for preset in entry.value.presets
    for arm in entry.value.contestants
]
SLOWEST = 3600 / 4000
"""Seconds of a training step at `paper`, on the slowest device that it is meant for: its hour holds
4,000 steps, a hundredth of what was published."""

LONGER = {("forcefield/so2-convolution", "equivariant", "small"): 1.6}
"""Arms whose evaluations take so many times what is allowed, as docs/tasks.md says."""

SLOWER = {
    ("flow/frames", "equivariant"): 1.25,
    ("flow/frames", "relaxed"): 1.65,  # two networks
    ("voxel/octahedral", "equivariant"): 1.5,
    ("voxel/octahedral", "augmented"): 1.8,
    ("voxel/octahedral", "relaxed"): 1.75,
    ("voxel/octahedral", "symmetry-loss"): 1.65,
}
"""Arms whose evaluations take so many times what is allowed on :data:`SLOW`, as docs/tasks.md says:
their number is fixed, for machines that are twice as fast."""
SLOW = "amd-epyc-f25m1-1t"


def steps_of(key: str, arm: str, preset: str, **options: float) -> float:
    pair = PAIRS.get(key)
    cost = evaluation_cost(pair, arm, preset, Budget.parse(pair.presets[preset].budget), **options)
    assert cost is not None, "a preset whose evaluations are bounded"
    return cost.steps


def test_half_of_a_minute_and_less_than_a_sixth_of_what_is_long() -> None:
    assert allowed_seconds(60) == 30
    assert allowed_seconds(600) == 90 == ALLOWED_PART * 600
    assert allowed_seconds(3600) == 540


@pytest.mark.parametrize(("key", "arm", "preset"), ARMS)
def test_evaluations_stay_within_their_bound(key: str, arm: str, preset: str) -> None:
    pair = PAIRS.get(key)
    budget = Budget.parse(pair.presets[preset].budget)
    # Networks of `dev` are smaller than those that were timed, which are of `small`.
    step = SLOWEST if preset == "paper" else pair.seconds["small"]["step"]
    assert step > 0
    spent = budget.limit if budget.kind == "seconds" else budget.limit * step
    allowed = LONGER.get((key, arm, preset), 1) * allowed_seconds(spent)
    assert steps_of(key, arm, preset, step_seconds=step) * step <= allowed


def test_passes_are_those_of_the_schedule() -> None:
    pair = PAIRS.get("forcefield/vector")
    shared = pair.presets["dev"]
    assert shared == PairPreset(
        "gfn2-small", "60steps", 2, 2, 32, 2, 16, baselines=shared.baselines
    )
    cost = evaluation_cost(pair, "augmented", "dev", Budget("steps", 60))
    assert cost is not None
    # Raw and averaged at 1, 2, 5, 10 and 20 steps and at step 48; the end on a part, on the whole
    # with its verdict, and on two further sets.
    traced, trunk, end = 2 * 5 * 16 * 2, 2 * 32 * 2, 16 * 2 + 1.2 * 32 * 2
    assert cost.passes == pytest.approx(traced + trunk + end + 2 * 32 * 2)
    assert cost.steps == pytest.approx(cost.passes / 2.2 / 8)


def test_a_flow_is_asked_at_every_time_and_once_more_for_what_is_fed_back() -> None:
    pair = PAIRS.get("flow/frames")
    cost = evaluation_cost(pair, "augmented", "dev", Budget("steps", 1))
    assert cost is not None
    assert cost.passes == pytest.approx(7 * 3 * (4 + 3.2 * 8))
    assert cost.steps == pytest.approx(cost.passes / 2.7 / 4)


def test_a_budget_in_samples_or_of_unknown_pace_is_counted_too() -> None:
    steps = [
        steps_at(budget)
        for budget in (Budget("steps", 100), Budget("samples", 800), Budget("seconds", 60))
    ]
    assert steps[0] == steps[1] < steps[2]


def steps_at(budget: Budget) -> float:
    cost = evaluation_cost(PAIRS.get("forcefield/vector"), "augmented", "dev", budget)
    assert cost is not None
    return cost.steps


def test_a_whole_test_set_of_unknown_size_has_no_bound() -> None:
    pair = PAIRS.get("forcefield/vector")
    assert DATASETS.get("mace-off").sizes == {}
    presets = {"paper": PairPreset("mace-off", "1h")}
    uncapped = replace(pair, presets=presets)
    assert evaluation_cost(uncapped, "augmented", "paper", Budget("steps", 10)) is None


@pytest.mark.skipif(not RESULTS.is_dir(), reason="the records are no part of a source archive")
def test_reference_records_took_about_what_is_said_and_no_more_than_is_allowed() -> None:
    for record in load_results(RESULTS):
        if record.status != "completed" or record.restarts or record.budget.extends is not None:
            continue
        trained = record.clock.train + record.clock.data
        # Kernels of other packages may be slower than those that evaluations were planned with.
        if record.budget.kind == "seconds" and record.model.kernels in OURS:
            # It is allowed for one pass a prediction; an arm that averages takes as many more.
            _, passes = wrapper_passes(record.model.wrapper)
            what = f"{record.task}/{record.pair}", record.arm, record.preset
            slow = record.environment.machine_key == SLOW
            longer = LONGER.get(what, 1) * (SLOWER.get(what[:2], 1) if slow else 1)
            allowed = longer * passes * allowed_seconds(record.budget.limit)
            assert record.clock.evaluate <= allowed, record.run_id
        # The least where a batch is of two small molecules: a step is mostly launches then.
        assert 0.4 < record.clock.evaluate / said(record, trained / record.steps) < 2


def test_what_an_arm_averages_over_is_evaluated_as_often() -> None:
    assert wrapper_passes(None) == wrapper_passes("canonical") == (1, 1)
    assert wrapper_passes("frames") == (4, 4)
    assert wrapper_passes("stochastic-frames") == (1, 4)
    assert wrapper_passes("twirl-8") == (1, 8)
    assert wrapper_passes("twirl-octahedral") == (1, 24)


def said(record: RunRecord, step: float) -> float:
    pair = PAIRS.get(f"{record.task}/{record.pair}")
    budget = Budget(record.budget.kind, record.budget.limit)
    cost = evaluation_cost(pair, record.arm, record.preset, budget, step, record.dataset.name)
    assert cost is not None
    return cost.steps * step


@pytest.mark.parametrize("preset", ["small", "paper"])
def test_a_dry_run_says_what_evaluations_take(
    preset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("run", "voxel/octahedral", "--preset", preset, "--dry-run", "--device", "cpu")
    with pytest.raises(SystemExit):
        main([*asked, "--json"])
    rows = json.loads(capsys.readouterr().out)["jobs"]
    assert {row["arm"] for row in rows} == {"equivariant", "augmented"}
    assert all(row["evaluation"]["steps"] > 0 for row in rows)
    assert all((row["evaluation"]["seconds"] is None) == (preset == "paper") for row in rows)
    with pytest.raises(SystemExit):
        main(asked)
    shown = " ".join(capsys.readouterr().out.split())
    steps = f"{rows[0]['evaluation']['steps']:.0f}"
    assert f"off the budget: as long as about {steps} training steps" in shown


def test_the_list_of_pairs_says_it_for_every_preset(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["list", "pairs", "--json"])
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    for key, entry in PAIRS.entries().items():
        for preset in entry.value.presets:
            found = rows[key]["presets"][preset]["evaluation"]
            assert set(found) == {arm.name for arm in entry.value.contestants}
            assert all(steps > 0 for steps in found.values())

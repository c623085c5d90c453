"""Records whose variant sets them apart: a precision that was asked for, forces that an arm
needs."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from factories import make_record

from equivbench.records.declared import departures
from equivbench.records.look import look_at
from equivbench.request import RunRequest

RESULTS = Path(__file__).parents[2] / "results"


def in_bfloat16() -> dict[str, Any]:
    """A reference record, said everywhere to be in bfloat16."""
    file = next(
        iter(sorted(RESULTS.glob("*/forcefield/vector/equivariant/small-60s-seed0-2*.json")))
    )
    record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    asked = replace(RunRequest.of_command(record["command"]), precision="bf16")
    record["command"] = asked.command(recorded=True)
    record["run_id"] = re.sub(r"-(\d{8}T)", r"-bf16-\1", record["run_id"])
    record["recipe"]["precision"] = record["variant"]["precision"] = "bf16"
    return record


def problems(record: dict[str, Any]) -> list[str]:
    return look_at(json.dumps(record).encode(), "it")[0].problems


@pytest.mark.skipif(not RESULTS.is_dir(), reason="the records are no part of a source archive")
def test_a_record_in_a_precision_that_was_asked_for_is_sound_and_says_it_everywhere() -> None:
    assert problems(in_bfloat16()) == []
    without = in_bfloat16()
    del without["variant"]["precision"]
    assert any("precision" in each for each in problems(without))
    other = in_bfloat16()
    other["recipe"]["precision"] = "float32"
    assert "recipe.precision is 'float32', not 'bf16'" in problems(other)
    strange = in_bfloat16()
    strange["variant"]["precision"] = strange["recipe"]["precision"] = "fp8"
    assert any("unknown precision" in each for each in problems(strange))


@pytest.mark.parametrize("forces", ["direct", "conservative"])
def test_an_arm_that_needs_conservative_forces_has_no_record_with_others(forces: str) -> None:
    record = make_record(
        task="forcefield", pair="vector", arm="equigrad", variant={"forces": forces}
    )
    said = "equigrad is trained on conservative forces alone"
    assert any(said in each for each in departures(record)) == (forces == "direct")

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

from equivbench.gap.pairing import Setting, pair_up
from equivbench.records.declared import as_declared, departures, effective_variant, unchecked
from equivbench.records.look import look_at
from equivbench.records.schema import RunRecord
from equivbench.report.board import build_boards
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


def at_paper(device: str, computed: str, label: str | None, **more: Any) -> RunRecord:
    """A run of a preset that says TF32."""
    asked = {} if label is None else {"precision": label}
    return make_record(
        task="forcefield",
        pair="vector",
        preset="paper",
        variant={"forces": "direct", **asked},
        recipe={"precision": computed},
        environment={"device": device},
        **more,
    )


def settings(*records: RunRecord) -> set[Setting]:
    return {Setting.of(record) for record in records}


def test_a_precision_that_the_device_makes_of_the_presets_sets_nothing_apart() -> None:
    told = at_paper("cpu", "float32", "float32", arm="equivariant")
    untold = at_paper("cpu", "float32", None, arm="augmented")
    for record in (told, untold):
        assert not [each for each in departures(record) if "precision" in each]
        assert not [each for each in unchecked(record) if "precision" in each]
    (runs,) = pair_up([told, untold]).matched
    assert (runs.seeds, runs.setting.variant) == ((0,), (("forces", "direct"),))
    assert len(build_boards([told, untold])) == 1
    assert as_declared(effective_variant(told))
    assert told.variant["precision"] == "float32", "the record stays as it is"


def test_a_precision_that_is_computed_in_sets_runs_apart() -> None:
    unlike = [
        at_paper("cpu", "float32", None),
        at_paper("cpu", "bf16", "bf16"),
        at_paper("NVIDIA H100", "tf32", None),
        at_paper("NVIDIA H100", "float32", "float32"),
    ]
    assert len(settings(*unlike[:2])) == len(settings(*unlike[2:])) == 2
    # What an unknown pair would have computed in nobody can say.
    unknown = make_record(variant={"precision": "float32"})
    assert effective_variant(unknown) == {"precision": "float32"}
    swept = at_paper("cpu", "float32", "float32")
    swept.variant |= {"sweep": "size", "value": "2"}
    assert effective_variant(swept) == {"forces": "direct", "sweep": "size", "value": "2"}


@pytest.mark.parametrize("forces", ["direct", "conservative"])
def test_an_arm_that_needs_conservative_forces_has_no_record_with_others(forces: str) -> None:
    record = make_record(
        task="forcefield", pair="vector", arm="equigrad", variant={"forces": forces}
    )
    said = "equigrad is trained on conservative forces alone"
    assert any(said in each for each in departures(record)) == (forces == "direct")

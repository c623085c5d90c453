"""``analyze landscape`` on a run of its own, as a user's shell sees it."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from analysing import analyse, assert_refused
from running import Bench

from equivbench.environment import machine_key
from equivbench.report.text import number_text
from equivbench.studies.landscape.record import LANDSCAPES

TIMES = ("created", "seconds")


@pytest.mark.slow
def test_a_run_is_analysed_and_kept_beside_its_record(bench: Bench) -> None:
    record = f"results/{machine_key('cpu', 1)}/toy/plain/augmented/dev-200steps-seed0-20260101T000000Z-00000000.json"
    other = record.replace("augmented", "equivariant")
    few = ["--points", "6", "--samples", "16"]
    calls = [
        [record, *few, "--out", "results", "--json"],
        [record, *few, "--out", "results"],
        [record, *few, "--layers", "net.2.*", "--no-repeat", "--out", "results", "--json"],
        [record, *few, "--step", "100", "--no-repeat", "--json"],
        [other, *few, "--json"],
        [other, *few, "--along", "equivariance"],
        [Path(record).stem],
        ["nothing"],
        [record, "--step", "7"],
        [record, "--layers", "net2"],
        [record, "--along", "sideways"],
        [record, "--points", "40"],
        [record, "--seed", "-1"],
        [record, "--plot", "surface.xyz"],
    ]
    ran = analyse(bench, "landscape", [{"snapshots": True}], calls)
    first, table, layer, at_step, equivariant, *refused = ran
    found = first.json
    assert (found["step"], found["samples"], found["rotations"], found["parameters"]) == (
        200,
        16,
        4,
        115,
    )
    assert found["command"] == f"equivbench analyze landscape {record} --samples 16 --points 6"
    assert str(bench.folder) not in json.dumps(found)
    for part in found["parts"].values():
        condition = part["effective_condition"]
        if condition["value"] is not None:
            assert condition["low"] <= condition["value"]
        assert -1 <= part["repeated"] <= 1
        assert len(part["largest"]) == len(part["largest_again"]) == 1
    # The same seed again is the same to the bit and stands beside the first; other layers are another
    # landscape.
    lines = [
        msgspec.to_builtins(line)
        for line in LANDSCAPES.read(bench.results / machine_key("cpu", 1) / "landscapes.jsonl")
    ]
    assert [line["layers"] for line in lines] == ["*", "*", "net.2.*"]
    for line in lines[:2]:
        assert {name: line[name] for name in line if name not in TIMES} == {
            name: found[name] for name in found if name not in TIMES
        }
    assert number_text(found["parts"]["total"]["quadratic_r2"]) in table.out
    assert layer.json["parameters"] == 51
    assert layer.json["reasons"]["parts.total.fresh_r2"] == "without a repeat"
    # Snapshots lie before the cooldown, where the weights are others.
    assert at_step.json["step"] == 100
    assert at_step.json["grids"] != found["grids"]
    assert "--step 100" in at_step.json["command"]
    assert equivariant.json["parts"]["equivariance"]["largest"] == []
    assert "rounding" in equivariant.json["reasons"]["parts.equivariance.trace"]
    wanted = (
        (2, "rounding alone"),
        (2, "that of several arms"),
        (3, "run nothing has no checkpoint"),
        (2, "kept no snapshot of step 7; it has"),
        (2, "no parameter's name matches 'net2'; did you mean net.2"),
        (2, "unknown along 'sideways'; known: equivariance, total, twirled"),
        (2, "6 to 31 points"),
        (2, "--seed must be at least 0"),
        (2, "cannot draw into surface.xyz"),
    )
    assert_refused(refused, wanted)

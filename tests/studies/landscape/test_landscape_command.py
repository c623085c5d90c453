"""``analyze landscape`` on a run of its own, as a user's shell sees it."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from running import Bench, Ran

from equivbench.environment import machine_key
from equivbench.report.text import number_text
from equivbench.studies.landscape.record import LANDSCAPES

# One process trains and makes all calls: most of a call is the import of torch.
CALLS = """
import contextlib, io, json, sys
from datetime import UTC, datetime
from equivbench.cli.main import main
from equivbench.execution.plan import this_machine
from equivbench.execution.plan import make_plan
from equivbench.training.record import make_record
from equivbench.execution.state import on_machine, open_state, remember_record
from equivbench.records.store import write_record
from equivbench.request import RunRequest
from equivbench.training.assembly import build_trainer

request = RunRequest(pairs=("toy/plain",), preset="dev", device="cpu", threads=1, snapshots=True)
for job in on_machine(make_plan(request, datetime(2026, 1, 1, tzinfo=UTC)), this_machine(request)).jobs:
    with contextlib.redirect_stdout(io.StringIO()):
        open_state(job)
        trainer = build_trainer(job)
        trainer.train_slice(1e9)
        remember_record(job, write_record(make_record(job, trainer, [1e-3], None), job.request.out))
for arguments in json.loads(sys.argv[1]):
    out, err, code = io.StringIO(), io.StringIO(), None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(["analyze", "landscape", *arguments])
        except SystemExit as stop:
            code = stop.code
    print(json.dumps([code, out.getvalue(), err.getvalue()]))
"""
TIMES = ("created", "seconds")


@pytest.mark.slow
def test_a_run_is_analysed_and_kept_beside_its_record(bench: Bench) -> None:
    record = f"results/{machine_key('cpu', 1)}/toy/plain/augmented/dev-200steps-seed0-20260101T000000Z.json"
    other = record.replace("augmented", "equivariant")
    few = ["--points", "6", "--samples", "16"]
    calls = [
        [record, *few, "--out", "results", "--json"],
        [record, *few, "--out", "results"],
        [record, *few, "--layers", "net.2.*", "--no-repeat", "--out", "results", "--json"],
        [record, *few, "--step", "200", "--no-repeat", "--json"],
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
    done = bench.finish(bench.start_python("-c", CALLS, json.dumps(calls)))
    assert done.code == 0, done.err
    first, table, layer, at_step, equivariant, *refused = [
        Ran(*json.loads(line)) for line in done.out.splitlines()
    ]
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
    # The same seed again is the same to the bit and takes the place of the first; other layers are
    # another landscape.
    lines = [
        msgspec.to_builtins(line)
        for line in LANDSCAPES.read(bench.results / machine_key("cpu", 1) / "landscapes.jsonl")
    ]
    assert [line["layers"] for line in lines] == ["*", "net.2.*"]
    assert {name: lines[0][name] for name in lines[0] if name not in TIMES} == {
        name: found[name] for name in found if name not in TIMES
    }
    assert number_text(found["parts"]["total"]["quadratic_r2"]) in table.out
    assert layer.json["parameters"] == 51
    assert layer.json["reasons"]["parts.total.fresh_r2"] == "without a repeat"
    # The last snapshot is the end of the run.
    assert at_step.json["grids"] == found["grids"]
    assert "--step 200" in at_step.json["command"]
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
    for ran, (code, says) in zip(refused, wanted, strict=True):
        assert (ran.code, ran.out) == (code, "")
        assert says in ran.err
        # The toy prints a line of its own as it is built.
        assert ran.err.replace("a library that prints to stdout\n", "").count("\n") == 1

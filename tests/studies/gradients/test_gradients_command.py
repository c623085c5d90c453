"""``run --snapshots`` and ``analyze gradients``, as a user's shell sees them."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from analysing import analyse, assert_refused
from running import Bench

from equivbench.environment import machine_key
from equivbench.report.text import number_text
from equivbench.studies.gradients.record import GRADIENTS


@pytest.mark.slow
def test_a_run_with_snapshots_is_analysed_and_kept_beside_its_record(bench: Bench) -> None:
    when = "20260101T000000Z-00000000"
    record = f"results/{machine_key('cpu', 1)}/toy/plain/augmented/dev-200steps-seed0-{when}.json"
    plain = record.replace("seed0", "seed1").replace("000000Z", "000001Z")
    few = ["--samples", "64", "--chunks", "4"]
    kept = ["--out", "results"]
    calls = [
        [record, *few, *kept, "--json"],
        [record, *few, *kept],
        [record, f"./{record}", *few, *kept, "--weights", "ema", "--json"],
        [record, "--samples", "3", "--chunks", "4"],
        [Path(record).stem],
        [plain],
        ["nothing"],
        [record, "--weights", "emma"],
        [record, "--chunks", "1"],
    ]
    ran = analyse(
        bench, "gradients", [{"snapshots": True}, {"seeds": [1], "arms": ["augmented"]}], calls
    )
    first, again, averaged, *refused = ran
    (analysis,) = first.json["analyses"]
    trace = json.loads((bench.folder / record).read_text())["trace"]
    assert [point["step"] for point in analysis["points"]] == [point["step"] for point in trace]
    assert [point["share"] for point in analysis["points"]] == [
        point["test"]["share"] for point in trace
    ]
    assert [point["ratio"]["value"] is not None for point in analysis["points"]] == [True] * len(
        trace
    )
    assert set(analysis["correlations"]) == {
        "ratio",
        "ratio detrended",
        "deviation",
        "deviation detrended",
    }
    assert first.json["pooled"][0]["runs"] == 1
    assert analysis["command"] == f"equivbench analyze gradients {record} --samples 64 --chunks 4"
    assert str(bench.folder) not in json.dumps(analysis)
    for index, point in enumerate(analysis["points"]):
        assert point["deviation"] is None
        assert "symmetric projection" in analysis["reasons"][f"points.{index}.deviation"]
    for row, point in zip(again.out.splitlines()[2:], analysis["points"], strict=False):
        assert row.split()[0] == str(point["step"])
        assert f"{number_text(point['ratio']['value'])} (" in row
    (ema_analysis,) = averaged.json["analyses"]  # one run, by whatever names it was given
    assert [point["ratio"] for point in ema_analysis["points"]] != [
        point["ratio"] for point in analysis["points"]
    ]
    assert [point["share"] for point in ema_analysis["points"]] == [
        point["ema"]["share"] for point in trace
    ]
    # The same seed again is the same to the bit and stands beside the first.
    lines = GRADIENTS.read(bench.results / machine_key("cpu", 1) / "gradients.jsonl")
    assert sorted(line.weights for line in lines) == ["ema", "ema", "model", "model"]
    for line in lines:
        if line.weights == "model":
            assert msgspec.to_builtins(line.points) == analysis["points"]
    wanted = (
        (2, "cannot be dealt into 4 chunks"),
        (2, "that of several arms"),
        (3, "kept no snapshots; train it with `equivbench run toy/plain --snapshots`"),
        (3, "run nothing has no checkpoint"),
        (2, "did you mean ema?"),
        (2, "takes at least 2, not 1"),
    )
    assert_refused(refused, wanted)

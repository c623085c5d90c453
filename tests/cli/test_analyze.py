"""The analyses as commands: what they refuse, list and print without training anything."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from factories import make_record

from equivbench.cli.main import main
from equivbench.records.store import write_record

SWEEP = (
    "analyze",
    "sweep",
    "forcefield/vector",
    "--preset",
    "dev",
    "--device",
    "cpu",
    "--threads",
    "1",
)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EQUIVBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    return stop.value.code


def test_a_dry_run_lists_the_points_and_trains_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert (
        run(*SWEEP, "--over", "size", "--values", "0.5,1", "--n-seeds", "2", "--dry-run", "--json")
        == 0
    )
    points = json.loads(capsys.readouterr().out)["points"]
    assert [(point["value"], point["arm"], point["seed"]) for point in points[:2]] == [
        ("0.5", "equivariant", 0),
        ("0.5", "augmented", 0),
    ]
    assert len(points) == 8
    assert not any(point["finished"] for point in points)
    assert run(*SWEEP, "--over", "size", "--values", "0.5,1", "--dry-run") == 0
    assert capsys.readouterr().out.count("to do") == 4
    assert not (tmp_path / "sweeps").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--over", "szie", "--values", "1"), "did you mean size?"),
        (("--over", "optimizer", "--values", "adamm"), "did you mean adam"),
        (("--over", "data", "--values", "2"), "at most 1"),
        (("--over", "data"), "--values"),
        (("--over", "data", "--values", "1", "--plot", "x.docx"), "x.docx"),
    ],
)
def test_bad_requests_end_with_2_and_a_sentence(
    options: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*SWEEP, *options, "--dry-run") == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert says in captured.err


def test_baselines_of_a_results_folder(capsys: pytest.CaptureFixture[str]) -> None:
    for arm in ("equivariant", "augmented"):
        write_record(make_record(arm=arm, baselines={"zero": 20.0, "linear": 10.0}), "results")
    assert run("analyze", "baselines") == 0
    shown = capsys.readouterr().out
    assert all(
        words in shown
        for words in ("linear baseline", "zero baseline", "explained 90%", "end of the worse arm")
    )
    assert run("analyze", "baselines", "results", "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["others"], found["linear"]) == ({"zero": 20.0}, 10.0)
    assert set(found["arms"]) == set(found["levels"][0]["arms"]) == {"equivariant", "augmented"}


def test_baselines_of_nothing_finished_fail(capsys: pytest.CaptureFixture[str]) -> None:
    lost = ("final", "final_on_part")
    reasons = {
        "flops_per_sample": "not counted",
        "energy_joules": "none",
        **dict.fromkeys(lost, "nan"),
    }
    write_record(
        make_record(status="diverged", reason="nan", **dict.fromkeys(lost), reasons=reasons),
        "results",
    )
    assert run("analyze", "baselines") == 3
    assert "no finished run" in capsys.readouterr().err

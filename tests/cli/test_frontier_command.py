"""``equivbench frontier`` and its figure, from files to sentences and exit codes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from factories import make_run

from equivbench.cli.main import main
from equivbench.records.schema import RunRecord
from equivbench.records.store import write_record

STEPS = [10, 30, 100, 300, 1000]


def pair(scale: float = 1.0, **more: object) -> list[RunRecord]:
    laws = {"equivariant": (2.0, 0.3), "augmented": (6.0, 0.5)}
    return [
        make_run(
            arm,
            lambda step, k=k, p=p, seed=seed: scale * (k + 0.001 * seed) * (0.1 * step) ** -p,
            STEPS,
            tau=0.1,
            seed=seed,
            run_id=f"small-seed{seed}",
            **more,
        )
        for arm, (k, p) in laws.items()
        for seed in range(3)
    ]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for record in pair():
        write_record(record, tmp_path / "results")
    return tmp_path / "results"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["equivbench", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_the_table_and_the_sentence(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "frontier", "--results", results) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "toy/pair: the equivariant arm has the lower loss at 100 s, by the laws too." in out
    assert "beyond every budget that was measured" in out


def test_a_folder_by_position_is_told_the_option(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "frontier", results) == 2
    assert f"name a results folder with --results {results}" in capsys.readouterr().err


def test_json_holds_the_law(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "frontier", "--results", results, "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["arms"]["augmented"]["law"]["exponent"]["value"] == pytest.approx(0.5, abs=1e-3)
    assert found["crossing"]["seconds"]["value"] == pytest.approx(243.0, rel=0.05)


def test_a_folder_without_a_frontier_ends_with_3_and_an_unknown_pair_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert run(monkeypatch, "frontier", "--results", tmp_path / "empty") == 3
    assert run(monkeypatch, "frontier", "forcefield/vectro", "--results", tmp_path) == 2
    assert "did you mean forcefield/vector" in capsys.readouterr().err


def test_a_budget_in_steps_is_told_the_command_that_makes_a_frontier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    budget = {"kind": "steps", "limit": 1000.0, "spent": 1000.0, "overshoot": 0.0}
    for record in pair(budget=budget):
        for rung in record.rungs:
            rung.budget = float(rung.step)
        write_record(record, tmp_path / "results")
    assert run(monkeypatch, "frontier", "--results", tmp_path / "results") == 3
    why, error = capsys.readouterr().err.splitlines()
    assert why.startswith("left out: toy/pair")
    assert "`equivbench run toy/pair --budget 60s --rungs 5` makes one" in why
    assert error.endswith("makes a frontier, for the reasons given above")


def test_arms_that_cannot_be_compared_end_with_4(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for record in pair():
        if record.arm == "augmented":
            record.dataset.sha256 = "1" * 64
        write_record(record, tmp_path / "results")
    assert run(monkeypatch, "frontier", "--results", tmp_path / "results") == 4
    assert "was run only with another" in capsys.readouterr().err


def test_the_figure_shows_one_frontier(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    figure = tmp_path / "frontier.svg"
    assert run(monkeypatch, "plot", "frontier", results, "--out", figure) == 0
    assert "<svg" in figure.read_text(encoding="utf-8")
    for record in pair(1.1, pair="other"):
        write_record(record, results)
    assert run(monkeypatch, "plot", "frontier", results, "--out", figure) == 2
    assert (
        run(monkeypatch, "plot", "frontier", results, "--out", figure, "--pair", "toy/other") == 0
    )

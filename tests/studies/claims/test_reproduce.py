"""``equivbench reproduce``: what it says beforehand, what it refuses, and its verdict on what is
there, without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from factories import make_run

from equivbench.cli.main import main
from equivbench.records.store import write_record
from equivbench.registry import PAIRS
from equivbench.studies.claims.parts import CLAIMS
from equivbench.studies.claims.statements import CLAIMS as STATEMENTS

LITTLE = ("reproduce", "--preset", "dev", "--device", "cpu", "--threads", "1")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EQUIVBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    return stop.value.code


def some_results() -> None:
    """One seed of a force-field pair, a share that falls below 2%."""
    for arm, scale in (("equivariant", 1.0), ("augmented", 1.5)):
        write_record(
            make_run(
                arm,
                lambda step, scale=scale: scale * 20 * step**-0.5,
                [10, 100, 1000],
                tau=0.1,
                task="forcefield",
                pair="made-up",  # stored of a declared pair must be what it declares
            ),
            "results",
        )


def test_every_claim_that_is_stated_has_parts_and_no_other() -> None:
    assert tuple(claim.id for claim in STATEMENTS) == CLAIMS


def test_it_says_beforehand_what_each_part_takes_and_trains_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run("reproduce", "--device", "cpu", "--claims", "C5", "--dry-run", "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["estimated_seconds"] == pytest.approx(
        sum(part["estimated_seconds"] for part in plan["parts"])
    )
    # The claim's five parts with 3 seeds and 2 arms of 60 s each: no less than the budgets, under
    # the two hours of the whole.
    assert [part["runs"] for part in plan["parts"]] == [6, 6, 6, 6, 6]
    assert 24 * 60 < plan["estimated_seconds"] < 2 * 3600
    assert run("reproduce", "--device", "cpu", "--claims", "C5", "--dry-run") == 0
    *rows, total = capsys.readouterr().out.splitlines()
    assert rows[0].split() == ["part", "claims", "runs", "finished", "minutes"]
    assert len(rows) == 1 + len(plan["parts"])
    assert total.startswith(f"about {plan['estimated_seconds'] / 60:.0f} min on cpu")
    assert not (tmp_path / "results").exists()


def test_the_whole_is_said_to_take_less_than_two_hours_on_two_cores(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("reproduce", "--device", "cpu", "--threads", "2", "--dry-run", "--json") == 0
    assert 3600 / 2 < json.loads(capsys.readouterr().out)["estimated_seconds"] < 2 * 3600


def test_in_full_all_pairs_and_six_seeds(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("reproduce", "--device", "cpu", "--full", "--dry-run", "--json") == 0
    parts = json.loads(capsys.readouterr().out)["parts"]
    assert all(part["estimated_seconds"] for part in parts), "how long each takes is known"
    pairs = [part for part in parts if part["part"].startswith("runs of ")]
    assert len(pairs) == len(PAIRS.without_plugins())
    assert {part["runs"] for part in pairs} == {12}
    assert run("reproduce", "--device", "cpu", "--full", "--seeds", "4", "--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["parts"][0]["runs"] == 2


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (("--claims", "C9"), 2, "unknown claim 'C9'"),
        (("--claims", ","), 2, "no claims in ','"),
        (("--dry-run", "--report-only"), 2, "exclude each other"),
        (("--preset", "smal"), 2, "did you mean small"),
        (("--budget", "1 fortnight"), 2, "cannot read the budget"),
        (("--seeds", "a"), 2, "cannot read the seeds"),
        (("--seeds", "1", "--n-seeds", "2"), 2, "exclude each other"),
        (("--report-only",), 3, "results is no folder"),
        (("--page", "."), 2, "--page . is a folder"),
        (("--page", "file/claims.md"), 3, "the folder of the page file cannot be written"),
        (("--out", "file"), 3, "the results folder file cannot be written"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(
    options: tuple[str, ...], code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("file").write_text("")
    assert run("reproduce", "--quiet", *options) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert says in captured.err


def test_an_empty_folder_measures_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    Path("results").mkdir()
    assert run("reproduce", "--report-only", "--json") == 0
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert [finding["claim"] for finding in findings] == list(CLAIMS)
    assert {finding["verdict"] for finding in findings} == {"not measured"}


def test_what_is_there_is_judged_without_torch(tmp_path: Path) -> None:
    some_results()
    code = """
import sys
from equivbench.cli.main import main
try:
    main(["reproduce", "--report-only", "--claims", "C1,C5", "--page", "claims.md", "--json"])
except SystemExit as stop:
    assert stop.code == 0, stop.code
assert "torch" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=300
    )
    assert done.returncode == 0, done.stderr
    findings = json.loads(done.stdout)["findings"]
    assert [(finding["claim"], finding["hardware"]) for finding in findings] == [
        *[("C1", "CPU")] * 3,
        *[("C5", "CPU")] * 3,
    ]
    page = (tmp_path / "claims.md").read_text()
    assert "C1" in page
    assert "not measured" in page


def test_the_table_has_a_row_for_each_finding(capsys: pytest.CaptureFixture[str]) -> None:
    some_results()
    assert run("reproduce", "--report-only") == 0
    claims, headlines = (text.splitlines() for text in capsys.readouterr().out.split("\n\n"))
    assert [row.split()[0] for row in claims[1:]] == list(CLAIMS)
    assert headlines[0].startswith("pair")
    assert [row.split()[0] for row in headlines[1:]] == ["forcefield/made-up"]

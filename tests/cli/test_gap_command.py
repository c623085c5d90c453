"""``equivbench gap`` from files to table, JSON and exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from factories import make_record, make_run

from equivbench.cli.main import main
from equivbench.records.schema import RunRecord
from equivbench.records.store import write_record

STEPS = [10, 30, 100, 300, 1000]


def write(folder: Path, *records: RunRecord) -> Path:
    for record in records:
        write_record(record, folder)
    return folder


def pair(**more: object) -> list[RunRecord]:
    return [
        make_run(arm, lambda step, k=k: k * step**-0.5, STEPS, tau=0.1, **more)
        for arm, k in (("equivariant", 2.0), ("augmented", 4.0))
    ]


def gap(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["equivbench", "gap", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_json_is_the_list_of_gaps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gap(monkeypatch, write(tmp_path, *pair()), "--json") == 0
    (plain,) = json.loads(capsys.readouterr().out)
    assert plain["s_star_equivariant"]["steady"]["value"] == pytest.approx(0.25)
    assert plain["budget"] == {"kind": "seconds", "limit": 100.0}


def test_the_table_reads_in_plain_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gap(monkeypatch, "--results", write(tmp_path, *pair())) == 0
    out = capsys.readouterr().out
    assert "toy/pair" in out
    assert "No verdict: 1 seed; a verdict takes 3." in out


def test_a_folder_without_records_or_arms_ends_with_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gap(monkeypatch, tmp_path / "nowhere") == 3
    assert gap(monkeypatch, write(tmp_path / "third", make_record(arm="twirled"))) == 3
    assert gap(monkeypatch, write(tmp_path / "one", make_record(arm="augmented"))) == 3
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert "only the augmented arm" in lines[2]


def test_arms_on_different_machines_end_with_4(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = pair()
    second.environment.machine_key = "elsewhere"
    assert gap(monkeypatch, write(tmp_path, first, second)) == 4


def test_what_has_no_partner_is_said_beside_the_gaps_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gap(monkeypatch, write(tmp_path, *pair(), make_record(pair="other")), "--json") == 0
    streams = capsys.readouterr()
    assert len(json.loads(streams.out)) == 1
    assert "toy/other" in streams.err


def test_an_arm_of_which_every_seed_diverged_ends_with_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = pair()
    first.status, first.reason, first.final, first.final_raw = "diverged", "loss is NaN", None, None
    first.reasons |= {"final": "it diverged", "final_raw": "it diverged"}
    assert gap(monkeypatch, write(tmp_path, first, second), "--json") == 3
    streams = capsys.readouterr()
    assert json.loads(streams.out)[0]["s_star_equivariant"]["steady"]["censored"] == "above"
    assert "diverged" in streams.err


def test_an_invalid_record_ends_with_3_and_can_be_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = write_record(make_record(seed=7, epochs=1.0), write(tmp_path, *pair()))
    assert gap(monkeypatch, tmp_path, "--json") == 3
    streams = capsys.readouterr()
    assert (streams.out, bad.name in streams.err) == ("", True)
    assert gap(monkeypatch, tmp_path, "--json", "--skip-invalid") == 0
    streams = capsys.readouterr()
    assert len(json.loads(streams.out)) == 1
    assert f"left out: {bad}" in streams.err


def test_it_needs_no_torch(tmp_path: Path) -> None:
    write(tmp_path, *pair())
    code = (
        "import sys\nfrom equivbench.cli.main import main\n"
        f"sys.argv = ['equivbench', 'gap', {str(tmp_path)!r}]\n"
        "try:\n    main()\nfinally:\n    assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)

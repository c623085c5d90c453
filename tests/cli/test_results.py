"""``results``: validation with its exit codes, the schema, the rules."""

import json
from pathlib import Path
from typing import Any

import pytest
from factories import make_record

from equivbench.cli.main import main
from equivbench.records.json_schema import rules_text, shipped_text
from equivbench.records.schema import RULES_VERSION
from equivbench.records.store import write_record

REASONS = {
    "flops_per_sample": "not counted",
    "energy_joules": "the device reports no energy",
}


def write(out: Path, **overrides: Any) -> Path:
    return write_record(make_record(**{"reasons": REASONS, **overrides}), out)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[Any, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(["results", *arguments])
    captured = capsys.readouterr()
    return stop.value.code, captured.out, captured.err


def test_sound_records_exit_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path)
    code, out, err = run(capsys, "validate", str(tmp_path))
    assert (code, out.splitlines()[-1], err) == (0, "1 record, 0 invalid", "")


def test_every_invalid_record_is_named_and_the_code_is_3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path)
    bad = write(tmp_path, seed=1, clock={"wall": 500.0})
    (tmp_path / "cut.json").write_text("{")
    code, out, err = run(capsys, "validate", str(tmp_path))
    assert code == 3
    assert f"{bad}: the clock's parts" in out
    assert "cut.json: " in out
    assert "not valid: 2 of 3 files" in err
    code, out, _ = run(capsys, "validate", str(tmp_path), "--json")
    assert code == 3
    assert {row["path"]: row["valid"] for row in json.loads(out)} == {
        str(path): path not in (bad, tmp_path / "cut.json")
        for path in sorted(tmp_path.rglob("*.json"))
    }


def test_other_rules_exit_4_before_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, rules_version=RULES_VERSION + 1)
    (tmp_path / "cut.json").write_text("{")
    assert run(capsys, "validate", str(tmp_path))[0] == 4


def test_a_remark_is_no_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, git={"dirty": True})
    code, out, _ = run(capsys, "validate", str(tmp_path))
    assert code == 0
    assert "remark: the code had uncommitted changes" in out


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_nothing_to_validate_exits_3(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "validate", str(tmp_path / name))
    assert (code, out) == (3, "")
    assert err.startswith("error: ")


def test_schema_and_rules_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "schema") == (0, shipped_text(), "")
    assert run(capsys, "rules") == (0, rules_text(), "")

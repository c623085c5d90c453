"""``equivbench data``: its output and its exit codes."""

import json
import sys
from pathlib import Path

import pytest

from equivbench.cli.main import main
from equivbench.tasks.forcefield.sources import gfn2_small

SHIPPED = gfn2_small().path().parent


def call(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as stop:
        main(["data", *arguments])
    return stop.value.code


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EQUIVBENCH_CACHE", str(tmp_path))
    monkeypatch.delenv("EQUIVBENCH_DATA_SPICE", raising=False)
    return tmp_path


@pytest.mark.parametrize("command", ["prepare", "verify", "path"])
def test_the_shipped_set_is_there_and_its_path_is_printed(
    capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert call(command, "gfn2-small") == 0
    assert capsys.readouterr().out == f"{SHIPPED / 'gfn2-small.npz'}\n"


def test_json_is_an_object_with_the_checksum_of_the_card(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call("verify", "gfn2-small", "--json") == 0
    card = json.loads((SHIPPED / "gfn2-small.json").read_text())
    shown = json.loads(capsys.readouterr().out)
    assert (shown["name"], shown["sha256"]) == ("gfn2-small", card["sha256"])


def test_an_unknown_name_is_a_usage_error_with_the_close_matches(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call("path", "gfn2-smal") == 2
    assert "did you mean gfn2-small" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["path", "verify"])
def test_a_set_that_is_not_prepared_exits_3_and_says_how(
    capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert call(command, "gfn2-20k") == 3
    assert "equivbench data prepare gfn2-20k" in capsys.readouterr().err


def test_preparing_a_set_without_its_tools_or_files_exits_3(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rdkit", None)
    assert call("prepare", "gfn2-20k") == 3
    assert "pip install 'equivbench[generate]'" in capsys.readouterr().err
    assert call("prepare", "spice") == 3


def test_a_corrupt_set_exits_3(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = cache / "datasets" / "forcefield"
    folder.mkdir(parents=True)
    (folder / "gfn2-20k.json").write_bytes((SHIPPED / "gfn2-small.json").read_bytes())
    (folder / "gfn2-20k.npz").write_bytes((SHIPPED / "gfn2-small.npz").read_bytes()[:1000])
    for command in ("verify", "prepare", "path"):
        assert call(command, "gfn2-20k") == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("cut short or changed") == 3


@pytest.mark.parametrize("there", ["npz", "json"])
def test_half_of_a_set_is_none(cache: Path, capsys: pytest.CaptureFixture[str], there: str) -> None:
    folder = cache / "datasets" / "forcefield"
    folder.mkdir(parents=True)
    content = (SHIPPED / f"gfn2-small.{there}").read_bytes()
    (folder / f"gfn2-20k.{there}").write_bytes(content)
    assert call("path", "gfn2-20k") == 3
    assert "equivbench data prepare gfn2-20k" in capsys.readouterr().err

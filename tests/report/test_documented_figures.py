"""The figures that the documentation names a command or a call for can be drawn by it from the
records that the project ships."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest

import equivbench
from equivbench.cli.main import main
from equivbench.records.schema import RunRecord
from equivbench.records.store import load_results
from equivbench.report import plot

pytest.importorskip("matplotlib")

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"
TEXT = "\n".join(
    page.read_text(encoding="utf-8")
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
)
COMMANDS = [
    f"{kind} {options}"
    for kinds, options in re.findall(r"`equivbench plot (\S+) ([^`]*--out [^`]*)`", TEXT)
    for kind in kinds.replace("\\", "").split("|")
]
CALLS = sorted(set(re.findall(r"eb\.plot\.\w+\(.*\)", TEXT)))

pytestmark = pytest.mark.skipif(
    not RESULTS.is_dir(), reason="the records are no part of a source archive"
)


@pytest.fixture(scope="module")
def shipped() -> list[RunRecord]:
    return load_results(RESULTS)


@pytest.fixture(autouse=True)
def _read_once(
    shipped: Sequence[RunRecord], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading and checking them takes longer than drawing."""
    monkeypatch.setattr(plot, "admitted", lambda path, invalid: shipped)
    monkeypatch.chdir(tmp_path)


def test_each_kind_of_figure_has_a_command() -> None:
    kinds = [command.split()[0] for command in COMMANDS]
    assert {*kinds} == {"curves", "gap", "frontier", "share", "race"}
    assert len(CALLS) > 1


@pytest.mark.parametrize("command", COMMANDS)
def test_a_documented_command_draws_its_figure(command: str) -> None:
    words = shlex.split(command)
    place = words.index("--out") + 1
    words[place] = f"figure{Path(words[place]).suffix or '.svg'}"
    with pytest.raises(SystemExit) as end:
        main(["plot", words[0], str(RESULTS), *words[1:]])
    assert not end.value.code
    assert Path(words[place]).stat().st_size > 1000


@pytest.mark.parametrize("call", CALLS)
def test_a_documented_call_draws_its_figure(call: str, shipped: list[RunRecord]) -> None:
    figure = eval(call, {"eb": equivbench, "records": shipped})
    assert figure.axes

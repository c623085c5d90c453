"""Pretrained networks measured through their own process: known answers, records that keep their
rules, and the command."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from toy_pretrained import FIELD, SPRINGS, toy

from equivbench.cli.main import main
from equivbench.pretrained.measuring import Campaign
from equivbench.pretrained.networks import NETWORKS, PretrainedNetwork
from equivbench.pretrained.outcome import Asked
from equivbench.records.line_files import PRETRAINED_FILE
from equivbench.records.submission import review

CAMPAIGN = Campaign(
    asked=Asked(samples=12, rotations=8), threads=1, command="equivbench pretrained"
)


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The toys beside the public networks, for one test."""
    for each in (SPRINGS, FIELD, toy("nan", "Fails", how="not finite")):
        monkeypatch.setitem(NETWORKS, each.name, each)


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["pretrained", *arguments])
    return int(stop.value.code or 0)


def test_an_equivariant_network_is_verified_at_its_floor(toys: Path) -> None:
    line = CAMPAIGN.measure(SPRINGS)
    assert PRETRAINED_FILE.problems_of(line) == []
    assert line.symmetry_verified
    assert line.share < 1e-10
    assert line.floor < 1e-10
    assert line.reference is None
    assert line.explained is None
    assert line.packages["toy-networks"] == "1.0"
    assert line.averaged["8"].error == pytest.approx(line.total)
    assert line.averaged["8"].seconds == pytest.approx(8 * line.call_seconds)


def test_a_broken_symmetry_has_the_share_that_it_must(toys: Path) -> None:
    line = CAMPAIGN.measure(FIELD)
    assert PRETRAINED_FILE.problems_of(line) == []
    assert line.symmetry_verified is False
    # -2 a x e_x averages to -2 a r / 3, so a third of the square is left.
    assert line.share == pytest.approx(2 / 3, abs=0.03)
    assert line.share_low < 2 / 3 < line.share_high
    assert line.averaged["2"].error == pytest.approx(2 / 3 * line.total, rel=0.03)
    assert (line.samples, line.rotations, line.group) == (12, 8, "so3")


def test_with_a_reference_it_is_the_loss_that_is_split(toys: Path) -> None:
    against = PretrainedNetwork(
        SPRINGS.name, SPRINGS.family, "", SPRINGS.load, "so3", "gfn2-small", compared=True
    )
    line = CAMPAIGN.measure(against)
    assert PRETRAINED_FILE.problems_of(line) == []
    assert line.reference == "GFN2-xTB"
    assert line.explained is not None
    assert line.total != pytest.approx(CAMPAIGN.measure(SPRINGS).total)


def test_one_that_fails_is_said_and_the_others_are_kept(
    toys: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--samples", "4", "--out", str(tmp_path / "results"), "--json")
    assert run("nan", "springs", *options) == 3
    said = capsys.readouterr()
    assert said.err.startswith("error: nan gives forces on ")
    assert said.err.rstrip().endswith("that are not finite")
    (shown,) = json.loads(said.out)
    (file,) = (tmp_path / "results").glob("*/pretrained.jsonl")
    (line,) = PRETRAINED_FILE.read(file)
    assert msgspec.to_builtins(line) == shown
    assert line.command == "equivbench pretrained nan springs --samples 4"
    (report,) = review([tmp_path / "results"])
    assert report.problems == []


def test_the_table_has_a_row_a_network_and_says_why(
    toys: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("springs", "field", "--samples", "4") == 0
    out = capsys.readouterr().out
    rows = {line.split()[0]: line for line in out.splitlines() if line[:1].isalpha()}
    assert " yes " in rows["springs"]
    assert " NO " in rows["field"]
    assert "springs: equivariance error under so3" in out


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("so3lrr",), 2, "unknown pretrained network 'so3lrr'; did you mean so3lr?"),
        (("escaip",), 2, "the weights of escaip are not in any package; give their file with"),
        (("so3lr", "--weights", "nowhere.pt"), 3, "nowhere.pt is not there"),
        (("so3lr", "--rotations", "1"), 2, "--rotations must be at least 2, not 1"),
        (("so3lr", "--samples", "0"), 2, "--samples must be at least 1, not 0"),
        (("so3lr", "--threads", "0"), 2, "--threads must be at least 1, not 0"),
        (("so3lr", "--group", "octahedral"), 2, "unknown group 'octahedral'"),
    ],
)
def test_slips_of_the_command_line(
    arguments: tuple[str, ...], code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == code
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1


def test_no_network_connection_is_one_sentence(
    toys: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The toys' settings show pip nothing but the toys.
    assert run("diep") == 3
    said = capsys.readouterr().err
    assert said.startswith("error: the environment of diep cannot be made, for pip says: ")
    assert said.rstrip().endswith("it takes a network connection to the package index, once")
    assert said.count("\n") == 1


def test_a_list_of_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--list", "--json") == 0
    found = {each["name"]: each for each in json.loads(capsys.readouterr().out)}
    assert set(found) == {each.name for each in NETWORKS.values() if each.offline}
    assert found["so3lr"]["declared"] == "so3"
    assert run("orb", "--list", "--json") == 0
    (orb,) = json.loads(capsys.readouterr().out)
    assert (orb["name"], orb["weights"], orb["environment"]) == ("orb-v3", "fetched", "not yet")


def test_a_name_is_a_network_or_a_family(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("7net-0", "sevennet", "--list", "--json") == 0
    names = [each["name"] for each in json.loads(capsys.readouterr().out)]
    assert names[0] == "7net-0"
    assert len(names) == len(set(names)) == 4


def test_preparing_loads_and_measures_nothing(
    toys: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--prepare", "--out", str(tmp_path / "results"))
    assert run("springs", "field", *options) == 0
    assert capsys.readouterr().out == "ready: springs, field\n"
    assert run("springs", "--prepare", "--json") == 0
    assert json.loads(capsys.readouterr().out) == [{"name": "springs"}]
    assert not (tmp_path / "results").exists()

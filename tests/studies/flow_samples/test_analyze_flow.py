"""``analyze samples`` and ``analyze handedness`` as commands, on small models with random weights
and the shipped chains."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from equivbench.cli.main import main

SAMPLES = ("analyze", "samples", "vector-head", "--device", "cpu", "--count", "2", "--steps", "2")
HANDEDNESS = ("analyze", "handedness", "vector-head", "--device", "cpu")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EQUIVBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    return stop.value.code


def test_samples_are_drawn_described_and_written(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    assert run(*SAMPLES, "--length", "20", "--out", "out.npz", "--plot", "out.png", "--json") == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert "random weights" in said.err
    assert (found["samples"]["chains"], found["samples"]["residues"]) == (2, 40)
    # Real chains beside them.
    assert found["test"]["bond_mean"] == pytest.approx(3.8, abs=0.03)
    arrays = np.load(tmp_path / "out.npz")
    assert arrays["positions"].shape == (2, 24, 3)
    assert arrays["mask"].sum() == 40
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    assert run(*SAMPLES, "--length", "20", "--out", "again.pdb") == 0
    said = capsys.readouterr()
    assert "CA-CA distance" in said.out
    first = next(
        line
        for line in (tmp_path / "again.pdb").read_text().splitlines()
        if line.startswith("ATOM")
    )
    # The same seed, the same sample, to the three decimals of the file.
    np.testing.assert_allclose(float(first[30:38]), arrays["positions"][0, 0, 0], atol=6e-4)


def test_handedness_is_printed_and_given_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*HANDEDNESS, "--split", "validation", "--samples", "2", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["difference"] == pytest.approx(found["mirrored"] - found["native"])
    assert found["ratio"] == pytest.approx(found["mirrored"] / found["native"])
    assert set(found["told_apart"]) <= {"all", *found["by"]}
    assert set(found["by"]) == {
        f"t={t}" for t in ("0.2", "0.4", "0.6", "0.8", "0.9", "0.95", "0.99")
    }


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("analyze", "samples", "painn"), "for task forcefield"),
        (("analyze", "samples", "vector-hed"), "did you mean"),
        ((*SAMPLES, "--out", "x.xyz"), ".pdb or .npz"),
        ((*SAMPLES, "--method", "rk4"), "euler, heun"),
        ((*SAMPLES, "--length", "0"), "at least 1 residue"),
        (("analyze", "samples", "vector-head", "--count", "0"), "--count"),
        ((*HANDEDNESS, "--task", "forcefield"), "is for task flow"),
        ((*HANDEDNESS, "--rotations", "1"), "--rotations"),
        ((*HANDEDNESS, "--samples", "0"), "at least 1 sample"),
        ((*HANDEDNESS, "--split", "tset"), "did you mean test"),
    ],
)
def test_bad_requests_end_with_2_and_a_sentence(
    arguments: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert says in captured.err

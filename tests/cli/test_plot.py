"""``equivbench plot`` from files to a figure and exit codes."""

from __future__ import annotations

import resource
import signal
import sys
from pathlib import Path

import pytest
from factories import make_run

from equivbench.cli.main import main
from equivbench.records.schema import RunRecord
from equivbench.records.store import write_record

pytest.importorskip("matplotlib")


def write(folder: Path, *records: RunRecord) -> Path:
    for record in records:
        write_record(record, folder)
    return folder


def pair(scale: float = 1.0, **more: object) -> list[RunRecord]:
    """Both arms, every loss times ``scale`` (equal losses would be one run that counts twice)."""
    steps = [10, 30, 100, 300, 1000]
    return [
        make_run(arm, lambda step, k=k: scale * k * step**-0.5, steps, tau=0.1, **more)
        for arm, k in (("equivariant", 2.0), ("augmented", 4.0))
    ]


def plot(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["equivbench", "plot", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


@pytest.mark.parametrize("kind", ["curves", "gap", "share"])
def test_a_figure_is_drawn_from_records(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept = pair(1.1, variant={"sweep": "data", "value": "0.5"}, run_id="small-seed0-swept")
    folder = write(tmp_path / "results", *pair(), *swept)
    figure = tmp_path / "figure.svg"
    assert plot(monkeypatch, kind, folder, "--out", figure) == 0
    assert "<svg" in figure.read_text(encoding="utf-8")


def test_an_unknown_kind_of_figure_ends_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert plot(monkeypatch, "nonsense", tmp_path) == 2


def test_two_settings_are_not_mixed_and_a_choice_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path / "results", *pair(), *pair(1.1, pair="other"))
    figure = tmp_path / "figure.png"
    assert plot(monkeypatch, "curves", folder, "--out", figure) == 2
    assert "toy/other" in capsys.readouterr().err
    assert plot(monkeypatch, "curves", folder, "--out", figure, "--pair", "toy/pair") == 0
    assert plot(monkeypatch, "curves", folder, "--out", figure, "--pair", "toy/none") == 3


def test_forces_are_chosen_by_an_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ways = [
        record
        for name, scale in (("direct", 1.0), ("conservative", 1.1))
        for record in pair(scale, variant={"forces": name}, run_id=f"small-seed0-{name}")
    ]
    folder, figure = write(tmp_path / "results", *ways), tmp_path / "figure.svg"
    assert plot(monkeypatch, "gap", folder, "--out", figure) == 2
    assert "forces conservative" in capsys.readouterr().err
    chosen = ("--forces", "conservative", "--precision", "float32")
    assert plot(monkeypatch, "gap", folder, "--out", figure, *chosen) == 0
    assert plot(monkeypatch, "gap", folder, "--out", figure, "--forces", "none") == 2
    assert plot(monkeypatch, "gap", folder, "--out", figure, "--precision", "bf16") == 3


def test_runs_of_an_older_code_are_left_out_and_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    older = pair(
        1.1, run_id="small-seed0-older", git={"tree": "2" * 40}, created="2026-01-01T00:00:00Z"
    )
    folder = write(tmp_path / "results", *pair(), *older)
    assert plot(monkeypatch, "gap", folder, "--out", tmp_path / "figure.svg") == 0
    says = capsys.readouterr().err
    assert "drew 2 records of 2026-01-02; left out 2 of another code or day" in says


def test_a_single_newer_record_does_not_take_the_place_of_a_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    three = [record for seed in range(3) for record in pair(1 + seed / 10, seed=seed)]
    newer = pair(
        0.1, run_id="small-seed0-newer", git={"tree": "2" * 40}, created="2026-03-01T00:00:00Z"
    )
    folder = write(tmp_path / "results", *three, *newer)
    assert plot(monkeypatch, "gap", folder, "--out", tmp_path / "figure.svg") == 0
    assert "drew 6 records of 2026-01-02; left out 2" in capsys.readouterr().err


def test_an_invalid_record_ends_with_3_and_can_be_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path / "results", *pair())
    (folder / "cut.json").write_text("{")
    figure = tmp_path / "figure.svg"
    assert plot(monkeypatch, "curves", folder, "--out", figure) == 3
    assert ("cut.json" in capsys.readouterr().err, figure.exists()) == (True, False)
    assert plot(monkeypatch, "curves", folder, "--out", figure, "--skip-invalid") == 0
    assert figure.exists()


def test_one_arm_alone_has_no_gap_to_draw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "results", pair()[0])
    assert plot(monkeypatch, "gap", folder, "--out", tmp_path / "figure.svg") == 3


def test_a_full_disk_leaves_the_figure_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, figure = write(tmp_path / "results", *pair()), tmp_path / "figure.svg"
    assert plot(monkeypatch, "curves", folder, "--out", figure) == 0
    before = figure.read_bytes()
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, most))
    try:
        assert plot(monkeypatch, "gap", folder, "--out", figure) == 3
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        signal.signal(signal.SIGXFSZ, ignored)
    assert str(figure) in capsys.readouterr().err
    assert figure.read_bytes() == before
    assert [each.name for each in tmp_path.glob("*figure*")] == [figure.name]

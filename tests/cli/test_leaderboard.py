"""``leaderboard export``: formats, files and exit codes."""

import json
from pathlib import Path
from typing import Any

import pytest
from factories import make_record
from pretrained_lines import measurement
from toy_samples import kernel_samples

from equivbench.cli.main import main
from equivbench.records.line_files import KERNEL_FILE, PRETRAINED_FILE
from equivbench.records.store import load_results, write_record
from equivbench.report.board import build_boards
from equivbench.report.formats import ALL_FORMATS, DOCUMENT, FORMATS, PAGE
from equivbench.report.publication import publish
from equivbench.report.sections import to_markdown_page


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[Any, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(["leaderboard", "export", *arguments])
    captured = capsys.readouterr()
    return stop.value.code, captured.out, captured.err


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for arm in ("equivariant", "augmented"):
        for seed in range(2):
            write_record(make_record(arm=arm, seed=seed), tmp_path / "results")
    return tmp_path / "results"


@pytest.mark.parametrize("name", ALL_FORMATS)
def test_out_holds_what_stdout_shows(
    name: str, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, shown, err = run(capsys, "--format", name, "--results", str(results))
    assert (code, err) == (0, "")
    if name in FORMATS:
        assert shown == FORMATS[name](build_boards(load_results(results)))
    elif name == DOCUMENT:
        assert shown == to_markdown_page(publish(results))
    file = tmp_path / "board"
    assert run(capsys, "--format", name, "--results", str(results), "--out", str(file)) == (
        0,
        "",
        "",
    )
    assert file.read_text() == shown


def test_results_are_those_of_the_working_folder_by_default(
    results: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(results.parent)
    code, shown, _ = run(capsys, "--json")
    assert code == 0
    assert len(json.loads(shown)[0]["rows"]) == 2


@pytest.mark.parametrize("name", ["md", "json"])
def test_two_ways_to_name_a_format_are_one_too_many(
    name: str, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "--json", "--format", name, "--results", str(results))
    assert (code, out) == (2, "")
    assert f"leave it or --format {name} out" in err


def test_page_shows_the_kernels_of_the_folder_and_skips_broken_ones_when_asked(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = ("--format", PAGE, "--results", str(results))
    (results / "toy-cpu-2t" / "kernels.jsonl").write_text("{\n")
    code, out, err = run(capsys, *page)
    assert (code, out) == (3, "")
    assert "kernels.jsonl" in err
    code, out, err = run(capsys, *page, "--skip-invalid")
    assert code == 0
    assert out.lower().startswith("<!doctype html>")
    assert err.startswith("warning: left out")
    assert err.count("\n") == 1


def test_unknown_format_exits_2_with_the_close_match(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "--format", "cvs")
    assert code == 2
    assert "did you mean csv" in err


BEGINNINGS = {
    "md": "## Pretrained networks",
    "csv": "network,data,",
    "json": '[\n  {\n    "network": "toy"',
    "latex": "% Needs",
    PAGE: "<!DOCTYPE html>",
}


@pytest.mark.parametrize("name", ALL_FORMATS)
def test_pretrained_networks_alone_are_a_table_in_every_format(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (file,) = PRETRAINED_FILE.keep([measurement()], tmp_path)
    for place in (tmp_path, file):
        code, shown, err = run(capsys, "--results", str(place), "--format", name)
        assert (code, err) == (0, "")
        assert shown.startswith(BEGINNINGS[name])
        assert "gfn2-small" in shown


def test_kernel_times_alone_are_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples = [
        kernel_samples([0.02, 0.01], case="case", backend=name) for name in ("e3nn", "fused")
    ]
    KERNEL_FILE.keep(samples, tmp_path)
    code, shown, err = run(capsys, "--results", str(tmp_path), "--format", PAGE)
    assert (code, err) == (0, "")
    assert 'id="kernels"' in shown
    assert 'id="gaps"' not in shown
    code, shown, err = run(capsys, "--results", str(tmp_path))
    assert (code, err) == (0, "")
    assert shown.startswith("## Kernels\n")
    code, _, err = run(capsys, "--results", str(tmp_path), "--format", "csv")
    assert code == 3
    assert "holds no records" in err


@pytest.mark.parametrize("name", ALL_FORMATS)
def test_a_file_of_lines_is_not_taken_for_a_record(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "gradients.jsonl"
    file.write_text("{}\n")
    code, _, err = run(capsys, "--results", str(file), "--format", name)
    assert code == 3
    assert f"name a results folder, such as {tmp_path}" in err
    assert "delete" not in err


def test_no_records_exit_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--results", str(tmp_path))[0] == 3
    assert run(capsys, "--results", str(tmp_path / "nowhere"))[0] == 3


def test_invalid_record_exits_3_or_is_left_out(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = run(capsys, "--results", str(results))[1]
    (results / "cut.json").write_text("{")
    code, out, err = run(capsys, "--results", str(results))
    assert (code, out) == (3, "")
    assert "cut.json" in err
    code, out, err = run(capsys, "--results", str(results), "--skip-invalid")
    assert (code, out) == (0, whole)
    assert err.startswith("warning: left out")
    assert err.count("\n") == 1


def test_out_that_cannot_be_written_exits_3(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(capsys, "--results", str(results), "--out", str(results))
    assert code == 3
    assert err.startswith("error: cannot write")


def test_what_is_read_is_not_written_over(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A board goes into the folder of its records, but not into one of them."""
    record = next(results.rglob("*.json"))
    before = record.read_bytes()
    code, _, err = run(capsys, "--results", str(results), "--out", str(record))
    assert code == 2
    assert "one of the files that are read" in err
    assert record.read_bytes() == before
    for _ in range(2):
        assert run(capsys, "--results", str(results), "--out", str(results / "board.md"))[0] == 0

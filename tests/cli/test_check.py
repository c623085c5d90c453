"""``equivbench check`` from files to exit codes and formats."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from toy_samples import environment, gate_samples, noisy

from equivbench.cli.main import main
from equivbench.gate.samples import GateSamples
from equivbench.records.files import write_lines
from equivbench.records.schema import Git

STEADY = noisy(0.01, 0.002, 8, 1)
SLOWER = [1.2 * value for value in STEADY]
CONTROL = gate_samples(STEADY, benchmark="control", control=True)


def write(path: Path, *samples: GateSamples) -> Path:
    return write_lines([CONTROL, *samples], path)


def check(*arguments: object) -> int:
    with pytest.raises(SystemExit) as end:
        main(["check", *map(str, arguments)])
    return int(end.value.code or 0)


@pytest.fixture
def baseline(tmp_path: Path) -> Path:
    return write(tmp_path / "baseline.jsonl", gate_samples(STEADY))


CASES: dict[str, tuple[dict[str, Any] | None, str, int]] = {
    "the same": ({}, "unchanged", 0),
    "faster": ({"rounds": [[value / 1.2] for value in STEADY]}, "improvement", 0),
    "slower": ({"rounds": [[value] for value in SLOWER]}, "regression", 1),
    "vanished": (None, "missing", 3),
    "negative": ({"rounds": [[-1.0]] + [[value] for value in STEADY[1:]]}, "failed", 3),
    "zero": ({"rounds": [[0.0]] + [[value] for value in STEADY[1:]]}, "failed", 3),
    "no rounds": ({"rounds": []}, "failed", 3),
    "an empty round": ({"rounds": [[]] + [[value] for value in STEADY[1:]]}, "failed", 3),
    "three rounds": ({"rounds": [[value] for value in STEADY[:3]]}, "failed", 3),
    "broken": ({"problem": "RuntimeError: wrong"}, "failed", 3),
    "another machine": ({"environment": environment("other-1t")}, "incomparable", 4),
    "another benchmark": ({"version": "2"}, "incomparable", 4),
    "a dirty tree": ({"git": Git(commit=None, dirty=True)}, "dirty", 2),
}


@pytest.mark.parametrize("name", CASES)
def test_each_case_has_its_verdict_and_exit_code(
    name: str, baseline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, verdict, code = CASES[name]
    changed = [] if change is None else [gate_samples(STEADY, **change)]
    candidate = write(tmp_path / "b.jsonl", *changed)
    assert check(baseline, candidate, "--format", "json") == code
    report = json.loads(capsys.readouterr().out)
    assert report["exit_code"] == code
    assert {each["benchmark"]: each["verdict"] for each in report["benchmarks"]} == {
        "control": "unchanged",
        "work": verdict,
    }


def test_json_is_short_for_the_format(
    baseline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    candidate, outputs = write(tmp_path / "b.jsonl", gate_samples(SLOWER)), []
    for arguments in (["--json"], ["--format", "json"]):
        assert check(baseline, candidate, *arguments) == 1
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]
    assert json.loads(outputs[0])["exit_code"] == 1


@pytest.mark.parametrize("content", ["", "{", "NaN", '{"benchmark": "work"}'])
def test_an_empty_or_cut_file_ends_with_3(content: str, baseline: Path, tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text(content)
    assert check(baseline, tmp_path / "b.jsonl") == 3
    assert check(tmp_path / "b.jsonl", baseline) == 3
    assert check(baseline, tmp_path / "nowhere") == 3


def test_the_first_of_the_codes_wins(baseline: Path, tmp_path: Path) -> None:
    other = gate_samples(STEADY, environment=environment("other-1t"))
    names = ("work", "more", "gone")
    both = write(tmp_path / "a.jsonl", *(gate_samples(STEADY, benchmark=name) for name in names))
    assert (
        check(
            both,
            write(
                tmp_path / "b.jsonl", gate_samples(SLOWER), gate_samples(STEADY, benchmark="more")
            ),
        )
        == 3
    )
    assert (
        check(both, write(tmp_path / "b.jsonl", other, gate_samples(SLOWER, benchmark="more"))) == 4
    )


def test_inconclusive_fails_only_when_strict(baseline: Path, tmp_path: Path) -> None:
    candidate = write(
        tmp_path / "b.jsonl",
        gate_samples([value * (1.5 if i % 2 else 0.8) for i, value in enumerate(STEADY)]),
    )
    assert check(baseline, candidate) == 0
    assert check(baseline, candidate, "--strict") == 5


def test_allow_dirty_lets_uncommitted_changes_pass(baseline: Path, tmp_path: Path) -> None:
    candidate = write(tmp_path / "b.jsonl", gate_samples(STEADY, git=Git(commit=None, dirty=True)))
    assert check(baseline, candidate) == 2
    assert check(baseline, candidate, "--allow-dirty") == 0


def test_a_threshold_can_be_given(baseline: Path, tmp_path: Path) -> None:
    candidate = write(tmp_path / "b.jsonl", gate_samples(SLOWER))
    assert check(baseline, candidate, "--fail-on", "seconds:30") == 0
    assert check(baseline, candidate, "--fail-on", "seconds:10") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--fail-on", "speed:5"],
        ["--fail-on", "seconds:no"],
        ["--format", "yaml"],
        ["--format", "text", "--json"],
        ["--nonsense"],
        ["--only", "x"],
        ["--out", "x"],
    ],
)
def test_bad_arguments_end_with_2(
    arguments: list[str], baseline: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(baseline, baseline, *arguments) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_one_side_alone_ends_with_2(baseline: Path) -> None:
    assert check(baseline) == 2


def test_github_gets_annotations_and_a_summary_page(
    baseline: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = tmp_path / "summary.md"
    page.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    assert (
        check(baseline, write(tmp_path / "b.jsonl", gate_samples(SLOWER)), "--format", "github")
        == 1
    )
    assert "\n::error title=regression%3A work seconds::" in capsys.readouterr().out
    assert page.read_text().startswith("before\n### equivbench check")
    assert "| work |" in page.read_text()


def test_the_reason_is_one_line_on_stderr(
    baseline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check(baseline, write(tmp_path / "b.jsonl", gate_samples(SLOWER)))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: 1 regression, 1 unchanged; first work seconds")


def test_it_needs_no_torch(baseline: Path) -> None:
    code = (
        "import sys\nfrom equivbench.cli.main import main\n"
        f"try:\n    main(['check', {str(baseline)!r}, {str(baseline)!r}])\n"
        "finally:\n    assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)

"""Two revisions measured next to each other: a toy repository whose process of a side reports what
its commit says."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from equivbench.errors import EquivbenchWarning, FailedError, InterruptedRunError, UsageError
from equivbench.gate import process
from equivbench.gate.compare import compare
from equivbench.gate.interleave import check_request, interleave
from equivbench.gate.reading import read_side
from equivbench.gate.samples import Side
from equivbench.gate.worktrees import InterleaveRequest

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")

PROCESS = """
import json, sys, time
from pathlib import Path
SECONDS = {seconds}
{extra}
environment = dict(
    machine_key="toy-1t", device="cpu", driver=None, cpu="Toy", threads=1, python="3", packages={{}}
)
names = [dict(name=name, version="1", control=name == "control") for name in SECONDS]
package = str(Path(__file__).resolve().parents[1])


def say(kind, **fields):
    print(json.dumps(dict(fields, type=kind)), flush=True)


say("hello", package=package, environment=environment, benchmarks=names)
for line in sys.stdin:
    command = json.loads(line)
    if command["type"] == "use":
        used = SECONDS[command["name"]]
        if isinstance(used, str):
            say("refused", problem=used or None)
        else:
            say("built")
    else:
        time.sleep(0.001)
        say("took", seconds=used)
"""


class Repository:
    """A git repository with a package ``equivbench`` that holds nothing but the process of a
    side."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.git("init", "--quiet")
        for folder in ("equivbench", "equivbench/gate"):
            (root / folder).mkdir()
            (root / folder / "__init__.py").touch()
        (root / "pyproject.toml").touch()

    def git(self, *arguments: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false"]
        return subprocess.run(
            ["git", "-C", str(self.root), *identity, *arguments],
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    def commit(self, seconds: dict[str, float | str] | None, extra: str = "") -> str:
        process = self.root / "equivbench" / "gate" / "side.py"
        if seconds is not None:
            process.write_text(PROCESS.format(seconds=seconds, extra=extra))
        self.git("add", "-A")
        self.git("commit", "--quiet", "--allow-empty", "-m", "a state")
        return self.git("rev-parse", "HEAD").strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    root = tmp_path / "repository"
    root.mkdir()
    monkeypatch.chdir(root)
    return Repository(root)


def measure(first: str, second: str, out: Path | None = None, **more: object) -> tuple[Side, Side]:
    request = InterleaveRequest(first, second, **{"rounds": 4, "seconds": 0.01, **more})  # type: ignore[arg-type]
    return interleave(request, progress=lambda line: None, out=out)


def verdicts(sides: tuple[Side, Side]) -> dict[str, str]:
    return {each.benchmark: each.verdict for each in compare(*sides, thresholds={})}


def test_each_side_is_measured_from_its_own_commit(repository: Repository, tmp_path: Path) -> None:
    first = repository.commit({"control": 1.0, "work": 1.0, "gone": 1.0})
    second = repository.commit({"control": 1.0, "work": 1.2, "added": 1.0})
    sides = measure(first, second, tmp_path / "out")
    expected = {"control": "unchanged", "work": "regression", "gone": "missing", "added": "new"}
    assert verdicts(sides) == expected
    stored = (
        read_side(tmp_path / "out" / "baseline.jsonl"),
        read_side(tmp_path / "out" / "candidate.jsonl"),
    )
    assert verdicts(stored) == expected
    assert repository.git("worktree", "list").count("\n") == 1


def test_the_sides_take_their_samples_in_turn(repository: Repository, tmp_path: Path) -> None:
    note = "import os; LOG = open({!r}, 'a'); SIDE = Path.cwd().name"
    log = tmp_path / "order"
    repository.commit({"control": 1.0}, extra=note.format(str(log)))
    process = repository.root / "equivbench" / "gate" / "side.py"
    text = process.read_text()
    process.write_text(
        text.replace("        time.sleep(0.001)", "        LOG.write(SIDE[0]); LOG.flush()")
    )
    repository.git("commit", "--quiet", "-am", "it notes who is asked")
    measure("HEAD", "HEAD", rounds=4)
    assert log.read_text()[:8] == "bccbbccb"


def test_a_noisy_benchmark_gets_as_many_rounds_again_while_it_needs_them(
    repository: Repository,
) -> None:
    noise = "import random; SECONDS['noisy'] *= random.choice([0.5, 1.0, 2.0])"
    repository.commit({"control": 1.0, "steady": 1.0, "noisy": 1.0}, extra=noise)
    baseline, _ = measure("HEAD", "HEAD", rounds=5)
    counts = {each.name: len(each.values) for each in baseline.measurements}
    assert counts == {"control": 20, "steady": 5, "noisy": 20}


def test_what_one_side_alone_cannot_run_is_missing_or_new(repository: Repository) -> None:
    first = repository.commit({"control": 1.0, "lost": 1.0, "gained": "", "neither": ""})
    second = repository.commit({"control": 1.0, "lost": "", "gained": 1.0, "neither": ""})
    assert verdicts(measure(first, second)) == {
        "control": "unchanged",
        "lost": "missing",
        "gained": "new",
    }


def test_a_benchmark_that_raises_has_failed_with_what_it_said(repository: Repository) -> None:
    first = repository.commit({"control": 1.0, "work": 1.0})
    second = repository.commit({"control": 1.0, "work": "WrongKernelError: off by 2"})
    found = {each.benchmark: each for each in compare(*measure(first, second), thresholds={})}
    assert found["work"].verdict == "failed"
    assert "off by 2" in found["work"].reason


def test_a_side_that_hangs_is_ended(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "PATIENCE", 0.5)
    repository.commit({"control": 1.0}, extra="time.sleep(60)")
    with pytest.raises(FailedError, match="did not answer"):
        measure("HEAD", "HEAD")
    assert repository.git("worktree", "list").count("\n") == 1


def test_a_busy_machine_is_a_warning(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.commit({"control": 1.0})
    monkeypatch.setattr(os, "getloadavg", lambda: (1000.0, 0.0, 0.0))
    with pytest.warns(EquivbenchWarning, match="busy"):
        measure("HEAD", "HEAD")


def test_an_unknown_revision_is_a_usage_error(repository: Repository) -> None:
    repository.commit({"control": 1.0})
    for name in ("nowhere", "--all", ""):
        with pytest.raises(UsageError, match="revision"):
            measure("HEAD", name)


def test_a_revision_that_cannot_be_measured_has_failed(repository: Repository) -> None:
    old = repository.commit(None)
    repository.commit({"control": 1.0})
    with pytest.raises(FailedError, match=r"side\.py"):
        measure(old, "HEAD")


def test_uncommitted_changes_are_refused_unless_allowed(repository: Repository) -> None:
    repository.commit({"control": 1.0})
    (repository.root / "pyproject.toml").write_text("changed")
    with pytest.raises(UsageError, match="uncommitted"):
        measure("HEAD", "HEAD")
    assert verdicts(measure("HEAD", "HEAD", allow_dirty=True)) == {"control": "unchanged"}


def test_outside_a_repository_is_a_usage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(UsageError, match="is in no git repository"):
        measure("HEAD", "HEAD")


def test_a_repository_without_a_working_tree_is_said_to_be_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(["git", "init", "-q", "--bare", str(tmp_path)], check=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"git finds no working tree around .* work tree"):
        measure("HEAD", "HEAD")


@pytest.mark.parametrize(("rounds", "seconds"), [(3, 0.4), (0, 0.4), (8, 0.0), (8, float("nan"))])
def test_what_cannot_give_a_bound_is_a_usage_error(rounds: int, seconds: float) -> None:
    with pytest.raises(UsageError):
        check_request(InterleaveRequest("a", "b", rounds=rounds, seconds=seconds))


def test_a_pattern_that_matches_nothing_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="list-pairs"):
        check_request(InterleaveRequest("a", "b", only=("list-pair",)))


def test_a_side_that_dies_says_why(repository: Repository) -> None:
    repository.commit({"control": 1.0})
    repository.commit({"control": 1.0}, extra="raise RuntimeError('out of luck')")
    with pytest.raises(FailedError, match=r"candidate.*out of luck"):
        measure("HEAD~1", "HEAD")
    assert repository.git("worktree", "list").count("\n") == 1


def test_an_interrupted_measurement_keeps_its_rounds(
    repository: Repository, tmp_path: Path
) -> None:
    repository.commit({"control": 1.0, "work": 1.0})

    def progress(line: str) -> None:
        if line.startswith("round 3: work"):
            raise KeyboardInterrupt

    request = InterleaveRequest("HEAD", "HEAD", rounds=4, seconds=0.01)
    with pytest.raises(InterruptedRunError, match="after 2 rounds"):
        interleave(request, progress=progress, out=tmp_path / "out")
    for name in ("baseline", "candidate"):
        kept = read_side(tmp_path / "out" / f"{name}.jsonl").measurements
        assert {each.name: len(each.values) for each in kept} == {"control": 3, "work": 2}
    assert repository.git("worktree", "list").count("\n") == 1


def test_a_terminated_check_removes_its_worktrees(repository: Repository) -> None:
    repository.commit({"control": 1.0, "work": 1.0})
    # Not the package of this folder, which is the toy that is measured.
    command = [sys.executable, "-P", "-m", "equivbench.cli.main"]
    command += ["check", "--interleave", "HEAD", "HEAD"]
    check = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert check.stderr is not None
    assert any("round 1" in line for line in check.stderr)
    assert repository.git("worktree", "list").count("\n") == 3
    check.terminate()
    assert check.wait(60) == 130
    check.stderr.close()
    assert repository.git("worktree", "list").count("\n") == 1


def test_a_benchmark_that_ran_in_some_rounds_only_is_told_by_those(
    repository: Repository,
) -> None:
    flaky = (
        "p = Path.cwd().parent / f'seen-{Path.cwd().name}'; "
        "SECONDS = SECONDS if p.exists() else dict(SECONDS, work='no luck'); p.touch()"
    )
    repository.commit({"control": 1.0, "work": 1.0}, extra=flaky)
    assert verdicts(measure("HEAD", "HEAD"))["work"] == "failed"

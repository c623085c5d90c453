"""Two revisions measured in alternation: a toy repository whose worker reports what its commit
says."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from equivbench.errors import EquivbenchWarning, FailedError, InterruptedRunError, UsageError
from equivbench.gate.compare import compare
from equivbench.gate.interleave import check_request, interleave
from equivbench.gate.reading import read_side
from equivbench.gate.samples import Side
from equivbench.gate.worktrees import InterleaveRequest

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")

WORKER = """
import json, sys
from pathlib import Path
SECONDS = {seconds}
{extra}
out = Path(sys.argv[sys.argv.index("--out") + 1])
environment = dict(
    machine_key="toy-1t", device="cpu", driver=None, cpu="Toy", threads=1, python="3", packages={{}}
)
lines = [
    dict(benchmark=name, version="1", control=name == "control", seconds=each, problem=None)
    for name, each in SECONDS.items()
]
package = str(Path(__file__).resolve().parents[1])
out.write_text(json.dumps(dict(package=package, environment=environment, lines=lines)))
"""


class Repository:
    """A git repository with a package ``equivbench`` that holds nothing but a worker."""

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

    def commit(self, seconds: dict[str, float] | None, extra: str = "") -> str:
        worker = self.root / "equivbench" / "gate" / "worker.py"
        if seconds is not None:
            worker.write_text(WORKER.format(seconds=seconds, extra=extra))
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
    request = InterleaveRequest(first, second, **{"rounds": 4, **more})  # type: ignore[arg-type]
    return interleave(request, progress=lambda line: None, out=out)


def verdicts(sides: tuple[Side, Side]) -> dict[str, str]:
    return {each.benchmark: each.verdict for each in compare(*sides, thresholds={}, floors={})}


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


def test_the_sides_alternate(repository: Repository) -> None:
    repository.commit({"control": 1.0})
    said: list[str] = []
    interleave(InterleaveRequest("HEAD", "HEAD", rounds=4), progress=said.append)
    order = ["baseline" if ": baseline" in line else "candidate" for line in said]
    assert order == ["baseline", "candidate", "candidate", "baseline"] * 2


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


def test_a_revision_without_a_worker_has_failed(repository: Repository) -> None:
    old = repository.commit(None)
    repository.commit({"control": 1.0})
    with pytest.raises(FailedError, match=r"worker\.py"):
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


def test_a_worker_that_dies_says_why(repository: Repository) -> None:
    repository.commit({"control": 1.0})
    repository.commit({"control": 1.0}, extra="raise RuntimeError('out of luck')")
    with pytest.raises(FailedError, match=r"candidate.*out of luck"):
        measure("HEAD~1", "HEAD")
    assert repository.git("worktree", "list").count("\n") == 1


def test_an_interrupted_measurement_keeps_its_rounds(
    repository: Repository, tmp_path: Path
) -> None:
    repository.commit({"control": 1.0})

    def stop(after: int) -> Callable[[str], None]:
        said: list[str] = []

        def progress(line: str) -> None:
            said.append(line)
            if len(said) > after:
                raise KeyboardInterrupt

        return progress

    with pytest.raises(InterruptedRunError, match="after 2 of 4 rounds"):
        interleave(
            InterleaveRequest("HEAD", "HEAD", rounds=4), progress=stop(5), out=tmp_path / "out"
        )
    kept = [
        read_side(tmp_path / "out" / f"{name}.jsonl").measurements[0]
        for name in ("baseline", "candidate")
    ]
    assert [len(each.values) for each in kept] == [3, 2]
    assert repository.git("worktree", "list").count("\n") == 1


def test_a_benchmark_that_ran_in_some_rounds_only_has_failed(repository: Repository) -> None:
    flaky = (
        "import os; p = Path.cwd().parent / 'seen'; "
        "SECONDS = SECONDS if p.exists() else {'control': 1.0}; p.touch()"
    )
    repository.commit({"control": 1.0, "work": 1.0}, extra=flaky)
    assert verdicts(measure("HEAD", "HEAD"))["work"] == "failed"
